"""Circuits: edges against finite differences and planted ones, what is kept against plain transformers, the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.cli import BAD_INPUT, DONE, main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import capture_paths
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress
from mmn.scores.gradients import Question
from mmn.scores.relevance import relevance
from mmn.store import Store
from mmn.studies.circuits import measure
from mmn.studies.circuits.curves import curves, half_at
from mmn.studies.circuits.faithfulness import MeanActivations, Row, groups_of, measure_rows, usual_sizes
from mmn.studies.circuits.find import Circuit, find_circuit
from mmn.studies.circuits.measure import CircuitPlan, measure_circuits
from mmn.studies.circuits.passes import Shown
from mmn.studies.circuits.queries import CircuitQueries
from mmn.studies.circuits.rules import RULES
from mmn.studies.circuits.tables import ABLATED, KEPT
from mmn.studies.circuits.tracer import LISTING, write_graph
from mmn.studies.degradation.interventions import logits_at
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.test_gradients import InFloat64, in_float64  # noqa: F401 - a fixture

BEFORE, NOUN_ID = (11, 12), 30
STEP = 1e-5


def shown(inputs: dict[str, Tensor]) -> Shown:
    return Shown(inputs, (BEFORE,), (NOUN_ID,))


def logit(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    return model.module(**with_captions(model, inputs, [BEFORE]), use_cache=False).logits[0, -1, NOUN_ID]


def kept_by(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """A change that changes nothing, and keeps what it saw."""

    def keep(a: Tensor) -> Tensor:
        seen.append(a.clone())
        return a

    return keep


def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Any:
    return module.register_forward_pre_hook(lambda _module, args: (change(args[0]), *args[1:]))


def as_noun_sees_it(
    model: Model, inputs: dict[str, Tensor], layer: int, unit: int
) -> tuple[Tensor, Callable[[], float]]:
    """What the noun takes of a unit (w, by autograd at a leaf), and a function that gives Σ w · a under any hooks."""
    leaf: list[Tensor] = []

    def keep(a: Tensor) -> Tensor:
        leaf.append(a.detach().clone().requires_grad_(True))
        return leaf[0]

    handle = changed(model.anatomy.ffn_outs[layer], keep)
    with torch.enable_grad():
        (w,) = torch.autograd.grad(logit(model, inputs), leaf)
    handle.remove()
    w_unit = w[0, :, unit]

    def value() -> float:
        seen: list[Tensor] = []
        watching = changed(model.anatomy.ffn_outs[layer], kept_by(seen))
        with torch.no_grad():
            logit(model, inputs)
        watching.remove()
        return float((w_unit * seen[0][0, :, unit]).sum())

    return w_unit, value


def by_finite_difference(model: Model, value: Callable[[], float], source: Neuron) -> float:
    """Of Σ over positions a · ∂value/∂a: all of a unit's activations grow and shrink by a small share."""

    def times(factor: float) -> float:
        scale = torch.ones(model.facts.d_mlp, dtype=torch.float64)
        scale[source.unit] = factor
        handle = changed(model.anatomy.ffn_outs[source.layer], lambda a: a * scale)
        try:
            return value()
        finally:
            handle.remove()

    return (times(1 + STEP) - times(1 - STEP)) / (2 * STEP)


def test_edges_and_effects_equal_finite_differences(in_float64: InFloat64) -> None:  # noqa: F811
    model, inputs = in_float64("llava")
    circuit = find_circuit(model, shown(inputs), RULES["rajaram"], 2)
    for layer in (1, 2):
        for number, target in enumerate(circuit.kept[layer].tolist()):
            _, value = as_noun_sees_it(model, inputs, layer, target)
            for place, source in enumerate(circuit.kept[layer - 1].tolist()):
                expected = by_finite_difference(model, value, Neuron(layer - 1, source))
                weight = circuit.into[layer][number].weight[0, place].item()
                assert weight == pytest.approx(expected, rel=1e-4, abs=1e-9), (layer, target, source)
    for layer in range(3):
        for place, unit in enumerate(circuit.kept[layer].tolist()):
            with torch.no_grad():
                expected = by_finite_difference(model, lambda: float(logit(model, inputs)), Neuron(layer, unit))
            assert circuit.effect[0, layer, place].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert circuit.into[3][0].weight[0].tolist() == pytest.approx(circuit.effect[0, 2].tolist(), rel=1e-5)
    assert circuit.logit.item() == pytest.approx(float(logit(model, inputs)), rel=1e-6)


