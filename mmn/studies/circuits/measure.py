"""Finds the circuits of a run's nouns, and measures what is left of a noun with its circuit alone.

    pictures of a noun ─► found | judged (`pictures`)
      ─► a few units of each layer, and what passes between them (`find`)     `circuit`, `circuit_unit`, `circuit_edge`,
                                                                              `circuit_layer`, and their words `neuron`
      ─► mean activations over pictures of the run, once
      ─► the noun in each judged picture with the circuit alone, and with all but it (`faithfulness`), beside random
         units of the same layers and the circuit of a noun that the found pictures do not say     `circuit_effect`

A circuit is one shard, named by all that can change a number in it, so that the same call again does only what is
missing; the rows of all its tables begin with that name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.core import Example, Failure, Neuron, unit_name
from mmn.errors import ImageError, UsageError
from mmn.models.float64 import wide
from mmn.models.image_tokens import require_image_tokens
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.statistics.intervals import ANYWHERE, mean_intervals
from mmn.studies.circuits.faithfulness import (
    MeanActivations,
    Means,
    experts_of,
    measure_rows,
    orders,
    rows_of,
    usual_sizes,
)
from mmn.studies.circuits.find import Circuit, Flows, find_circuit, most_kept, require_circuits
from mmn.studies.circuits.passes import Shown
from mmn.studies.circuits.pictures import Said, Saying, Split, read_said, split
from mmn.studies.circuits.rules import RULES
from mmn.studies.circuits.tables import IMAGE, NOUN, RAJARAM, TEXT, token_name
from mmn.studies.tables import TABLES, failure_table
from mmn.units.decoding import decode_units, token_text

STAGE: Final = "circuits"
N_NOUNS: Final = 3  # the nouns that most pictures say, where none is asked for
N_MEAN: Final = 64  # pictures that mean activations are of


@dataclass(frozen=True)
class CircuitPlan:
    """What to find and measure.

    Attributes:
        nouns: any form of them; () for those of the picture, or those that most pictures say.
        image: the one picture to find the circuit on, by its id or a beginning of it; "" for several.
        k: units kept in each layer.
        rule: of `rules.RULES`.
        n_found: pictures that a circuit is found on, at most half of the noun's.
        n_judged: pictures that it is judged by, at most.
        n_draws: of random units.
    """

    nouns: tuple[str, ...] = ()
    image: str = ""
    k: int = 5
    rule: str = RAJARAM
    n_found: int = 8
    n_judged: int = 16
    n_draws: int = 2


def measure_circuits(scored: ScoredRun, plan: CircuitPlan, progress: ProgressCallback) -> list[str]:
    """Measures the circuit of each noun, as a shard of the run.

    Returns:
        The names of the circuits, those of earlier calls included.

    Raises:
        UsageError: no such noun, picture, rule or number of units; a model without image tokens in its decoder, or
            whose image tokens go through experts of their own.
    """
    _check(scored, plan)
    said = read_said(scored)
    usual = said.nouns_of(plan.image) if plan.image else said.frequent()[:N_NOUNS]
    nouns = plan.nouns or tuple(usual)
    seed = scored.run.settings.seed
    splits = {
        sayings[0].lemma: split(sayings, plan.n_found, plan.n_judged, seed, plan.image)
        for sayings in map(said.of, nouns)
    }
    names = {noun: _name(scored, plan, noun, one, said) for noun, one in splits.items()}
    done = shards.finished_shards(scored.path)
    todo = {noun: one for noun, one in splits.items() if _shard(names[noun]) not in done}
    measuring = _Measuring(scored, plan, said, progress, sum(map(_n_pictures, todo.values())))
    for noun, one in todo.items():
        shards.write_shard(scored.path, _shard(names[noun]), measuring.measure(names[noun], noun, one))
    return list(names.values())


def _check(scored: ScoredRun, plan: CircuitPlan) -> None:
    require_image_tokens(scored.model, "a circuit from the picture")
    if plan.rule not in RULES:
        raise UsageError(f"there is no rule {plan.rule!r}; there are {', '.join(RULES)}")
    require_circuits(scored.model, RULES[plan.rule])
    if not 1 <= plan.k <= (most := most_kept(scored.model)):
        has = "lets a token go through" if scored.model.anatomy.d_expert else "has"
        raise UsageError(f"--units-per-layer {plan.k}: a layer of {scored.model.facts.name} {has} {most}")


def _n_pictures(one: Split) -> int:
    return len(one.found) + len(one.judged)


def _name(scored: ScoredRun, plan: CircuitPlan, noun: str, one: Split, said: Said) -> str:
    """Eight digits for all that can change a number of a circuit."""
    asked = asdict(plan) | {"nouns": [noun], "version": 1, "of_mean": len(said.drawn(N_MEAN, 0))}
    asked |= {role: [one.example.image_id for one in of] for role, of in (("found", one.found), ("judged", one.judged))}
    asked |= {"another": said.another([one.example.image_id for one in one.found]), "seed": scored.run.settings.seed}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _shard(name: str) -> str:
    return f"{STAGE}-{name}"


class _Measuring:
    """One call's passes; the means are made once, and so is each other noun's circuit."""

    def __init__(
        self, scored: ScoredRun, plan: CircuitPlan, said: Said, progress: ProgressCallback, n_pictures: int
    ) -> None:
        self._scored, self._plan, self._said, self._progress = scored, plan, said, progress
        self._done, self._total = 0, n_pictures
        self._means: Means | None = None
        self._circuits: dict[tuple[str, ...], Circuit] = {}
        self._failures: dict[str, Failure] = {}
        progress(Progress(STAGE, 0, n_pictures))

    def measure(self, name: str, noun: str, one: Split) -> Tables:
        """The tables of one circuit."""
        self._failures = {}
        circuit, found = self._find(one.found)
        self._tell(len(one.found))
        other = self._said.another([saying.example.image_id for saying in one.found])
        another = None if other is None else self._find(self._of_another(other))[0]
        effects = [row for saying in one.judged for row in self._judge(saying, one, circuit, another)]
        rows = circuit_rows(self._scored, circuit) | {"circuit_effect": effects}
        model = self._scored.model
        about: dict[str, Any] = {
            "noun": noun,
            "rule": self._plan.rule,
            "image_id": found[0].example.image_id if self._plan.image else None,
        }
        about |= {"k": circuit.k, "n_found": len(found), "n_judged": len({row["image_id"] for row in effects})}
        about |= {"n_mean": self._mean().n_images, "other_noun": other, "token_id": found[0].token_id}
        about |= {"token": token_text(model.tokenizer, found[0].token_id)}
        about |= {"logit": float(circuit.logit.mean()), "prob": min(1.0, float(circuit.prob.mean()))}
        about |= {"tokens": self._tokens_of(found[0]) if self._plan.image else [], "image_at": list(circuit.image_at)}
        rows["circuit"] = [about]
        tables = {table: _table(table, [row | {"circuit": name} for row in of]) for table, of in rows.items()}
        units = [Neuron(row["layer"], row["unit"]) for row in rows["circuit_unit"]]
        tables["neuron"] = decode_units(model, units)
        return tables | ({"failure": failure_table(list(self._failures.values()))} if self._failures else {})

    def _find(self, sayings: Sequence[Saying]) -> tuple[Circuit, list[Saying]]:
        """The circuit of those pictures that still open, and which these are."""
        opened = [(saying, image) for saying in sayings if (image := self._open(saying.example)) is not None]
        if not opened:
            raise UsageError(f"no picture of {sayings[0].lemma!r} opens any more; put them back where they were")
        found = [saying for saying, _ in opened]
        key = tuple(saying.example.image_id + saying.lemma for saying in found)
        if key not in self._circuits:
            inputs = self._scored.model.encode([image for _, image in opened], self._scored.run.prompt)
            shown = Shown(inputs, tuple(one.before for one in found), tuple(one.token_id for one in found))
            rule = RULES[self._plan.rule]
            self._circuits[key] = find_circuit(self._scored.model, shown, rule, self._plan.k)
        return self._circuits[key], found

    def _of_another(self, noun: str) -> tuple[Saying, ...]:
        """The pictures that another noun's circuit is found on."""
        plan, seed = self._plan, self._scored.run.settings.seed
        return split(self._said.of(noun), 1 if plan.image else plan.n_found, plan.n_judged, seed).found

    def _judge(self, saying: Saying, one: Split, circuit: Circuit, another: Circuit | None) -> Iterator[dict[str, Any]]:
        """Rows of `circuit_effect` of one picture; none of one that does not open any more."""
        image = self._open(saying.example)
        if image is not None:
            model, settings = self._scored.model, self._scored.run.settings
            inputs = model.encode([image], self._scored.run.prompt)
            drawn = orders(
                circuit.order,
                None if another is None else another.order,
                experts_of(model),
                settings.seed,
                saying.example.image_id,
                saying.lemma,
                self._plan.n_draws,
            )
            rows = rows_of(drawn, self._sizes())
            found = measure_rows(model, inputs, saying.before, saying.token_id, rows, self._mean(), settings.batch_size)
            key = {"image_id": saying.example.image_id, "is_held_out": one.is_held_out(saying)}
            yield from (key | row for row in found)
        self._tell(1)

    def _sizes(self) -> list[int]:
        return sorted({self._plan.k, *usual_sizes(self._scored.model.facts.d_mlp)})

    def _mean(self) -> Means:
        """The mean activations over pictures of the run."""
        if self._means is None:
            adding, settings = MeanActivations(self._scored.model), self._scored.run.settings
            drawn = self._said.drawn(N_MEAN, settings.seed)
            opened = [(image, tokens) for example, tokens in drawn if (image := self._open(example)) is not None]
            for start in range(0, len(opened), settings.batch_size):
                some = opened[start : start + settings.batch_size]
                inputs = self._scored.model.encode([image for image, _ in some], self._scored.run.prompt)
                adding.add(inputs, [tokens for _, tokens in some])
            self._means = adding.means()
        return self._means

    def _open(self, example: Example) -> Image.Image | None:
        try:
            return reopen.open_again(example)
        except ImageError as error:
            failure = Failure.of(example.source, STAGE, error)
            self._failures[example.source] = failure
            return None

    def _tokens_of(self, saying: Saying) -> list[str]:
        """The tokens of a picture's prompt and caption before the noun."""
        model = self._scored.model
        inputs = model.encode([reopen.open_again(saying.example)], self._scored.run.prompt)
        return [token_text(model.tokenizer, one) for one in [*inputs["input_ids"][0].tolist(), *saying.before]]

    def _tell(self, n: int) -> None:
        self._done += n
        self._progress(Progress(STAGE, self._done, self._total))


