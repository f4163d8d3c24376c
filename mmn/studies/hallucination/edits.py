"""ProjectAway: what does a model say of a picture when an object's direction is taken out of its image tokens?

    v = the residual stream after layer l_T at the object's last token, in a text of that object alone
    after layer l_I, at every image token of the prompt: h ← h − α · max(h·v, 0) / (v·v) · v
    ─► caption again: is the object gone, do the others stay, and is more or less of it hallucinated?

Jiang et al. 2025 (arXiv 2410.02762; the edit as in their code). Each noun of a caption alone; and where several are
hallucinated all of those together, and all of them that are of listed objects (`judging`), one direction after the
other. Controls: the direction of another object, one that the caption does not name and nothing says is there, and a
random direction of the same length.

Their demo edits a decoder of 32 layers (InstructBLIP on Vicuna 7B) with α 1.5, v after the first layer and the
picture's tokens after the third; the defaults are these places in proportion (`usual_layer`). A variant of theirs, the
mean of token embeddings for v and the projected image tokens for h, is not here. Captions are greedy, theirs of 5
beams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Example, Failure
from mmn.errors import ImageError, UsageError
from mmn.models.image_tokens import image_positions, require_image_tokens
from mmn.models.model import Model
from mmn.reading.captions import write_captions
from mmn.reading.hooks import projected_away, read_after
from mmn.reading.nouns import tag_nouns
from mmn.reading.plain_text import Text, run_alone
from mmn.reading.rows import repeated
from mmn.runs import reopen, shards
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_concepts, stored_texts
from mmn.scores.rows import Tables
from mmn.studies.hallucination.confidence import object_tokens
from mmn.studies.hallucination.judging import ABSENT, UNKNOWN, WAYS, Judge
from mmn.studies.hallucination.tables import DIRECTIONS
from mmn.studies.hallucination.truth import Truth, read_truth
from mmn.studies.hallucination.usual import ALPHA, DEMO_IMAGE, DEMO_LAYERS, DEMO_TEXT, N_OBJECTS
from mmn.studies.tables import TABLES, failure_table

PREFIX: Final = "project-away"
STAGE: Final = "project-away"
OBJECT, OTHER, RANDOM = DIRECTIONS
TOGETHER: Final = " + "
PICTURES_OF_A_SHARD: Final = 16


@dataclass(frozen=True)
class Edit:
    """The edit's settings: `text_layer` and `image_layer` (from 0) after which v is read and h is edited."""

    alpha: float
    text_layer: int
    image_layer: int

    @classmethod
    def of(
        cls, model: Model, alpha: float = ALPHA, text_layer: int | None = None, image_layer: int | None = None
    ) -> Edit:
        """The settings for a model, the demo's in proportion where none are given.

        Raises:
            UsageError: α of no more than 0, or a layer that the model does not have.
        """
        n_layers = model.anatomy.n_layers
        if not 0 < alpha < float("inf"):
            raise UsageError(f"--alpha {alpha:g}: give a number above 0; 1 takes the whole projection away")
        text = usual_layer(DEMO_TEXT, n_layers) if text_layer is None else text_layer
        image = usual_layer(DEMO_IMAGE, n_layers) if image_layer is None else image_layer
        for flag, layer in (("--text-layer", text), ("--image-layer", image)):
            if not 0 <= layer < n_layers:
                raise UsageError(f"{flag} {layer}: the layers of {model.facts.name} are 0–{n_layers - 1}")
        return cls(alpha, text, image)


def usual_layer(n_behind: int, n_layers: int) -> int:
    """The layer (from 0) with as large a share of all layers behind it as `n_behind` of the demo's 32."""
    return max(1, round(n_behind * n_layers / DEMO_LAYERS)) - 1


@dataclass(frozen=True)
class _Removal:
    """What is projected out in one row of a batch: objects, by whose directions."""

    removed: tuple[str, ...]
    direction: str
    vectors: Float[Tensor, "n d"]