def test_what_goes_around_attention_is_the_derivative_with_attention_held(in_float64: InFloat64) -> None:  # noqa: F811
    """Held at what it added: then the next layer's units see the source at their own position alone."""
    model, inputs = in_float64("llava")
    circuit = find_circuit(model, shown(inputs), RULES["rajaram"], 2)
    source, target = int(circuit.kept[0, 0]), int(circuit.kept[1, 0])
    w, value = as_noun_sees_it(model, inputs, 1, target)
    flows = circuit.into[1][0]
    attention = model.anatomy.attentions[1]
    assert attention is not None
    added: list[Tensor] = []
    handle = attention.register_forward_hook(lambda _module, _args, output: added.append(output[0].detach()))
    value()
    handle.remove()

    def times(factor: float, at: int) -> float:
        scale = torch.ones(len(w), model.facts.d_mlp, dtype=torch.float64)
        scale[at, source] = factor
        handle = changed(model.anatomy.ffn_outs[0], lambda a: a * scale)
        try:
            return value()
        finally:
            handle.remove()

    handle = attention.register_forward_hook(lambda _module, _args, output: (added[0], *output[1:]))
    positions = w.nonzero()[:, 0].tolist()
    near = [(times(1 + STEP, at) - times(1 - STEP, at)) / (2 * STEP) for at in positions]
    handle.remove()
    assert flows.near[0, 0].item() == pytest.approx(sum(map(abs, near)), rel=1e-4)
    assert flows.far[0, 0].item() > 0
    assert flows.size[0, 0] <= flows.near[0, 0] + flows.far[0, 0] + 1e-6
    assert float(circuit.into[3][0].far.sum()) == 0, "nothing follows the last layer but the noun"


def test_by_relp_nothing_is_lost_on_the_way_and_effects_are_its_scores(in_float64: InFloat64) -> None:  # noqa: F811
    """No bias in this decoder: what enters the first layer adds up to each of its units, as by no plain gradient."""
    model, inputs = in_float64("llava")
    circuit, plain = (find_circuit(model, shown(inputs), RULES[rule], 3) for rule in ("relp", "rajaram"))
    scores = relevance(model, inputs, [BEFORE], [Question(0, len(BEFORE), NOUN_ID)]).score[0]
    for layer, units in enumerate(circuit.kept.tolist()):
        assert circuit.effect[0, layer].tolist() == pytest.approx(scores[layer, units].tolist(), rel=1e-4)
    found, lost = ([flows.weight[0].sum().item() for flows in one.into[0]] for one in (circuit, plain))
    assert found == pytest.approx(circuit.effect[0, 0].tolist(), rel=1e-4)
    assert lost != pytest.approx(plain.effect[0, 0].tolist(), rel=1e-2)
    assert circuit.logit.item() == pytest.approx(float(logit(model, inputs)), rel=1e-5)
    assert circuit.prob.item() == pytest.approx(plain.prob.item(), rel=1e-5)


def test_a_planted_circuit_is_found(in_float64: InFloat64) -> None:  # noqa: F811
    """Two layers that write nothing but by one unit each, of which the second reads the first: nothing else counts."""
    model, inputs = in_float64("llava")
    first, second, free = Neuron(1, 17), Neuron(2, 5), Neuron(2, 40)
    for one in (Neuron(0, 0), first, second):
        kept = model.anatomy.w_out(one.layer)[:, one.unit].clone()
        model.anatomy.w_out(one.layer).data.zero_()
        model.anatomy.w_out(one.layer).data[:, one.unit] = kept
    with torch.no_grad():
        gate = model.module.get_parameter("model.language_model.layers.2.mlp.gate_proj.weight")
        gate[free.unit] = 0.0  # a decoy: it is never active
        model.anatomy.w_out(free.layer).data[:, free.unit] = 50.0
    circuit = find_circuit(model, shown(inputs), RULES["rajaram"], 1)
    assert [int(circuit.kept[layer, 0]) for layer in range(3)] == [0, first.unit, second.unit]
    assert circuit.carried.tolist() == pytest.approx([1.0, 1.0, 1.0])
    scores = circuit.score[2].clone()
    scores[second.unit] = 0
    assert float(scores.abs().max()) == 0
    assert circuit.into[2][0].weight.abs().item() > 0


