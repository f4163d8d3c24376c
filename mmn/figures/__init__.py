"""Data frame in, Altair chart out: one function per question. Nothing here knows of databases, models or Streamlit.

`FIGURES` is what the command line offers as `figure NAME`; every function takes the rows and the run's row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mmn.figures.budget import logit_budget, top_share
from mmn.figures.comparison import ranking_overlap
from mmn.figures.layers import layer_distribution
from mmn.figures.neuron import decoded_tokens
from mmn.studies.annotate.figures import field_overlaps
from mmn.studies.degradation.figures import ablated_layers, degradation, perturbation
from mmn.studies.editing.figures import editing
from mmn.studies.invariance.cross_image_figures import cross_image_invariance, shared_by_layer
from mmn.studies.invariance.figures import invariance_by_concept, kept_by_layer, region_invariance
from mmn.studies.lens.figures import nearest_cosines, noun_shares
from mmn.studies.sensitivity.figures import sensitivity
from mmn.studies.specificity.figures import (
    highest_for_own_noun,
    selectivity,
    specificity_by_concept,
    specificity_summary,
)

FIGURES: Final[dict[str, Callable[..., Any]]] = {
    "layers": layer_distribution,
    "budget": logit_budget,
    "top-share": top_share,
    "comparison": ranking_overlap,
    "tokens": decoded_tokens,
    "fields": field_overlaps,
    "lens": nearest_cosines,
    "lens-layers": noun_shares,
    "invariance": region_invariance,
    "invariance-concepts": invariance_by_concept,
    "invariance-layers": kept_by_layer,
    "cross-image": cross_image_invariance,
    "cross-image-layers": shared_by_layer,
    "specificity": specificity_by_concept,
    "specificity-summary": specificity_summary,
    "specificity-highest": highest_for_own_noun,
    "selectivity": selectivity,
    "sensitivity": sensitivity,
    "degradation": degradation,
    "perturbation": perturbation,
    "ablated-layers": ablated_layers,
    "edit": editing,
}
