"""Runs work on a stranger's files in a process of its own, which is killed when it takes too much time or memory.

A chat template is a program, a tokenizer a set of patterns, a config a list of sizes: each can ask for hours or for all
of the memory. A forked copy of this process tries it first, and only its answer, a text, comes back. Forking costs
milliseconds, since every library is loaded already. On other systems than Linux the work is done here, without limits.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from mmn import errors
from mmn.errors import MmnError, ModelError

_GIB: Final = 1 << 30
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What a piece of work may take: seconds of processor time, five times as many by the clock, GiB of memory."""

    seconds: int
    gibibytes: int = 4


def apart(what: str, work: Callable[[], str], limits: Limits) -> str:
    """The text that `work` returns, from a process of its own.

    Args:
        what: begins the message where the work does not end well.
        work: neither sees nor changes anything here that others wait for.
        limits: beyond which it is killed.

    Raises:
        MmnError: what the work itself raises.
        ModelError: it was killed, or died.
    """
    if sys.platform != "linux":
        return work()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(writer, work, limits)
    os.close(writer)
    try:
        answer = _read_all(reader, 5.0 * limits.seconds)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        most = f"{limits.seconds} s or {limits.gibibytes} GiB"
        raise ModelError(f"{what}: it takes more than {most}, or ends in the middle; no whole checkpoint does")
    said = json.loads(answer)
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return str(said["text"])


def _answer(writer: int, work: Callable[[], str], limits: Limits) -> NoReturn:
    """Does the work in the forked process, which ends here whatever happens; silence means that it was not done."""
    try:
        _confine(limits)
        try:
            answer = {"text": work()}
        except MmnError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            json.dump(answer, stream)
    finally:
        os._exit(0)


def _confine(limits: Limits) -> None:
    """Limits this process, and takes away its terminal: what it has to say goes through the pipe."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_AS, taken + limits.gibibytes * _GIB),
        (resource.RLIMIT_CORE, 0),
    ):
        _, highest = resource.getrlimit(kind)
        within = most if highest == resource.RLIM_INFINITY else min(most, highest)
        resource.setrlimit(kind, (within, within))


def _read_all(reader: int, seconds: float) -> bytes:
    """Everything until the writer closes; nothing when that takes too long."""
    parts: list[bytes] = []
    end = time.monotonic() + seconds
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, _CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""
