"""A model, pictures and settings -> the plan of a scoring run, after the model was checked.

`mmn score` and the Python API both begin here; `engines.local.carry_out` does what the plan says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmn import names
from mmn.core import MOST_SEED, ScoreSettings
from mmn.errors import UsageError
from mmn.images import Listing
from mmn.models.model import Model
from mmn.runs.doctor import check
from mmn.runs.plan import Plan, plan
from mmn.scores.methods import require_method

SLOW_BATCH = 4  # pictures whose scores take minutes: a batch is what is told of, and what a stop loses


def settings_of(model: Model, **asked: Any) -> ScoreSettings:
    """The settings of a run of `model`: `asked` holds fields of `ScoreSettings`; what is None is the model's usual.

    Raises:
        UsageError: as `effect_layers_of`; a seed below 0, or too large for a table.
    """
    is_slow = any(method in names.METHODS and names.METHODS[method].cost for method in asked.get("methods") or ())
    size = min(model.usual_batch_size, SLOW_BATCH) if is_slow else model.usual_batch_size
    usual: dict[str, Any] = {"prompt": model.default_prompt, "batch_size": size}
    given = {name: value for name, value in asked.items() if value is not None}
    dtype = str(model.dtype).removeprefix("torch.")
    settings = ScoreSettings(**(usual | given), dtype=dtype, device=model.device.type)
    if not 0 <= settings.seed <= MOST_SEED:
        raise UsageError(f"seed {settings.seed}: give a whole number from 0 to {MOST_SEED}")
    n_units = model.anatomy.n_awake
    return replace(
        settings,
        top_k=min(settings.top_k, n_units),
        bottom_k=min(settings.bottom_k, n_units),
        effect_layers=effect_layers_of(model, settings.methods, settings.effect_layers),
    )


def effect_layers_of(model: Model, methods: Sequence[str], layers: Sequence[int]) -> tuple[int, ...]:
    """The layers that effects are measured of, as a run keeps them: all of them are ().

    Raises:
        UsageError: the model does not have them, or no method is an effect.
    """
    if not layers:
        return ()
    first, last = layers
    told, most = f"--effect-layers {first}-{last}", model.facts.n_layers - 1
    if not 0 <= first <= last <= most:
        raise UsageError(f"{told}: the layers of {model.facts.name} are 0-{most}")
    if not set(map(names.followed, methods)) & set(names.EFFECTS):
        raise UsageError(f"{told} is of {' and '.join(names.EFFECTS)}: name one in --methods, or leave it out")
    return () if (first, last) == (0, most) else (first, last)


def prepare(model: Model, listing: Listing, images: str, settings: ScoreSettings) -> Plan:
    """The plan of a run on the pictures of `listing`, which the source `images` names.

    Raises:
        UsageError: a method that there is none of for this model.
        ModelError: the model does not see pictures, or its logits do not add up (`doctor.check`).
    """
    for method in settings.methods:
        require_method(model, method)
    exact_prompt = model.exact_prompt(settings.prompt, settings.answer_prefix)
    proof = check(model, exact_prompt).proof
    return plan(model.facts, listing, images, exact_prompt, settings, proof.errors())