def test_pictures_of_a_batch_do_not_disturb_each_other_nor_does_padding(tiny: Model, pictures: Path) -> None:
    from PIL import Image

    prompt = tiny.exact_prompt("A picture of")
    images: list[Image.Image] = [Image.open(path) for path in sorted(pictures.iterdir())[:2]]
    both = Shown(tiny.encode(images, prompt), (BEFORE, (11,)), (NOUN_ID, 31))
    alone = Shown(tiny.encode(images[1:], prompt), ((11,),), (31,))
    rule = RULES["rajaram"]
    together, one = find_circuit(tiny, both, rule, 8), find_circuit(tiny, alone, rule, 8)
    places = {unit: place for place, unit in enumerate(one.kept[1].tolist())}
    common = [(place, places[unit]) for place, unit in enumerate(together.kept[1].tolist()) if unit in places]
    assert common
    for name in ("effect", "from_image", "at_image", "position"):
        for place, own in common:
            found, expected = getattr(together, name)[1, 1, place].item(), getattr(one, name)[0, 1, own].item()
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), name
    assert one.image_at[0] == int(alone.inputs["input_ids"][0].eq(tiny.image_token_id or -1).int().argmax())
    assert together.tokens == ()
    assert len(one.tokens[0].weight[0]) == alone.inputs["input_ids"].shape[1] + 1
    is_image = torch.zeros(len(one.tokens[0].weight[0]), dtype=torch.bool)
    is_image[list(one.image_at)] = True
    for flows, of_tokens in zip(one.into[0], one.tokens, strict=True):
        expected = [of_tokens.weight[0][is_image].sum(), of_tokens.weight[0][~is_image].sum()]
        assert flows.weight[0].tolist() == pytest.approx(torch.stack(expected).tolist(), rel=1e-3, abs=1e-5)


def test_with_too_little_memory_for_all_pictures_the_circuit_is_the_same(
    tiny: Model, pictures: Path, monkeypatch
) -> None:
    from PIL import Image

    from mmn.studies.circuits import passes

    images: list[Image.Image] = [Image.open(path) for path in sorted(pictures.iterdir())[:2]]
    inputs = tiny.encode(images, tiny.exact_prompt("A picture of"))
    of = Shown(inputs, (BEFORE, (11,)), (NOUN_ID, 31))
    whole = find_circuit(tiny, of, RULES["rajaram"], 3)
    monkeypatch.setattr(passes, "GRAPH_BYTES", 1.0)
    parts = find_circuit(tiny, of, RULES["rajaram"], 3)
    assert torch.equal(whole.kept, parts.kept)
    assert torch.allclose(whole.effect, parts.effect, rtol=1e-3, atol=1e-5)


@pytest.fixture
def bare(in_float64: InFloat64) -> tuple[Model, dict[str, Tensor], Circuit]:  # noqa: F811
    model, inputs = in_float64("llava")
    return model, inputs, find_circuit(model, shown(inputs), RULES["rajaram"], 2)


