"""`mmn edit RUN --noun A --to B`: writes B where the model says A, beside its controls; `--undo ID` takes it back."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmn import names
from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.files import require_out, writing
from mmn.cli.finishing import failed_words
from mmn.cli.options import at_least, seed
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.cli.unit_options import WHAT, chosen_set, count_or_set
from mmn.core import Run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.runs.plan import Progress
from mmn.runs.shards import finished_shards

PREFIX = "edit-"
COLUMNS = ("efficacy", "generalisation", "locality", "fluency")


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "edit", help="change a few units so that the model writes another word for a noun; or undo that"
    )
    add_run_options(parser)
    parser.add_argument("--noun", metavar="A", help="a noun of the run's captions")
    parser.add_argument("--to", metavar="B", dest="target", help="the word to write instead")
    parser.add_argument("--undo", metavar="ID", help="remove this edit of the run: its rows, and its file in the cache")
    parser.add_argument("--algorithm", default="p2", choices=("p2", "rank-one"), help="P2's edit, or one whole layer")
    parser.add_argument("--selection", default="top", choices=("top", "random"), help="which units")
    parser.add_argument(
        "--units", type=count_or_set, default=20, metavar="N|FILE|NAME", help=f"how many, default 20; or {WHAT}"
    )
    parser.add_argument("--method", default=names.CONTRIBUTION_FOLDED, metavar="M", help="the score that selects them")
    parser.add_argument(
        "--solver", default="closed", choices=("closed", "stepped"), help="closed form, or Adam's steps"
    )
    parser.add_argument(
        "--until",
        default="likelier",
        choices=("likelier", "likeliest"),
        help="success: the target is likelier than A (P2), or the likeliest word",
    )
    parser.add_argument(
        "--success",
        type=_number,
        default=0.9,
        metavar="SHARE",
        help="share of the edited pictures that must succeed; default 0.9",
    )
    parser.add_argument(
        "--max-norm", type=_number, default=2.0, metavar="R", help="cap on ‖Δ‖/‖w‖ of a unit; default 2"
    )
    parser.add_argument(
        "--steps", type=at_least(1), default=500, metavar="N", help="steps of --solver stepped; default 500"
    )
    parser.add_argument(
        "--lr", type=_number, default=1e-3, metavar="R", help="learning rate of --solver stepped; default 0.001"
    )
    parser.add_argument(
        "--beta", type=_number, default=0.1, metavar="B", help="weight of ‖Δ‖ in --solver stepped; default 0.1"
    )
    parser.add_argument("--edited", type=at_least(1), default=10, metavar="N", help="pictures to edit on; at most half")
    parser.add_argument(
        "--unrelated", type=at_least(0), default=200, metavar="M", help="pictures that should not change"
    )
    parser.add_argument(
        "--no-controls",
        action="store_true",
        help="leave out the controls: another noun's units, random ones and rank-one",
    )
    parser.add_argument("--seed", type=seed(), default=0, help="seed of the pictures to edit on and of random units")
    parser.add_argument("--out", type=Path, metavar="F.safetensors", help="the delta, for score --model M --delta F")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    scored = open_scored_run(options)
    if options.undo is not None:
        return _undo(options, scored)
    wish = _wish(options, scored.run)
    from mmn.studies.editing.measure import file_of, read_edit, with_controls

    started = time.monotonic()
    wishes = (wish,) if options.no_controls else with_controls(wish)
    edits_path = options.cache / "edits"
    edit_ids = edit_stoppably(scored, edits_path, wishes)
    found = [read_edit(scored.path, edit_id) | {"file": str(file_of(edits_path, edit_id))} for edit_id in edit_ids]
    if options.out is not None:
        with writing(options.out) as place:
            shutil.copyfile(file_of(edits_path, edit_ids[0]), place)
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    seconds = round(time.monotonic() - started, 3)
    n_failed = max(edit["n_failed"] for edit in found)
    result = {"run_id": scored.run.run_id, "noun": options.noun, "target": options.target, "edits": found}
    own = _own_share(scored, found)
    result |= {"n_failed": n_failed, "own": own, "out": options.out, "seconds": seconds, "database": note}
    _print_result(result, as_json=options.json)
    return SOME_FAILED if n_failed else DONE


def _own_share(scored: RunToExtend, edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How much more the first edit does than the same on another noun's units; empty without that control."""
    from mmn.studies.editing.measure import read_captions_of
    from mmn.studies.editing.shares import own_share

    control = next((one["edit_id"] for one in edits[1:] if one["selection"] == names.ANOTHER), None)
    if control is None:
        return {}
    edit_id = edits[0]["edit_id"]
    return own_share(read_captions_of(scored.path, [edit_id, control]), edit_id, control)


