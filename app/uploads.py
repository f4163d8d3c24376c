"""Uploaded pictures become a folder like any other source, named by what is in it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mmn.safety.inside import last_part


def save_uploads(files: Mapping[str, bytes], uploads_path: Path) -> Path:
    """Writes `files` (name to content) to `<uploads_path>/<sha-256>` and returns that folder; it is there whole or not
    at all, and the same files again are the same folder.
    """
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    folder = uploads_path / digest.hexdigest()
    if folder.exists():
        return folder
    uploads_path.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=uploads_path))
    for number, (name, content) in enumerate(sorted(files.items())):
        (part / f"{number:05d}-{last_part(name)}").write_bytes(content)
    try:
        part.rename(folder)
    except OSError:
        shutil.rmtree(part)
        if not folder.exists():  # otherwise another session was faster
            raise
    return folder