def test_with_every_unit_kept_the_noun_is_the_plain_model_s_bit_for_bit(bare) -> None:
    model, inputs, circuit = bare
    adding = MeanActivations(model)
    adding.add(inputs, [(11, 12, 13)])
    sizes = usual_sizes(model.facts.d_mlp)
    assert sizes == [0, 1, 2, 4, 8, 16, 32, 48]
    rows = [Row(direction, "circuit", 0, size, circuit.order) for direction in (KEPT, ABLATED) for size in sizes]
    found = measure_rows(model, inputs, BEFORE, NOUN_ID, rows, adding.means(), 64)
    by = {(row["direction"], row["size"]): row for row in found}
    plain = float(logits_at(model, inputs, BEFORE, [len(BEFORE)] * 14)[0, NOUN_ID])
    assert by[KEPT, 48]["logit"] == by[ABLATED, 0]["logit"] == plain
    assert by[KEPT, 0]["logit"] == by[ABLATED, 48]["logit"] != plain
    assert len({row["logit"] for row in found}) == 14


def test_units_that_are_left_out_are_at_their_mean_in_their_group(bare) -> None:
    """Against hooks written out: the mean over this very picture's positions, image tokens and caption each."""
    model, inputs, circuit = bare
    adding = MeanActivations(model)
    adding.add(inputs, [BEFORE])
    row = Row(KEPT, "circuit", 0, 3, circuit.order)
    (found,) = measure_rows(model, inputs, BEFORE, NOUN_ID, [row], adding.means(), 1)
    is_image = image_positions(model, inputs)[0]
    n_prompt = len(is_image)
    places = is_image.nonzero()[:, 0]
    image, caption = slice(int(places[0]), int(places[-1]) + 1), slice(n_prompt, n_prompt + len(BEFORE))
    seen: list[Tensor] = []
    handles = [changed(module, kept_by(seen)) for module in model.anatomy.ffn_outs]
    with torch.no_grad():
        logit(model, inputs)
    for handle in handles:
        handle.remove()
    handles = []
    for layer, module in enumerate(model.anatomy.ffn_outs):
        means = seen[layer].clone()
        for place in (image, caption):
            means[0, place] = seen[layer][0, place].mean(0)
        kept = circuit.order[layer, :3]

        def change(a: Tensor, means: Tensor = means, kept: Tensor = kept) -> Tensor:
            held = means.to(a.dtype).clone()
            held[..., kept] = a[..., kept]
            return held

        handles.append(changed(module, change))
    with torch.no_grad():
        expected = float(logit(model, inputs))
    for handle in handles:
        handle.remove()
    assert found["logit"] == pytest.approx(expected, rel=1e-5)


def test_positions_are_grouped_by_their_place_in_the_prompt(tiny: Model) -> None:
    image = tiny.image_token_id
    ids = torch.tensor([[0, 5, 6, image, 9, image, 7], [5, 6, image, image, image, image, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[0] + [1] * 6, [1] * 7])}
    groups, n_groups = groups_of(tiny, inputs, [(1, 2), (1,)])
    assert n_groups == 5
    assert groups.tolist() == [[-1, 0, 1, 2, 2, 2, 3, 4, 4], [0, 1, 2, 2, 2, 2, 3, 4, -1]]


def test_hooks_are_gone_and_gates_open_again(tiny: Model, pictures: Path) -> None:
    from PIL import Image

    with Image.open(min(pictures.iterdir())) as picture:
        inputs = tiny.encode([picture], tiny.exact_prompt("A picture of"))

    def n_hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in tiny.module.modules())

    before = n_hooks()
    with torch.enable_grad(), capture_paths(tiny) as paths:
        tiny.module(**with_captions(tiny, inputs, [BEFORE]), use_cache=False)
    y = paths.final[0, -1].sum()
    source = paths.a[0][0].values
    (total,) = torch.autograd.grad(y, source, retain_graph=True)
    with paths.without_attention():
        (near,) = torch.autograd.grad(y, source, retain_graph=True)
    (again,) = torch.autograd.grad(y, source)
    assert torch.equal(total, again)
    assert not torch.equal(total, near)
    assert n_hooks() == before


