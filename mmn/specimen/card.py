"""Writes the model card from what training measured: `python -m mmn.specimen.card`."""

from __future__ import annotations

import json

from mmn.specimen import MODEL_PATH
from mmn.specimen.world import NOUNS, PLACES

CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
license: mit
---
# The specimen

A vision-language model of 5 million parameters that captions pictures of a small world, trained by this project so that
every method can be tried offline and checked against ground truth. It knows {n_nouns} objects and {n_places} places and
nothing else: of a photograph it talks nonsense.

| | |
|---|---|
| architecture | `LlavaForConditionalGeneration`: CLIP vision (4 layers, width 192, 112 px, 8 × 8 patches) → one linear map (LLaVA's projector without non-linearity, its second matrix the identity) → Llama (8 layers, width 192, gated FFN of 384, untied head): 3,072 FFN units |
| tokenizer | unigram, {n_tokens} tokens, one a word, bytes to fall back on; a few nouns in several pieces (`tele` `phone`, `tele` `vision`) |
| prompt | `<s><image>A picture of` (in its chat template) |
| weights | float16, {megabytes:.1f} MB |

## Accuracy

On {n_scenes} fresh scenes, rendered at 336 px and put through the processor, greedy, float32; nouns as multisets of
lemmas:

| noun recall | noun precision | place | caption exact |
|---|---|---|---|
| {noun_recall:.3f} | {noun_precision:.3f} | {place:.3f} | {exact:.3f} |

## Data

Scenes of one to three glyphs of Noto Color Emoji on procedural places (colour gradient, smooth noise, grain), drawn
afresh for every batch from a seed; captions follow from the scene (`world.py`, `render.py`). The gallery's scenes come
from another seed. No picture or text of anyone's was used.

## Recipe

`python -m mmn.specimen.train` (seed {seed}): {stages}. AdamW, cosine, bfloat16 autocast. {minutes}

## Licence

The program and the weights are this project's. The glyphs on `sprites.webp`, and so in the gallery's pictures, are from
Noto Color Emoji, © Google LLC, under the SIL Open Font License 1.1 (https://openfontlicense.org); the font itself is
not included.
"""


def main() -> None:
    report = json.loads((MODEL_PATH / "training.json").read_text())
    tokenizer = json.loads((MODEL_PATH / "tokenizer.json").read_text())
    stages = [f"{stage['name']} {stage['n_steps']} × {stage['batch_size']}" for stage in report["stages"]]
    minutes = [f"{name} {value:.0f}" for name, value in report["minutes"].items()]
    card = CARD.format(
        **report["evaluation"],
        n_nouns=len(NOUNS),
        n_places=len(PLACES),
        n_tokens=len(tokenizer["model"]["vocab"]),
        megabytes=(MODEL_PATH / "model.safetensors").stat().st_size / 1e6,
        seed=report["seed"],
        stages=", ".join(stages),
        minutes=f"Minutes on 2 CPU cores: {', '.join(minutes)}. {report.get('note', '')}".strip(),
    )
    (MODEL_PATH / "README.md").write_text(card)


if __name__ == "__main__":
    main()