def _table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=TABLES[name])


def circuit_rows(scored: ScoredRun, circuit: Circuit) -> dict[str, list[dict[str, Any]]]:
    """The rows of `circuit_unit`, `circuit_edge` and `circuit_layer`, without the circuit's name."""
    return {
        "circuit_unit": list(_unit_rows(circuit)),
        "circuit_edge": list(_edge_rows(circuit, scored.model.anatomy.d_experts)),
        "circuit_layer": [
            {"layer": layer, "through_attention": _through(into), "carried": _share(carried)}
            for layer, into, carried in zip(circuit.layers, circuit.into, circuit.carried, strict=False)
        ],
    }


def _unit_rows(circuit: Circuit) -> Iterator[dict[str, Any]]:
    means = {name: getattr(circuit, name).mean(0) for name in ("at_image", "from_image")}
    is_one = len(circuit.logit) == 1
    for number, (layer, units) in enumerate(zip(circuit.layers, circuit.kept.tolist(), strict=True)):
        effect, low, high = _means(circuit.effect[:, number])
        for place, unit in enumerate(units):
            yield {
                "layer": layer,
                "unit": unit,
                "place": place + 1,
                "score": float(circuit.score[layer, unit]),
                "effect": effect[place],
                "effect_low": low[place],
                "effect_high": high[place],
                **{name: _share(values[number, place]) for name, values in means.items()},
                "position": int(circuit.position[0, number, place]) if is_one else None,
            }


