"""The bundled models and gallery, and the program that made them. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

MODEL_PATH = Path(__file__).parent / "model"
MODEL_PATHS = {"specimen": MODEL_PATH, "specimen-frozen": Path(__file__).parent / "model-frozen"}
# One linear map between two models that come in pip packages (`mmn.models.packaged`).
MAP_PATHS = {
    "specimen-smollm": Path(__file__).parent / "model-smollm" / "limber.json",
    "specimen-smollm-finer": Path(__file__).parent / "model-smollm-finer" / "limber.json",
}
MODELS = (*MODEL_PATHS, *MAP_PATHS)
IN_WORDS = {
    "specimen": "Small model, trained whole on drawn scenes",
    "specimen-frozen": "Small model; its text part was frozen while it learned to see, as P1's is",
    "specimen-smollm": "SmolLM2-135M, a language model that never saw a picture, behind one trained linear map",
    "specimen-smollm-finer": "SmolLM2-135M behind a map that also reads a finer stage of the image encoder",
}
GALLERY_PATH = Path(__file__).parent / "gallery"
MASKS_PATH = Path(__file__).parent / "masks"
RUN_PATH = Path(__file__).parent / "run"  # the specimen's
RUN_PATHS = (RUN_PATH, Path(__file__).parent / "run-smollm")
DISPLAY_SIDE = 336  # pixels; the model sees 112, its processor does the resizing
