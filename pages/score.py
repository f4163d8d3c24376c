"""Score pictures with a model: choose, see what it will cost, start, watch, cancel."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import job_list, resources, state, uploads
from app.estimate import Estimate, estimate
from mmn import jobs
from mmn.errors import MmnError
from mmn.images import Listing, list_source
from mmn.names import METHODS, RANDOM

MODELS = ["specimen", "specimen-frozen"]
SOURCES = ["Bundled gallery", "Folder or list", "Upload"]
TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]


def page() -> None:
    st.title("Score")
    st.markdown("Let a model caption pictures, and rank its neurons by how much each one writes each noun.")
    inputs, cost = st.columns([3, 2], gap="large")
    with inputs:
        options = choose()
    with cost, st.container(border=True):
        st.subheader("Before you start")
        confirm(options)
    st.subheader("Jobs")
    job_list.show_jobs()


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
        help="The bundled specimen, or type a folder in Hugging Face format or a hub id.",
    )
    images = choose_images()
    st.markdown("**Scores**")
    grid = st.columns(2)
    methods = [name for place, name in enumerate(METHODS) if choose_method(name, grid[place % 2])]
    top_k = st.number_input(
        "Units kept per noun (top k)", 1, 10_000_000, 1000, key="score-k", help="Cut to the model's number of units."
    )
    return {"model": model, "images": images, "methods": methods, "top_k": top_k, **choose_advanced()}


def choose_images() -> str | None:
    """The source as the command line takes it; None while there is none."""
    kind = st.segmented_control("Pictures", SOURCES, default=SOURCES[0], required=True, key="score-source")
    if kind == SOURCES[0]:
        return "gallery"
    if kind == SOURCES[1]:
        hint = "a folder · a .txt or .csv list · coco:ANNOTATIONS.json:FOLDER · sbu:JSON:FOLDER · hf:FOLDER"
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
    text = f"{method.equation}\n\nRead at: {method.position}. Source: {method.source}."
    return place.checkbox(name, value=name in (next(iter(METHODS)), RANDOM), key=f"score-method-{name}", help=text)


def choose_advanced() -> dict[str, Any]:
    with st.expander("Advanced"):
        prompt = st.text_input(
            "Prompt", placeholder="the model's own", help="Your words; the model's template goes around."
        )
        target = st.text_input("Target words", help="Score these words too, said or not; separated by commas.")
        left, right = st.columns(2)
        limit = left.number_input("Only the first N pictures", 1, None, None, placeholder="all")
        tokens = right.number_input("Caption length, tokens at most", 1, 4096, 50)
        bottom_k = left.number_input("Suppressors kept per noun (bottom k)", 0, 10_000_000, 0)
        batch = right.number_input("Batch size", 1, 4096, None, placeholder="auto")
        device = left.selectbox("Device", ["auto", "cpu", "cuda", "mps"])
        dtype = right.selectbox("Number format", ["auto", "float32", "float16", "bfloat16"])
        seed = left.number_input("Seed of the random scores", 0, 2**31 - 1, 0)
    targets = [word.strip() for word in target.split(",") if word.strip()]
    chosen = {"prompt": prompt, "target": targets, "limit": limit, "max_new_tokens": tokens, "bottom_k": bottom_k}
    return chosen | {"batch_size": batch, "device": device, "dtype": dtype, "seed": seed}


def confirm(options: dict[str, Any]) -> None:
    """What it will cost, what is missing, and the button."""
    if not (options["model"] and options["images"] and options["methods"]):
        missing = next(name for name in ("model", "images", "methods") if not options[name])
        st.caption(
            {"images": "Choose pictures first.", "methods": "Choose at least one score."}.get(
                missing, "Choose a model first."
            )
        )
        return
    try:
        listing = look_at(options["images"], options["limit"])
    except MmnError as error:
        st.error(str(error))
        return
    n, n_failed = len(listing.examples), len(listing.failures)
    ks = options["top_k"], options["bottom_k"]
    tell(
        estimate(resources.store().runs(), options["model"], n, n_failed, len(options["methods"]), *ks),
        len(options["methods"]),
    )
    if n_failed:
        with st.expander(f"{state.count(n_failed, 'file')} cannot be used"):
            st.dataframe([{"file": f.source, "why": f.message} for f in listing.failures], hide_index=True)
    if any(jobs.is_alive(job) for job in jobs.list_jobs(job_list.jobs_path())):
        st.caption(":orange[A job is running already; two at once slow each other down.]")
    if st.button("Start scoring", type="primary", icon=":material/play_arrow:", disabled=not n):
        start(options)


@st.cache_data(ttl=60, max_entries=4, show_spinner="Looking at the pictures")
def look_at(images: str, limit: int | None) -> Listing:
    return list_source(images, limit, work_path=resources.cache_path() / "images")


def tell(cost: Estimate, n_methods: int) -> None:
    broken = f", and {cost.n_failed:,} that cannot be used" if cost.n_failed else ""
    about, basis = ("About", "as in its last run") if cost.is_measured else ("At most about", "assumed")
    time = "not known yet, this model has no earlier run here"
    if cost.rate and cost.seconds:
        time = f"about {state.duration(cost.seconds)}, at {state.pace(cost.rate)} as in its last run"
    st.markdown(
        f"- **{state.count(cost.n_images, 'picture')}**{broken}\n"
        f"- {about} **{cost.n_rows:,} score rows**: {cost.concepts_per_image:.1f} nouns a picture ({basis}), "
        f"{state.count(n_methods, 'score')}\n"
        f"- {about} **{cost.n_bytes / 1e6:,.0f} MB** on disk\n"
        f"- Time: **{time}**"
    )


def start(options: dict[str, Any]) -> None:
    words = options | {"methods": ",".join(options["methods"]), "cache": str(resources.cache_path())}
    try:
        jobs.start(jobs.score_command(words), job_list.jobs_path(), options["model"], options["images"])
    except MmnError as error:
        st.warning(str(error), icon=":material/hourglass_top:")
        return
    st.toast("Started")


page()
