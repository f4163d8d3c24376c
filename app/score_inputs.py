"""The inputs of the Score page: model, pictures, scores and the rest of what the command line takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import access, resources, uploads
from app.text import plain
from mmn.names import EFFECTS, METHODS, RANDOM
from mmn.safety import roots
from mmn.specimen import IN_WORDS, MODELS

N_LOOKED_AT = 10  # units of each ranking whose heat maps the Image page shows
SOURCES = ["Bundled gallery", "Folder or list", "Upload"]
TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]


def choose() -> dict[str, Any]:
    """The options of the command line that the user chose; None where the command's own default holds."""
    runs = resources.store().runs()
    known = list(dict.fromkeys([*MODELS, *(runs["model"] if len(runs) else [])]))
    model = st.selectbox(
        "Model",
        known,
        accept_new_options=True,
        key="score-model",
        persist_state="session",
        help="".join(f"**{plain(name)}**: {plain(words)}.\n\n" for name, words in IN_WORDS.items())
        + "specimen-smollm needs two pip commands (README). Or type a folder in Hugging Face format or a hub id.",
    )
    images = choose_images()
    st.markdown("**Scores**")
    grid = st.columns(2)
    methods = [name for place, name in enumerate(METHODS) if choose_method(name, grid[place % 2])]
    effect_layers = choose_effect_layers(methods)
    top_k = st.number_input(
        "Units kept per noun (top k)", 1, 10_000_000, 1000, key="score-k", help="Cut to the model's number of units."
    )
    chosen = {"model": model, "images": images, "methods": methods, "top_k": top_k}
    chosen["effect_layers"] = effect_layers
    return chosen | choose_extras() | choose_advanced()


def choose_extras() -> dict[str, Any]:
    """What else is worth its time: heat maps and decoded tokens, and the grey picture."""
    is_looked_at = st.checkbox(
        f"Decode units, and store the activations of the top {N_LOOKED_AT}",
        value=True,
        key="score-annotate",
        help=(
            "For the Image and Neuron pages: the tokens that units promote, and their activation maps on each picture."
        ),
    )
    is_blank = st.checkbox(
        "Score the same captions over a grey picture, too",
        key="score-blank",
        help="What a score loses there is due to the picture; the rest would have been said without it.",
    )
    return {"annotate": N_LOOKED_AT if is_looked_at else 0, "blank": is_blank}


def choose_images() -> str | None:
    """The source as the command line takes it; None while there is none."""
    kind = st.segmented_control("Pictures", SOURCES, default=SOURCES[0], required=True, key="score-source")
    if kind == SOURCES[0]:
        return "gallery"
    if kind == SOURCES[1]:
        hint = "a folder · a .txt or .csv list · coco:ANNOTATIONS.json:FOLDER · sbu:JSON:FOLDER · hf:FOLDER"
        if roots.is_confined():
            where = ", ".join(map(str, access.allowed_folders())) or "no folder but its own"
            st.caption(f"This server reads pictures and models from {plain(where)}.")
        return (
            st.text_input("Folder or list", placeholder=hint, key="score-folder", persist_state="session").strip()
            or None
        )
    files = st.file_uploader("Pictures", TYPES, accept_multiple_files=True, key="score-files")
    if not files:
        return None
    named = {f"{number:05d}-{file.name}": file.getvalue() for number, file in enumerate(files)}
    return str(uploads.save_uploads(named, resources.cache_path() / "uploads"))


def choose_method(name: str, place: Any) -> bool:
    method = METHODS[name]
    told = f"{plain(method.equation)}\n\nRead at: {plain(method.position)}. Source: {plain(method.source)}."
    told += f"\n\nTakes long: {plain(method.cost)}." if method.cost else ""
    is_usual = name in (next(iter(METHODS)), RANDOM)
    return place.checkbox(plain(name), value=is_usual, key=f"score-method-{name}", help=told)


def choose_effect_layers(methods: Sequence[str]) -> str:
    """As the command line takes them; empty for all, and where no effect is measured."""
    if not set(methods) & set(EFFECTS):
        return ""
    return st.text_input(
        f"Layers of {' and '.join(EFFECTS)}",
        placeholder="all, or first and last, as 24-29",
        key="score-effect-layers",
        persist_state="session",
        help="Every unit of these layers is zeroed alone; the last layers cost least. Other units are not ranked, "
        "and charts leave their layers out.",
    ).strip()


def choose_advanced() -> dict[str, Any]:
    with st.expander("Advanced"):
        prompt = st.text_input(
            "Prompt", placeholder="the model's own", help="Your words; the model's chat template is added."
        )
        target = st.text_input("Target words", help="Also score these words, said or not; separated by commas.")
        left, right = st.columns(2)
        limit = left.number_input("Only the first N pictures", 1, None, None, placeholder="all")
        tokens = right.number_input("Caption length, tokens at most", 1, 4096, 50)
        bottom_k = left.number_input("Suppressors kept (bottom k)", 0, 10_000_000, 0)
        batch = right.number_input("Batch size", 1, 4096, None, placeholder="auto")
        device = left.selectbox("Device", ["auto", "cpu", "cuda", "mps"])
        dtype = right.selectbox("Number format", ["auto", "float32", "float16", "bfloat16"])
        seed = left.number_input("Seed of the random scores", 0, 2**31 - 1, 0)
    targets = [word.strip() for word in target.split(",") if word.strip()]
    chosen = {"prompt": prompt, "target": targets, "limit": limit, "max_new_tokens": tokens, "bottom_k": bottom_k}
    return chosen | {"batch_size": batch, "device": device, "dtype": dtype, "seed": seed}