def _edge_rows(circuit: Circuit, d_experts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What passes into the kept units of each layer, into the noun behind the last one, and from single tokens."""
    kept = [
        [unit_name(Neuron(layer, unit), d_experts) for unit in units]
        for layer, units in zip(circuit.layers, circuit.kept.tolist(), strict=True)
    ]
    for sources, targets, into in zip([[IMAGE, TEXT], *kept], [*kept, [NOUN]], circuit.into, strict=True):
        for target, flows in zip(targets, into, strict=True):
            yield from _rows_of(flows, sources, target)
    for target, flows in zip(kept[0], circuit.tokens, strict=False):  # of a circuit of one picture alone
        yield from _rows_of(flows, [token_name(position) for position in range(flows.weight.shape[1])], target)


def _rows_of(flows: Flows, sources: Sequence[str], target: str) -> Iterator[dict[str, Any]]:
    weight, low, high = _means(flows.weight)
    size, far, near = (wide(getattr(flows, name)).mean(0).tolist() for name in ("size", "far", "near"))
    for number, source in enumerate(sources):
        whole = far[number] + near[number]
        yield {
            "source": source,
            "target": target,
            "weight": weight[number],
            "weight_low": low[number],
            "weight_high": high[number],
            "size": size[number],
            "through_attention": min(1.0, far[number] / whole) if whole > 0 else 0.0,
        }


def _through(into: Sequence[Flows]) -> float:
    """How much of all that passes into a layer's kept units goes through an attention."""
    far, near = (sum(float(getattr(flows, name).sum()) for flows in into) for name in ("far", "near"))
    return min(1.0, far / (far + near)) if far + near > 0 else 0.0


def _share(value: Tensor) -> float:
    return min(1.0, max(0.0, float(value)))


def _means(values: Float[Tensor, "rows n"]) -> tuple[list[float], list[float | None], list[float | None]]:
    """Means over pictures and the ends of their intervals, None where there are none."""
    mean, low, high = mean_intervals(wide(values).cpu().numpy(), ANYWHERE)
    ends = [[None if np.isnan(one) else float(one) for one in of] for of in (low, high)]
    return mean.tolist(), ends[0], ends[1]