@dataclass
class _Asked:
    """What was asked of which run, and the directions that were read so far."""

    scored: ScoredRun
    edit: Edit
    truth: Truth
    judge: Judge
    revision: int
    version: str
    directions: dict[str, Float[Tensor, " d"]] = field(default_factory=dict)

    def direction(self, name: str) -> Float[Tensor, " d"] | None:
        """V of an object; None for one without a token of its own."""
        if name not in self.directions:
            tokens = object_tokens(self.scored.model, [name])
            if name not in tokens:
                return None
            self.directions[name] = text_direction(self.scored.model, tokens[name], self.edit.text_layer)
        return self.directions[name]


def project_objects_away(
    model: Model,
    run_path: Path,
    edit: Edit,
    limit: int | None = None,
    n_objects: int = N_OBJECTS,
    progress: ProgressCallback = lambda _progress: None,
) -> None:
    """Adds table `projected_away` as shards of the run, one for each 16 pictures; resumes.

    Which objects are taken out together, and which other one is the control, depends on what is known to be there and
    on the vocabulary: where one of these has changed, everything is measured again, as another revision.

    Args:
        model: the one that the run was scored with.
        run_path: folder of the run; what was scored is only read.
        edit: α and layers.
        limit: pictures; None for all.
        n_objects: the vocabulary, of which the other object of the control is one.
        progress: told after each picture.

    Raises:
        UsageError: another model, or one without image tokens in its prompt.
        SourceError: masks that were added cannot be read any more.
    """
    scored = reopen.open_run(model, run_path)
    require_image_tokens(model)
    truth = read_truth(scored, n_objects)
    version = hashlib.sha256(repr([truth.digest(), sorted(truth.objects)]).encode()).hexdigest()[:16]
    revision = _revision(scored, edit, version)
    asked = _Asked(scored, edit, truth, Judge.of(truth.known), revision, version)
    settings = asdict(edit) | {"known": truth.digest(), "objects": sorted(truth.objects), "revision": revision}

    def answer(tables: Tables, tell: Callable[[], None]) -> Tables:
        return _answer(asked, tables, tell)

    reopen.for_each_part(scored, PREFIX, settings, answer, progress, STAGE, limit, PICTURES_OF_A_SHARD)


def _revision(scored: ScoredRun, edit: Edit, version: str) -> int:
    """The number of what is known now, by which objects are chosen: one more than the latest where that is another."""
    found: dict[int, str | None] = {}
    for name in sorted(shards.finished_shards(scored.path)):
        if name.startswith(f"{PREFIX}-"):
            for row in shards.read_shard(scored.path / name, ("projected_away",))["projected_away"].to_pylist():
                if {key: row[key] for key in asdict(edit)} == asdict(edit):
                    found[row["revision"]] = row["version"]
    latest = max(found, default=1)
    return latest + (found.get(latest, version) != version)


@torch.inference_mode()
def text_direction(model: Model, tokens: Sequence[int], layer: int) -> Float[Tensor, " d"]:
    """v: the residual stream after `layer` at the last of an object's tokens, which are all that the decoder reads.

    Behind the token that begins a text, where the tokenizer has one.
    """
    start = model.tokenizer.bos_token_id
    text = Text(() if start is None else (start,), tuple(tokens))
    with read_after(model, layer) as seen:
        run_alone(model, [text])
    return seen[0][0, len(text.prefix) + len(text.token_ids) - 1].float()


def _answer(asked: _Asked, tables: Tables, tell: Callable[[], None]) -> Tables:
    """The shard of some pictures; `failure` where one could not be opened again."""
    examples = tuple(reopen.examples(tables))
    said, texts = stored_concepts(tables, examples), stored_texts(tables)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for number, example in enumerate(examples):
        concepts = [one.concept for one in said if one.row == number]
        nouns = list(dict.fromkeys(one.lemma for one in concepts))
        compounds = {one.lemma for one in concepts if one.is_compound}
        rows += _of_picture(asked, example, _Said(nouns, compounds, texts[example.image_id]), failures)
        tell()
    written = {"projected_away": pa.Table.from_pylist(rows, schema=TABLES["projected_away"])}
    return written | ({"failure": failure_table(failures)} if failures else {})


@dataclass(frozen=True)
class _Said:
    """What a caption says: its nouns' lemmas, which of them are parts of compounds, and its text."""

    nouns: Sequence[str]
    compounds: set[str]
    text: str


