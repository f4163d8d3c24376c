"""Progress on standard error: a bar on a terminal, a line now and then elsewhere, or JSON lines for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tqdm import tqdm

from mmn.runs.plan import Progress
from mmn.studies.registry import STAGES

STYLES = ("auto", "json", "none")
LINE_EVERY_S = 10.0


def reporter(style: str) -> Callable[[Progress], None]:
    """A callback in the asked style; `auto` looks whether standard error is a terminal."""
    if style == "none":
        return lambda _progress: None
    if style == "json":
        return _JsonLines()
    return _Bar() if sys.stderr.isatty() else _Lines()


@dataclass
class _Pace:
    """Rate of the current stage, from its first report on: what an earlier session did does not count.

    A stage that begins again, as with the controls of what was just measured, is another one.
    """

    stage: str = ""
    started: float = 0.0
    first: int = 0
    last: int = 0

    def rate(self, progress: Progress) -> float | None:
        if progress.stage != self.stage or progress.done < self.last:
            self.stage, self.started, self.first = progress.stage, time.monotonic(), progress.done
        self.last = progress.done
        seconds = time.monotonic() - self.started
        done = progress.done - self.first
        return done / seconds if done and seconds > 0 else None


@dataclass
class _JsonLines:
    pace: _Pace = field(default_factory=_Pace)

    def __call__(self, progress: Progress) -> None:
        rate = self.pace.rate(progress)
        remaining = (progress.total - progress.done) / rate if rate else None
        print(json.dumps(asdict(progress) | {"rate": rate, "remaining_s": remaining}), file=sys.stderr, flush=True)


@dataclass
class _Lines:
    pace: _Pace = field(default_factory=_Pace)
    said_at: float = 0.0
    said_stage: str = ""

    def __call__(self, progress: Progress) -> None:
        rate = self.pace.rate(progress)
        is_last = progress.total > 0 and progress.done == progress.total
        if progress.stage == self.said_stage and not is_last and time.monotonic() - self.said_at < LINE_EVERY_S:
            return
        self.said_at, self.said_stage = time.monotonic(), progress.stage
        count = f" {progress.done}/{progress.total}" if progress.total else ""
        speed = f", {rate:.1f}/s, {(progress.total - progress.done) / rate:.0f} s left" if rate else ""
        note = f" ({progress.message})" if progress.message else ""
        print(f"{STAGES[progress.stage]}{count}{speed}{note}", file=sys.stderr, flush=True)


@dataclass
class _Bar:
    bar: tqdm | None = None
    stage: str = ""

    def __call__(self, progress: Progress) -> None:
        begins_again = self.bar is not None and progress.done < self.bar.n
        if progress.stage != self.stage or begins_again:
            self._close()
            self.stage = progress.stage
            print(STAGES[progress.stage] + (f" ({progress.message})" if progress.message else ""), file=sys.stderr)
            if progress.total:
                self.bar = tqdm(total=progress.total, initial=progress.done, unit="picture", leave=True)
        if self.bar is not None:
            self.bar.update(progress.done - self.bar.n)
            if progress.done == progress.total:
                self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
