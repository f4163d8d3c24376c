"""A server of the app on a free port with its own cache, ended in any case; and the Chromium that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def served(entry: Path, cache_path: Path, listen: str = "127.0.0.1", **environment: str) -> Iterator[str]:
    """The address of `entry` served by Streamlit, at `listen`, from another working directory than the repository."""
    (cache_path / "welcome-seen").touch()  # or the card of a first visit stands above
    port = free_port()
    options = ["--server.port", str(port), "--server.headless", "true", "--server.address", listen]
    with (cache_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(entry), *options],
            cwd=cache_path,
            env=os.environ | {"MMN_CACHE": str(cache_path), "OMP_NUM_THREADS": "1"} | environment,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for_health(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_health(address: str, server: subprocess.Popen, timeout_s: float = 40.0) -> None:
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        try:
            with urllib.request.urlopen(address):  # noqa: S310 - our own server
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(address)