def _of_picture(asked: _Asked, example: Example, said: _Said, failures: list[Failure]) -> list[dict[str, Any]]:
    """The rows of one picture: a caption for each removal, several in a batch."""
    removals = list(_removals(asked, example.image_id, said))
    if not removals:
        return []
    try:
        image = reopen.open_again(example)
    except ImageError as error:
        failures.append(Failure.of(example.source, STAGE, error))
        return []
    model, settings = asked.scored.model, asked.scored.run.settings
    inputs = model.encode([image], asked.scored.run.prompt)
    is_image = image_positions(model, inputs)[0]
    rows = []
    for start in range(0, len(removals), settings.batch_size):
        some = removals[start : start + settings.batch_size]
        with projected_away(model, asked.edit.image_layer, _stacked(some), is_image, asked.edit.alpha):
            written, _ = write_captions(model, repeated(inputs, len(some)), settings.max_new_tokens)
        rows += [_row(asked, example, one, caption.text) for one, caption in zip(some, written, strict=True)]
    return rows


def _removals(asked: _Asked, image_id: str, said: _Said) -> list[_Removal]:
    """Each noun alone, all hallucinated ones together, and those of listed objects, in every direction."""
    together = (asked.judge.hallucinated(image_id, said.nouns, said.compounds, said.text, way) for way in WAYS)
    sets = [(name,) for name in said.nouns] + [some for some in together if len(some) > 1]
    found = []
    for removed in dict.fromkeys(sets):
        own = [asked.direction(name) for name in removed]
        vectors = [one for one in own if one is not None]
        if len(vectors) < len(removed):
            continue
        stacked = torch.stack(vectors)
        found.append(_Removal(removed, OBJECT, stacked))
        found += _of_others(asked, image_id, removed, said)
        found.append(_Removal(removed, RANDOM, _random_like(asked, image_id, removed, stacked)))
    return found


def _of_others(asked: _Asked, image_id: str, removed: tuple[str, ...], said: _Said) -> list[_Removal]:
    """As many other objects, which nobody says are there; none where the vocabulary has too few."""
    judge = asked.judge
    states = {name: judge.state(image_id, name, is_said=False) for name in asked.truth.objects}
    named = {judge.meaning(image_id, name) for name in said.nouns}
    others = [name for name, state in states.items() if state in (ABSENT, UNKNOWN)]
    there = [name for name in others if name not in said.nouns and judge.meaning(image_id, name) not in named]
    order = np.random.default_rng(_seed(asked, image_id, removed, OTHER)).permutation(len(there))
    vectors = [asked.direction(there[place]) for place in order[: len(removed)]]
    known = [one for one in vectors if one is not None]
    return [_Removal(removed, OTHER, torch.stack(known))] if len(known) == len(removed) else []


def _random_like(
    asked: _Asked, image_id: str, removed: tuple[str, ...], vectors: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Random directions, each as long as one of `vectors`; they depend on no batch."""
    generator = np.random.default_rng(_seed(asked, image_id, removed, RANDOM))
    drawn = torch.from_numpy(generator.standard_normal(tuple(vectors.shape), dtype=np.float32)).to(vectors.device)
    return drawn / drawn.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)


def _seed(asked: _Asked, image_id: str, removed: tuple[str, ...], direction: str) -> int:
    key = "\0".join([str(asked.scored.run.settings.seed), image_id, direction, *removed])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _stacked(removals: Sequence[_Removal]) -> Float[Tensor, "rows n d"]:
    """The directions of each row, filled up with zeros, which take nothing away."""
    most = max(len(one.vectors) for one in removals)
    return torch.stack([torch.nn.functional.pad(one.vectors, (0, 0, 0, most - len(one.vectors))) for one in removals])


def _row(asked: _Asked, example: Example, removal: _Removal, caption: str) -> dict[str, Any]:
    spans = tag_nouns(caption)
    return {
        "image_id": example.image_id,
        "removed": TOGETHER.join(removal.removed),
        "direction": removal.direction,
        **asdict(asked.edit),
        "caption": caption,
        "nouns": list(dict.fromkeys(one.lemma for one in spans)),
        "compounds": sorted({one.lemma for one in spans if one.is_compound}),
        "revision": asked.revision,
        "version": asked.version,
    }
