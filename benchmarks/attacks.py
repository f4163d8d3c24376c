"""Can a stranger's cache, model or picture harm anything? Tries some hundred of each and counts what became of them.

    python benchmarks/attacks.py [--seed 0] [--only shards]

Prints a table (`tally`): tried, refused by name, accepted and equal, harmed, raw exceptions, slower than 5 s (without
the time that comparing takes). Exit 0 only when the last three are 0. The other two kinds are in `attack_models.py` and
`attack_pictures.py`, where they are there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.attack_folders import fingerprint, on_places
from benchmarks.attack_shards import GOOD, VICTIM, Attack, make_runs, on_content
from benchmarks.tally import SLOW_S, Tally, table
from mmn.cli.cache import _runs
from mmn.errors import MmnError
from mmn.runs import jobs
from mmn.store import Store
from mmn.store.migrations import PUBLIC_TABLES

KINDS: Final = {"models": "attack_models", "pictures": "attack_pictures"}
_TABLES: Final = [*(name for name, columns in PUBLIC_TABLES.items() if "run_id" in columns), "image_rank"]
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - hundreds of caches: not onto a disk, if that can be
_HANGS_S: Final = 30


class Hung(Exception):
    """An attack did not come to an end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("shards", *KINDS))
    arguments = parser.parse_args()
    makers: dict[str, Callable[[Path, int], Tally]] = {"shards": attack}
    for kind, module in KINDS.items():
        if importlib.util.find_spec(f"benchmarks.{module}") is not None:
            makers[kind] = importlib.import_module(f"benchmarks.{module}").attack
    tallies = {}
    for kind, maker in makers.items():
        if arguments.only in (None, kind):
            with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
                tallies[kind] = maker(Path(folder), arguments.seed)
    print(table(tallies))
    return 0 if all(tally.is_clean for tally in tallies.values()) else 1


def attack(workdir: Path, seed: int, most: int | None = None) -> Tally:
    """Spoils caches, loads them and deletes from them; tells of each attack that did not go as it should.

    Args:
        workdir: an empty folder to work in.
        seed: of the attacks.
        most: how many to try, all if None.
    """
    make_runs(workdir / "quiet" / "runs")
    with Store.open(workdir / "quiet") as store:
        store.load_new_shards([store.runs_path])
        assert not store.set_aside, store.set_aside
        quiet = _rows(store)
    total = Tally()
    rng = random.Random(seed)
    attacks = [*on_content(rng), *on_places()]
    rng.shuffle(attacks)
    for one in attacks[:most]:
        tally = _try(one, workdir / "place", workdir / "quiet" / "runs", quiet)
        if tally.slow:  # once may be the machine's fault
            tally = _try(one, workdir / "place", workdir / "quiet" / "runs", quiet)
        total += tally
    return total


def _try(one: Attack, place: Path, runs_path: Path, quiet: dict[str, Counter[str]]) -> Tally:
    what, spoil = one
    shutil.rmtree(place, ignore_errors=True)
    cache, outside = place / "cache", place / "outside"
    shutil.copytree(runs_path, cache / "runs")
    outside.mkdir()
    (outside / "precious.txt").write_text("not ours")
    spoil(cache)
    before = {path: fingerprint(path) for path in (outside, cache / "runs" / GOOD)}
    clock, wrong, is_refused, is_raw = _Clock(), "", False, False
    try:
        with _limited():
            is_refused, wrong = _use(cache, quiet, clock)
    except MmnError:
        is_refused = True
    except Exception as error:
        is_raw, wrong = True, f"{type(error).__name__}: {error}"[:300]
    is_slow = clock.seconds() > SLOW_S
    changed = [path.name for path, was in before.items() if fingerprint(path) != was]
    is_harmed = bool(changed) or (bool(wrong) and not is_raw)
    if wrong or changed or is_slow:
        print(f"{what!r}: {wrong} {changed or ''} {clock.seconds():.1f} s", file=sys.stderr)
    accepted = not (is_refused or is_harmed or is_raw)
    return Tally(1, int(is_refused and not is_harmed), int(accepted), int(is_harmed), int(is_raw), int(is_slow))


class _Clock:
    """Seconds since it was made, but for the time that our own comparing took."""

    def __init__(self) -> None:
        self.started, self.comparing = time.monotonic(), 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.started - self.comparing

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.comparing += time.monotonic() - began


def _use(cache: Path, quiet: dict[str, Counter[str]], clock: _Clock) -> tuple[bool, str]:
    """Loads a cache, lists and deletes its runs; returns whether anything was refused, and what came out wrong."""
    for job in jobs.list_jobs(cache / "jobs"):
        jobs.state_of(job)
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        values, text = _runs(store, argparse.Namespace())
        json.dumps([values, text], ensure_ascii=False, default=str, allow_nan=False).encode()
        is_refused = bool(store.set_aside)
        with clock.stopped():
            wrong = _difference(_rows(store), quiet, is_refused=is_refused)
        for run_id in store.runs()["run_id"]:
            if run_id != GOOD:
                store.delete_run(run_id)
        with clock.stopped():
            good = {key: rows for key, rows in _rows(store).items() if key.endswith(GOOD)}
            return is_refused, wrong or _difference(good, {key: quiet[key] for key in good}, is_refused=False)


def _difference(found: dict[str, Counter[str]], quiet: dict[str, Counter[str]], *, is_refused: bool) -> str:
    """What the database holds that it should not, or lacks without saying so; empty if nothing."""
    for key in sorted(found.keys() | quiet.keys()):
        more, less = (
            found.get(key, Counter()) - quiet.get(key, Counter()),
            quiet.get(key, Counter()) - found.get(key, Counter()),
        )
        if key.startswith("run ") and is_refused and key.endswith(VICTIM):
            continue  # how it ended may be what was set aside
        if more and not (key.startswith("image_rank") and is_refused and key.endswith(VICTIM)):
            return f"{key}: {sum(more.values())} rows that are not in the untouched run, {str(next(iter(more)))[:150]}"
        if less and not (is_refused and key.endswith(VICTIM)):
            return f"{key}: {sum(less.values())} rows are missing, and nothing says so"
    return ""


def _rows(store: Store) -> dict[str, Counter[str]]:
    """The rows of each table and run, as often as each is there; where pictures lie differs from cache to cache."""
    found: dict[str, Counter[str]] = {}
    with store._cursor() as own:
        for name in _TABLES:
            places = " EXCLUDE (source, sources)" if name == "image" else ""
            for run_id, *row in own.execute(f"SELECT *{places} FROM {name}").fetchall():  # noqa: S608 - our own names
                found.setdefault(f"{name} {run_id}", Counter())[repr(row)] += 1
        found[f"neuron {GOOD}"] = Counter(map(repr, own.table("neuron").fetchall()))  # those of the model, of all runs
    return found


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(_signal: int, _frame: object) -> None:
        raise Hung(f"it did not end in {_HANGS_S} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


if __name__ == "__main__":
    sys.exit(main())
