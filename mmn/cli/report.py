"""`mmn report RUN --out F.html`: a run as one file to be read, opened without a server or a network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.cache import LATEST, teller
from mmn.cli.files import require_out, writing
from mmn.counts import counted
from mmn.specimen import RUN_PATHS


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("report", help="write a run as one file to read, with charts and pictures")
    parser.add_argument("run", help=LATEST)
    parser.add_argument("--out", required=True, type=Path, metavar="F.html")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    from mmn.reports.contents import contents
    from mmn.reports.page import page
    from mmn.store import Store

    out: Path = options.out
    require_out(out, ".html", ".htm")
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, *RUN_PATHS])
        run_id = store.run(options.run)["run_id"]
        found = contents(store, run_id, teller("report"))
    with writing(out) as place:
        place.write_bytes(page(found).encode())
    n_figures = sum(map(len, found.figures.values()))
    told = {"run_id": run_id, "out": str(out), "n_figures": n_figures, "n_pictures": len(found.pictures)}
    size = out.stat().st_size
    if options.json:
        print_json(told | {"n_bytes": size, "missing": dict(found.missing)})
    else:
        print(f"{out}: {counted(n_figures, 'figure')}, {counted(len(found.pictures), 'picture')}; {size / 1e6:.1f} MB")
    return DONE
