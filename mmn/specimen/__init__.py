"""The bundled model and gallery, and the program that made them. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

MODEL_PATH = Path(__file__).parent / "model"
GALLERY_PATH = Path(__file__).parent / "gallery"
RUN_PATH = Path(__file__).parent / "run"