def edit_stoppably(scored: RunToExtend, edits_path: Path, wishes: Sequence[Any]) -> list[str]:
    """`editing.edit`, ended by SIGINT or SIGTERM as scoring is: with the edits that were finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.studies.editing.measure import edit

    with stoppable():
        return edit(scored.load(), scored.path, edits_path, wishes, scored.progress)


def _wish(options: argparse.Namespace, run: Run) -> Any:
    if not options.noun or not options.target:
        raise UsageError("an edit needs --noun A and --to B, for example --noun beach --to desert (or --undo ID)")
    require_out(options.out, ".safetensors")
    given = chosen_set(None if isinstance(options.units, int) else options.units, options.cache, run)
    if given is not None and options.selection == "random":
        raise UsageError("--units SET names the units to edit: leave --selection random to the controls")
    from mmn.studies.editing.measure import Wish
    from mmn.studies.editing.objective import Adam

    return Wish(
        noun=options.noun,
        target=options.target,
        algorithm=options.algorithm,
        selection=options.selection,
        method=options.method,
        n_units=options.units if given is None else len(given.units),
        given=given,
        solver=options.solver,
        until=options.until,
        success=options.success,
        max_norm=options.max_norm,
        adam=Adam(options.lr, options.steps, options.beta),
        n_edited=options.edited,
        n_unrelated=options.unrelated,
        seed=options.seed,
    )


def _undo(options: argparse.Namespace, scored: RunToExtend) -> int:
    from mmn.store import Store

    there = sorted(name.removeprefix(PREFIX) for name in finished_shards(scored.path) if name.startswith(PREFIX))
    found = [edit_id for edit_id in there if options.undo and edit_id.startswith(options.undo)]
    if len(found) != 1:
        wrong = "more than one edit begins with" if found else "no edit"
        known = ", ".join(there) or "none"
        raise UsageError(f"{wrong} {options.undo!r} in run {scored.run.run_id}; its edits are: {known}")
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path])
        store.delete_edit(scored.run.run_id, found[0])
    if options.json:
        print_json({"run_id": scored.run.run_id, "edit_id": found[0], "undone": True})
    else:
        print(f"{found[0]} is undone; the model's own files were never changed")
    return DONE


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for edit in result["edits"]:
        settings = edit["settings"]
        shares = ", ".join(_share_text(edit, name) for name in COLUMNS)
        what = _which_units(edit) if edit["algorithm"] == "p2" else f"layer {settings['layer']}"
        print(
            f"{edit['edit_id']} {edit['noun']} -> {edit['target']}, {edit['algorithm']}, {what}: {shares}; "
            f"‖Δ‖/‖w‖ {edit['relative_norm']:z.2f}, stopped by {settings['stopped_by']}{_perplexity_text(edit)}"
        )
    from mmn.studies.editing.shares import describe_own_edit

    print(describe_own_edit(result["own"]) or "there is no edit of another noun's units to compare with")
    from mmn.statistics.interval_words import few_note  # pandas is slow to import

    if note := few_note(edit[f"{name}_n"] for edit in result["edits"] for name in COLUMNS if f"{name}_n" in edit):
        print(note)
    if result["edits"][0]["settings"]["is_multi_token"] != [False, False]:
        print("a word of several tokens: only its first was edited")
    if result["n_failed"]:
        print(failed_words(result))
    print(f"the delta is {result['out'] or result['edits'][0]['file']} (mmn score --model M --delta FILE)")
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")


def _which_units(edit: dict[str, Any]) -> str:
    settings, n = edit["settings"], edit["settings"]["n_units"]
    if edit["selection"] == names.ANOTHER:
        return f"{counted(n, 'unit')} of {settings['other_noun']}"
    if edit["selection"] == names.TOP and "units" in settings:
        return f"{counted(n, 'unit')} of the set {settings['units']}"
    return counted(n, f"{edit['selection']} unit")


def _perplexity_text(edit: dict[str, Any]) -> str:
    """`; perplexity of plain 16.9 -> 17.2, of captions 3.1 -> 3.3`: text that is read without a picture."""
    told = [f"of {text} {one['before']:,.4g} -> {one['after']:,.4g}" for text, one in edit["perplexity"].items()]
    return "; perplexity " + ", ".join(told) if told else ""


def _share_text(edit: dict[str, Any], name: str) -> str:
    """`efficacy 0.90 [0.55, 1.00] of 10`: a share of pictures, its 95 % interval and their number; or a mean."""
    from mmn.statistics.interval_words import bracket

    if edit[name] is None:
        return f"{name} –"
    if f"{name}_n" not in edit:
        return f"{name} {edit[name]:z.2f}"
    ends = bracket(edit[f"{name}_low"], edit[f"{name}_high"], "z.2f")
    return f"{name} {edit[name]:z.2f}{ends} of {edit[f'{name}_n']}"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value
