"""`mmn doctor` and `mmn models`: does this model work here, and which families are there?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.options import add_loading_options
from mmn.cli.running import load_quietly

if TYPE_CHECKING:
    from mmn.models.tried import Tried


def add_parsers(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="load a model, run score's checks and report what was found")
    doctor.add_argument("name", metavar="M")
    doctor.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    doctor.add_argument("--device", default="auto")
    add_loading_options(doctor)
    add_common(doctor, __name__)
    models = commands.add_parser(
        "models", help="list all types of vision-language models: what works for each, or why it is refused"
    )
    add_common(models, __name__)


def run(options: argparse.Namespace) -> int:
    rows = _families() if options.command == "models" else _examine(options)
    if options.json:
        print_json(rows)
    elif isinstance(rows, list):
        _print_table(rows)
    else:
        _print_facts(rows)
    return DONE


def _families() -> list[dict[str, str]]:
    """Every type of vision-language model that transformers knows: what it gives here, or why it gives nothing."""
    from mmn.models.tried import all_tried

    return [
        {
            "family": row.model_type,
            "supported": "no" if row.reason else "yes",
            "maps": "" if row.reason else "yes" if row.maps == "yes" else "no",
            "decoder": row.decoder,
            "example": row.example,
            "note": row.reason or _less_than_all(row),
        }
        for row in all_tried()
    ]


def _less_than_all(row: Tried) -> str:
    """What a supported type lacks."""
    lacks = {"attribution": row.attribution, "maps": row.maps, "batch": row.batch}
    return "; ".join(f"{name}: {why}" for name, why in lacks.items() if why != "yes")


def _examine(options: argparse.Namespace) -> dict[str, Any]:
    """Facts of a model, and the checks that `score` makes of it, on two pictures."""
    from mmn.runs.doctor import examine

    model = load_quietly(options.name, options.dtype, options.device, options.revision, options.device_map)
    commit = {"revision": model.facts.revision} if model.facts.revision else {}
    return examine(model) | commit


def _print_table(rows: list[dict[str, str]]) -> None:
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in widths}, *rows]:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")