def test_half_is_where_the_curve_crosses_it() -> None:
    assert half_at([0, 1, 3], [0.0, 0.2, 0.8], 1.0) == pytest.approx(2.0)
    assert half_at([0, 1, 3], [1.0, 0.8, 0.2], 1.0) == pytest.approx(2.0)
    assert half_at([0, 1], [0.0, 0.1], 1.0) is None


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of eight pictures."""
    cache = tmp_path_factory.mktemp("circuits") / "cache"
    words = ["score", "--model", checkpoint, "--images", pictures, "--cache", cache, "--limit", "8"]
    assert main([*map(str, words), "--max-new-tokens", "8", "--progress", "none"]) == DONE
    return cache


def circuits(cache: Path, capfd, *words: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["circuits", "latest", "--cache", str(cache), "--progress", "none", "--json", *words]) == DONE
    return json.loads(capfd.readouterr().out)


VIEWER: dict[
    str, dict[str, type]
] = {  # the fields that circuit-tracer's viewer reads (its `graph_models`, 0.5.0), and their types
    "metadata": {"slug": str, "scan": str, "transcoder_list": list, "prompt_tokens": list, "prompt": str},
    "qParams": {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str},
    "node": dict.fromkeys(("node_id", "layer", "feature_type", "jsNodeId", "clerp"), str)
    | dict.fromkeys(("feature", "ctx_idx", "run_idx", "reverse_ctx_idx"), int)
    | {"token_prob": float, "is_target_logit": bool},
    "link": {"source": str, "target": str, "weight": float},
}


def unpaired(feature: int) -> tuple[int, int]:
    """Layer and index of a feature, by going through the diagonals that the viewer's pairing counts along."""
    diagonal = 0
    while feature > diagonal:
        feature, diagonal = feature - diagonal - 1, diagonal + 1
    return diagonal - feature, feature


def assert_opens_in_the_viewer(path: Path) -> dict[str, Any]:
    graph = json.loads(path.read_text())
    listed = json.loads((path.parent / LISTING).read_text())["graphs"]
    assert graph["metadata"] in listed
    assert graph["metadata"]["slug"] == path.stem
    told = [("metadata", graph["metadata"]), ("qParams", graph["qParams"])]
    told += [("node", node) for node in graph["nodes"]] + [("link", link) for link in graph["links"]]
    for kind, one in told:
        assert {name: type(one[name]) for name in VIEWER[kind]} == VIEWER[kind]
    tokens = graph["metadata"]["prompt_tokens"]
    assert len(tokens) > 1, "the viewer deletes what is at more than two thirds of the tokens"
    assert all(0 <= node["ctx_idx"] < len(tokens) for node in graph["nodes"])
    for name in ("node_id", "jsNodeId"):
        assert len({node[name] for node in graph["nodes"]}) == len(graph["nodes"])
    ids = [node["node_id"] for node in graph["nodes"]]
    assert {link[end] for link in graph["links"] for end in ("source", "target")} <= set(ids)
    (noun,) = (node for node in graph["nodes"] if node["feature_type"] == "logit")
    assert float(noun["clerp"].split("(p=")[1].split(")")[0]) == pytest.approx(noun["token_prob"], abs=1e-3)
    return graph


def test_the_command_measures_once_and_writes_the_graph(cache: Path, tmp_path: Path, capfd) -> None:
    out = tmp_path / "one.json"
    noun = tables_of(cache, ["concept"])["concept"]["lemma"].mode()[0]
    first = circuits(cache, capfd, "--noun", noun, "--units-per-layer", "3", "--out", str(out))
    again = circuits(cache, capfd, "--noun", noun, "--units-per-layer", "3")
    assert first["circuits"] == again["circuits"]
    (told,) = first["circuits"]
    assert (told["k"], told["noun"], told["share"]) == (3, noun, 3 / 48)
    graph = assert_opens_in_the_viewer(out)
    units = [node for node in graph["nodes"] if node["feature_type"] == "cross layer transcoder"]
    assert len(units) == 9
    for node in units:
        layer, unit = unpaired(node["feature"])
        assert str(layer) == node["layer"]
        assert node["clerp"].startswith(f"L{layer}.u{unit}: ")
        assert node["jsNodeId"] == f"{layer}_{unit}-0"
    assert max(node["influence"] for node in units) == pytest.approx(1.0)
    with Store.open(cache) as store:
        found = store.ask(CircuitQueries).circuits("latest")
        mine = found[(found["noun"] == noun) & (found["k"] == 3)]["circuit"].item()
        effects = store.ask(CircuitQueries).effects("latest", mine)
        assert all(len(tokens) == 10 for tokens in store.ask(CircuitQueries).units("latest", mine)["tokens"])
    points = curves(effects, "relative")
    ends = points[(points["direction"] == KEPT) & (points["size"] == 48)]
    assert ends["mean"].tolist() == [1.0] * len(ends)


