"""Writes the model cards from what training measured: `python -m mmn.specimen.card`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmn.models.limber import FINER_STAGE
from mmn.specimen import MAP_PATHS, MODEL_PATHS
from mmn.specimen.features import D_FINER, D_LAST
from mmn.specimen.world import NOUNS, PLACES

TEMPLATE_PATH: Final = Path(__file__).parent / "card.md"
MAP_TEMPLATE_PATH: Final = Path(__file__).parent / "card-smollm.md"
STYLES: Final = {"noto": "Noto, as the gallery's", "fluent": "Fluent", "twemoji": "Twemoji, never trained on"}
COLUMNS: Final = ("noun_recall", "noun_precision", "noun_kinds_recall", "of_probe", "place", "place_probe", "exact")
ABOUT: Final = {
    "specimen": "Everything in it was trained on pictures.",
    "specimen-frozen": "Its feed-forward layers, embeddings and unembedding were trained on text alone and then "
    "frozen: only attention, norms and the map from the picture learned to read pictures, with the finished specimen's "
    "eye. P1 (arXiv 2308.01544) freezes its whole language model; there as here, no unit that is scored ever learned "
    "from a picture.",
}


@dataclass(frozen=True)
class MapWords:
    """What the card of a map says of it, of the states that it reads and of its start, and its training's options."""

    about: str
    states: str
    first: str
    options: str


MAP_WORDS: Final = {
    "specimen-smollm": MapWords(
        "It reads the encoder's last stage.", f"7 × 7 states of width {D_LAST:,}", "a random start", ""
    ),
    "specimen-smollm-finer": MapWords(
        "It reads the encoder's last stage and the finer one before it, which tells places apart.",
        f"7 × 7 states: {D_LAST:,} numbers of the last stage, and {D_FINER} of the four 14 × 14 states there before it",
        "`specimen-smollm`'s map, whose start was random; the weights of the finer stage began at 0",
        " --finer-stage --start mmn/specimen/model-smollm/map.safetensors",
    ),
}


def main() -> None:
    for name, path in MODEL_PATHS.items():
        (path / "README.md").write_text(card_of(name, path))
    for name, file in MAP_PATHS.items():
        (file.parent / "README.md").write_text(card_of_map(name, file.parent))


def card_of_map(name: str, path: Path) -> str:
    """The card of a map, from what its training and its evaluation wrote beside it."""
    trained = json.loads((path / "training.json").read_text())
    found = json.loads((path / "evaluation.json").read_text())
    has_finer = json.loads((path / MAP_PATHS[name].name).read_text()).get(FINER_STAGE, False)
    words = MAP_WORDS[name]
    rows = []
    for style, title in STYLES.items():
        of_probe = found[style]["noun_kinds_recall"] / found["probe"][style]
        values = found[style] | {"of_probe": of_probe, "place_probe": found["place_probe"][style]}
        rows.append(f"| {title} | " + " | ".join(f"{values[column]:.3f}" for column in COLUMNS) + " |")
    photographs = found["photographs"]
    named = f"Of {photographs['n']} photographs whose noun it knows it names {photographs['named']}"
    chance = f"by chance, with another photograph's caption, {photographs['named_by_chance']:.1f}"
    return MAP_TEMPLATE_PATH.read_text().format(
        **trained | {"losses": ", ".join(map(str, trained["losses"][::10]))},
        name=name,
        about=words.about,
        states=words.states,
        first=words.first,
        options=words.options,
        width=D_LAST + D_FINER * has_finer,
        table="\n".join(rows),
        shuffled=found["shuffled"],
        n_scenes=found["noto"]["n_scenes"],
        n_probe=found["n_probe"],
        megabytes=(path / "map.safetensors").stat().st_size / 1e6,
        photographs=f"{named}; {chance}.",
    )


def card_of(name: str, path: Path) -> str:
    """The card of a bundled model."""
    report = json.loads((path / "training.json").read_text())
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    stages = [f"{stage['name']} {stage['n_steps']} × {stage['batch_size']}" for stage in report["stages"]]
    minutes = [f"{stage} {value:.0f}" for stage, value in report["minutes"].items()]
    return TEMPLATE_PATH.read_text().format(
        **report["evaluation"],
        name=name,
        about=ABOUT[name],
        n_nouns=len(NOUNS),
        n_places=len(PLACES),
        n_tokens=len(tokenizer["model"]["vocab"]),
        megabytes=(path / "model.safetensors").stat().st_size / 1e6,
        seed=report["seed"],
        stages=", ".join(stages),
        minutes=f"Minutes on a CPU: {', '.join(minutes)}. {report.get('note', '')}".strip(),
    )


if __name__ == "__main__":
    main()
