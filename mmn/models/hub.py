"""Where a checkpoint lies: bundled, a folder, or a repository of the hub at a revision.

A branch or a tag moves; what was fetched is told by its commit, so that a run can be opened again with the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmn.errors import ModelError, UsageError
from mmn.safety.boundary import first_line
from mmn.safety.roots import require_model
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS
from mmn.specimen import MODELS

SMALL_FILES: Final = ("config.json", "adapter_config.json")  # that a checkpoint is judged by
ALL_FILES: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "adapter_model.*")
Judge = Callable[[Path], object]


@dataclass(frozen=True)
class Place:
    """A checkpoint's folder; `commit` is what a hub's repository was fetched at, empty for any other folder."""

    path: Path
    commit: str = ""


def find_checkpoint(name: str, judge: Judge = lambda _path: None, revision: str | None = None) -> Place:
    """The folder of a checkpoint; a hub id is fetched first (safetensors and configuration only).

    Args:
        name: bundled, a folder or a hub id.
        judge: is given the folder when it holds at least `config.json`, before anything large is fetched; what it
            raises ends the matter.
        revision: branch, tag or commit of a hub id; the main branch unless given.

    Raises:
        ModelError: neither a folder nor to be had from the hub.
        UsageError: a revision of what has none.
        OutsideRootsError: it is outside the folders that this process may read.
    """
    if name in BUNDLED_PATHS:
        refuse_revision(name, revision)
        return Place(BUNDLED_PATHS[name])
    require_model(name)
    path = Path(name).expanduser()
    if path.is_dir():
        refuse_revision(name, revision)
        judge(path)
        return Place(path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"{name!r} is no folder; give a folder in Hugging Face format, a hub id, or one of {', '.join(MODELS)}"
        )
    return _fetch_judged(name, judge, revision)


def refuse_revision(name: str, revision: str | None) -> None:
    """Raises `UsageError` where a revision is asked of what is not fetched from the hub."""
    if revision:
        raise UsageError(f"--revision {revision}: {name} is not on the hub and has no revisions; leave --revision out")


def _fetch_judged(name: str, judge: Judge, revision: str | None) -> Place:
    repository, at, named = name.partition("@")
    if at:
        raise ModelError(f"{name!r} is no hub id; give the revision apart: {repository} with --revision {named}")
    small = _fetch(name, SMALL_FILES, revision)
    judge(small)
    commit = small.name  # a snapshot's folder is called by it
    return Place(_fetch(name, ALL_FILES, commit), commit)


def _fetch(name: str, patterns: tuple[str, ...], revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = _remedy(error, name, revision) or first_line(error)
        raise ModelError(f"{name!r} is neither a folder here nor to be had from the hub: {why}") from error


def _remedy(error: Exception, name: str, revision: str | None) -> str | None:
    """What to do about what a hub says no to; None where its own words are best."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its terms at https://huggingface.co/{name}, then `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one; check the name, or `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; give a branch, a tag or a commit of it"
    if isinstance(error, LocalEntryNotFoundError):
        what = "unset HF_HUB_OFFLINE, which forbids asking it" if HF_HUB_OFFLINE else "check the network"
        why = first_line(error.__cause__ or error)
        return f"it was not fetched before, and the hub cannot be asked ({why}); {what}, or give a folder"
    return None