def test_a_circuit_of_one_picture_has_its_tokens(cache: Path, tmp_path: Path, capfd) -> None:
    concept = tables_of(cache, ["concept"])["concept"].iloc[0]
    out = tmp_path / "picture.json"
    words = ("--noun", concept["noun"], "--image", concept["image_id"][:10], "--out", str(out))
    (told,) = circuits(cache, capfd, *words)["circuits"]
    assert told["image_id"] == concept["image_id"]
    graph = assert_opens_in_the_viewer(out)
    embeddings = [node for node in graph["nodes"] if node["layer"] == "E"]
    assert len(embeddings) == len(graph["metadata"]["prompt_tokens"])
    assert sum(node["clerp"].startswith("image: ") for node in embeddings) == 64


@pytest.mark.parametrize("text", ["no JSON", '{"graphs": [{"scan": "specimen"}]}', "[]", '{"graphs": 5}'])
def test_a_folder_whose_list_of_graphs_is_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / LISTING).write_text(text)
    circuit = {"circuit": "c", "rule": "relp", "noun": "dog", "tokens": [], "image_at": [], "n_found": 2}
    about = circuit | {"token_id": 3, "token": "dog", "prob": 0.5, "logit": 1.0}
    of: dict[str, Any] = {"run_id": "r", "model": "m", "n_layers": 2, "circuit": about, "units": [], "edges": []}
    with pytest.raises(UsageError, match="is no list of graphs: remove it"):
        write_graph(tmp_path / "dog.json", **of, words={})
    assert [path.name for path in tmp_path.iterdir()] == [LISTING]
    (tmp_path / LISTING).unlink()
    write_graph(tmp_path / "dog.json", **of, words={})
    assert_opens_in_the_viewer(tmp_path / "dog.json")


def test_what_was_finished_is_kept_when_it_is_stopped(cache: Path, tiny: Model, monkeypatch) -> None:
    scored, plan = reopen.open_run(tiny, run_path_of(cache)), CircuitPlan(k=1, n_found=1, n_judged=1, n_draws=1)
    with interrupted_at_the_second(monkeypatch, measure, "circuit_rows"):
        measure_circuits(scored, plan, lambda _progress: None)
    finished = shards.finished_shards(scored.path)
    told: list[Progress] = []
    names = measure_circuits(scored, plan, told.append)
    assert len(finished & {f"circuits-{name}" for name in names}) == 1
    assert {f"circuits-{name}" for name in names} <= set(shards.finished_shards(scored.path))
    assert (told[0].done, told[-1].done) == (0, told[-1].total)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--noun unicorn", "no caption of this run says 'unicorn'; most pictures say: "),
        ("--image zzz", "no pictures of this run begin so"),
        ("--units-per-layer 49", "--units-per-layer 49: a layer of"),
        ("--out graph.json", "--out writes the graph of one noun"),
    ],
)
def test_bad_input_says_what_to_do(cache: Path, capfd, words: str, says: str) -> None:
    capfd.readouterr()
    assert main(["circuits", "latest", "--cache", str(cache), "--progress", "none", *words.split()]) == BAD_INPUT
    said = capfd.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_model_without_image_tokens_or_with_experts_is_refused(in_float64: InFloat64) -> None:  # noqa: F811
    model, inputs = in_float64("llava")
    text_only = inputs | {"input_ids": torch.full_like(inputs["input_ids"], 5)}
    with pytest.raises(UsageError, match="no image tokens"):
        find_circuit(model, shown(text_only), RULES["rajaram"], 1)
