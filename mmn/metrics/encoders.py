"""What metrics with a model of their own share: the checkpoint, and each text encoded only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import torch

from mmn.models.checkpoints import fingerprint
from mmn.models.hub import find_checkpoint
from mmn.models.loading import resolve_device
from mmn.models.weights import load_weights
from mmn.safety.boundary import Translated

TEXTS_AT_ONCE: Final = 64
KEPT_TEXTS: Final = 8192  # of BERT's size 30 kB each
_UNUSED: Final = ("pooler.", "embeddings.position_ids")  # not read by any metric, and not in every file

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A model of a metric: its folder, and its name with the first 12 digits of its fingerprint."""

    path: Path
    label: str

    @classmethod
    def find(cls, name: str) -> Self:
        """The checkpoint of a folder or hub id; a hub id is fetched first.

        Raises:
            ModelError: nothing there.
        """
        path = find_checkpoint(name).path
        shown = path.resolve().name if Path(name).expanduser().is_dir() else name
        return cls(path, f"{shown}@{fingerprint(path)[:12]}")

    def load(self, device: str) -> Any:
        """The weights, in float32 on every device, so that a metric of one name gives one number.

        Raises:
            ModelError: as `weights.load_weights`.
            UsageError: no such device.
        """
        from transformers import AutoModel

        module = load_weights(AutoModel, self.path, torch.float32, _UNUSED)
        return module.eval().to(resolve_device(device)).requires_grad_(False)

    def open(self, auto_class: Any) -> Any:
        """The tokenizer or processor, by transformers' `auto_class`.

        Raises:
            ModelError: none there.
        """
        with Translated(f"{self.path}: {auto_class.__name__} cannot be loaded"):
            return auto_class.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)


class Encoded(Generic[T]):
    """What `encode` made of texts, the last `most` of them kept."""

    def __init__(self, encode: Callable[[list[str]], list[T]], most: int = KEPT_TEXTS) -> None:
        self._encode, self._most = encode, most
        self._kept: OrderedDict[str, T] = OrderedDict()

    def of(self, texts: Sequence[str]) -> dict[str, T]:
        """The distinct texts, encoded."""
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._kept]
        self._kept.update(zip(new, self._encode(new), strict=True))
        found = {text: self._kept[text] for text in distinct}
        for text in distinct:
            self._kept.move_to_end(text)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found


def equally_long(rows: Sequence[Sequence[int]], at_once: int = TEXTS_AT_ONCE) -> Iterator[list[int]]:
    """The indices of `rows` in groups of one length: nothing is padded, so that no text depends on its neighbours."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]
