"""What each type of transformers' image-text-to-text mapping gives: `docs/models.md`, and what `mmn models` prints.

python -m tests.families.models_page
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from mmn.errors import UnsupportedModelError
from mmn.models.adapters import FAMILIES, families, find_anatomy, find_family
from mmn.models.geometry.kinds import GRIDS, why_no_places
from mmn.models.model import Model
from mmn.models.tried import FILE, Tried
from mmn.reading.captions import caption_encoded
from mmn.runs.proof import prove
from mmn.scores.expert_gradients import own_experts_read_images
from tests.families.bare import N_TOKENS, bare_model
from tests.families.test_build import BATCH_MIXES, pictures
from tests.families.tiny import REFUSED, TYPES, build

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = f"""# Models

Written by `python -m tests.families.models_page` (transformers {transformers.__version__}), which builds a tiny random
model of each type in transformers' image-text-to-text mapping, saves and loads it, captions two pictures and makes the
[proof](methods.md#proof). Any checkpoint of these types is proved again when it is loaded.
`mmn models` prints this table.

`found`: the terms of a logit were found from the module structure alone, or a factor or soft cap after the unembedding
is declared.
`error`: the largest error of the proof's checks of the logits' terms, the head and an ablation.
`maps`: whether units can be mapped on the picture; `batch`: whether several pictures can be read in one batch.

| type | example | text decoder | found | error | attribution | maps | batch |
|---|---|---|---|---|---|---|---|
"""


def tried(model_type: str) -> Tried:
    """What one type gives."""
    example = FAMILIES[model_type].example if model_type in FAMILIES else ""
    if model_type in REFUSED and model_type not in families.REFUSED:
        return Tried(model_type, example, reason=REFUSED[model_type])
    try:
        family = find_family(model_type)
        vlm = build(model_type)
        module: Any = vlm.module
        anatomy = find_anatomy(module, family)
    except UnsupportedModelError as error:
        return Tried(model_type, example, reason=_reason(str(error)))
    model = bare_model(model_type, module, anatomy)
    proof = prove(model, caption_encoded(model, vlm.encode(pictures()), N_TOKENS))
    return Tried(
        model_type,
        example,
        decoder=module.config.get_text_config(decoder=True).model_type,
        found="declared" if anatomy.head_factor != 1 or family.head_divisor or family.has_soft_cap else "structure",
        error=float(f"{max(proof.exact, proof.head, proof.ablation):.0e}"),
        attribution=_attribution(model),
        maps="yes" if family.grid in GRIDS else why_no_places(model) or "not checked",
        batch=BATCH_MIXES.get(model_type, "yes"),
    )


def _attribution(model: Model) -> str:
    if model.has_encoder:
        return "no: an encoder reads the picture"
    if model.image_token_id is None:
        return "no image tokens in the prompt"
    return "no: image tokens go through experts of their own" if own_experts_read_images(model) else "yes"


def _reason(message: str) -> str:
    """Without what names the type and its decoder."""
    said = message.partition("supported: ")[2] or message
    return re.sub(r"^this \S+ model (\(\S+\) |cannot be read: |uses )?", "", said)


def page(rows: Iterable[Tried]) -> str:
    accepted = [row for row in rows if not row.reason]
    refused = [row for row in rows if row.reason]
    lines = [
        f"| {row.model_type} | {row.example or '-'} | {row.decoder} | {row.found} | {row.error:.0e} | "
        f"{row.attribution} | {row.maps} | {row.batch} |"
        for row in accepted
    ]
    reasons = [f"- `{row.model_type}`: {row.reason}" for row in refused]
    return HEAD + "\n".join(lines) + f"\n\n{len(accepted)} types.\n\n## Not supported\n\n" + "\n".join(reasons) + "\n"


def main() -> None:
    rows = [tried(model_type) for model_type in TYPES]
    PAGE.write_text(page(rows))
    FILE.write_text(json.dumps([row.__dict__ for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
