"""Writes the model card from what training measured: `python -m mmn.specimen.card`."""

from __future__ import annotations

import json
from pathlib import Path

from mmn.specimen import MODEL_PATH
from mmn.specimen.world import NOUNS, PLACES

TEMPLATE_PATH = Path(__file__).parent / "card.md"


def main() -> None:
    report = json.loads((MODEL_PATH / "training.json").read_text())
    tokenizer = json.loads((MODEL_PATH / "tokenizer.json").read_text())
    stages = [f"{stage['name']} {stage['n_steps']} × {stage['batch_size']}" for stage in report["stages"]]
    minutes = [f"{name} {value:.0f}" for name, value in report["minutes"].items()]
    card = TEMPLATE_PATH.read_text().format(
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
