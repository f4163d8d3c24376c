"""Makes a torchvision that was built for another torch importable: the names of its compiled operators, no operators.

Many processors need torchvision's transforms, which are Python. The wheels of PyPI are built for torch with CUDA;
beside a torch for CPUs their compiled operators (`nms`, `roi_align`, ...) cannot be loaded, and importing torchvision,
and with it transformers' processors, fails where it describes them. No processor uses them: their names suffice.

An environment in which other programs run too is better left without such a torchvision: install it in a folder of its
own (`pip install --no-deps --target FOLDER torchvision==0.28.0`) and name the folder in `MMN_TEST_PACKAGES`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path

import torch

_DESCRIBED = re.compile(r'(?:torchvision::|register_meta\(")(\w+)"')
_libraries: list[torch.library.Library] = []  # operators vanish with the library that declared them


def has_torchvision() -> bool:
    """Whether torchvision can be imported; declares its operators' names where that is what it takes."""
    folder = os.environ.get("MMN_TEST_PACKAGES")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare(Path(spec.origin).parent / "_meta_registrations.py")
    return True


def _declare(descriptions: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(_DESCRIBED.findall(descriptions.read_text(encoding="utf-8")))):
        library.define(f"{name}(Tensor x) -> Tensor")
    _libraries.append(library)
    importlib.import_module("torchvision")
