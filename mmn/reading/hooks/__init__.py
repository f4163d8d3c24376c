"""The only place that registers hooks: `capture` reads what a forward pass computes, `intervene` changes it.

Hooks are borrowed with `with`; they are gone afterwards, whatever happened, and a hook that never fired is an error.
"""

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
    STEPS_AT_ONCE,
    Captured,
    CapturedUnits,
    Graph,
    capture,
    capture_graph,
    capture_units,
)
from mmn.reading.hooks.finite import first_not_finite, weight_not_finite
from mmn.reading.hooks.groups import Entering, capture_entering, capture_mean_activity
from mmn.reading.hooks.intervene import AddedColumns, ablate, add_to_columns, permuted
from mmn.reading.hooks.residual import capture_residual, write_residual

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
    "STEPS_AT_ONCE",
    "AddedColumns",
    "Captured",
    "CapturedUnits",
    "Entering",
    "Graph",
    "ablate",
    "add_to_columns",
    "capture",
    "capture_entering",
    "capture_graph",
    "capture_mean_activity",
    "capture_residual",
    "capture_units",
    "first_not_finite",
    "permuted",
    "weight_not_finite",
    "write_residual",
]
