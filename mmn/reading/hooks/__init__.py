"""The only place that registers hooks: `capture` reads what a forward pass computes, `intervene` changes it.

Hooks are borrowed with `with`; they are gone afterwards, whatever happened, and a hook that never fired is an error.
"""

from mmn.reading.hooks.at_tokens import AtTokens
from mmn.reading.hooks.capture import (
    ACT,
    ACTIVATION,
    ATTENTION,
    EMBEDDING,
    EXPERTS,
    FFN,
    FINAL,
    INNER,
    ONCE,
    RESIDUAL,
    STEPS_AT_ONCE,
    Captured,
    CapturedUnits,
    Graph,
    capture,
    capture_graph,
    capture_units,
    looked_up,
    require_act,
)
from mmn.reading.hooks.expert_graph import ExpertGraph, capture_expert_graph
from mmn.reading.hooks.experts import Call
from mmn.reading.hooks.finite import first_not_finite, weight_not_finite
from mmn.reading.hooks.groups import Entering, capture_entering, capture_mean_activity
from mmn.reading.hooks.image_tokens import Blocked, block_attention, embed, read_embeddings
from mmn.reading.hooks.intervene import AddedColumns, ablate, add_to_columns, hold, permuted, towards_mean
from mmn.reading.hooks.paths import OfExperts, Paths, capture_paths
from mmn.reading.hooks.projection import projected_away
from mmn.reading.hooks.relevance import Relevance, frozen_norm, relevance_graph, require_relevance
from mmn.reading.hooks.replay import Recorded, mean_of_others_each, past_is_keys, record_layers, zero_one_each
from mmn.reading.hooks.residual import capture_residual, read_after, write_residual
from mmn.reading.hooks.streaming import each_layer

__all__ = [
    "ACT",
    "ACTIVATION",
    "ATTENTION",
    "EMBEDDING",
    "EXPERTS",
    "FFN",
    "FINAL",
    "INNER",
    "ONCE",
    "RESIDUAL",
    "STEPS_AT_ONCE",
    "AddedColumns",
    "AtTokens",
    "Blocked",
    "Call",
    "Captured",
    "CapturedUnits",
    "Entering",
    "ExpertGraph",
    "Graph",
    "OfExperts",
    "Paths",
    "Recorded",
    "Relevance",
    "ablate",
    "add_to_columns",
    "block_attention",
    "capture",
    "capture_entering",
    "capture_expert_graph",
    "capture_graph",
    "capture_mean_activity",
    "capture_paths",
    "capture_residual",
    "capture_units",
    "each_layer",
    "embed",
    "first_not_finite",
    "frozen_norm",
    "hold",
    "looked_up",
    "mean_of_others_each",
    "past_is_keys",
    "permuted",
    "projected_away",
    "read_after",
    "read_embeddings",
    "record_layers",
    "relevance_graph",
    "require_act",
    "require_relevance",
    "towards_mean",
    "weight_not_finite",
    "write_residual",
    "zero_one_each",
]
