"""The bundled models and gallery, and the program that made them. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

MODEL_PATH = Path(__file__).parent / "model"
MODEL_PATHS = {"specimen": MODEL_PATH, "specimen-frozen": Path(__file__).parent / "model-frozen"}
GALLERY_PATH = Path(__file__).parent / "gallery"
MASKS_PATH = Path(__file__).parent / "masks"
RUN_PATH = Path(__file__).parent / "run"
DISPLAY_SIDE = 336  # pixels; the model sees 112, its processor does the resizing
