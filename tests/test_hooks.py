"""Hooks only look: nothing that the model computes changes, none stays behind, and one that saw nothing is an error."""

import threading
from dataclasses import replace

import pytest
import torch

from mmn.reading.hooks import (
    ACT,
    ACTIVATION,
    ATTENTION,
    EMBEDDING,
    FINAL,
    ONCE,
    STEPS_AT_ONCE,
    Captured,
    capture,
)
from tests.tiny import FFN, N_LAYERS, WIDTH, build_family

FAMILIES = ("llava", "blip-2")  # a gated FFN with RMS norms, a plain one (OPT) with layer norms
N_STEPS = 3


def generate(model, inputs):
    with torch.inference_mode():
        return model.module.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=N_STEPS,
            max_new_tokens=N_STEPS,
            output_logits=True,
            return_dict_in_generate=True,
        )


def n_hooks(model) -> int:
    """Hooks on all modules but transformers' own, which its first forward pass leaves on for good."""
    hooks = [
        hook
        for module in model.module.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    return sum(not hook.__module__.startswith("transformers.") for hook in hooks)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_bit_equal_with_and_without_capture(family):
    model, inputs = build_family(family)
    plain = generate(model, inputs)
    with capture(model, with_act=True):
        watched = generate(model, inputs)
    assert torch.equal(plain.sequences, watched.sequences)
    assert len(plain.logits) == len(watched.logits) == N_STEPS
    for before, after in zip(plain.logits, watched.logits, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_is_recorded_once_per_pass_with_its_width(family):
    model, inputs = build_family(family)
    with capture(model, with_act=True) as captured:
        generate(model, inputs)
    widths = {ACTIVATION: FFN, ACT: FFN, ATTENTION: WIDTH, EMBEDDING: WIDTH, FINAL: WIDTH}
    sites = {ACTIVATION, ATTENTION} | ({ACT} if model.anatomy.is_gated else set())
    expected = {(site, layer) for site in sites for layer in range(N_LAYERS)} | {(EMBEDDING, ONCE), (FINAL, ONCE)}
    assert set(captured.steps) == expected
    assert captured.n_steps == N_STEPS
    for (site, _), steps in captured.steps.items():
        assert [tuple(step.shape) for step in steps] == [(1, widths[site])] * N_STEPS


def test_residual_sites_are_those_that_transformers_reports():
    model, inputs = build_family("llava")
    with torch.inference_mode(), capture(model) as captured:
        states = model.module(**inputs, output_hidden_states=True).hidden_states
    assert torch.equal(captured.steps[EMBEDDING, ONCE][0], states[0][:, -1])
    assert torch.equal(model.anatomy.final_norm(captured.steps[FINAL, ONCE][0]), states[-1][:, -1])


def test_a_whole_prompt_is_not_kept_for_its_last_position():
    model, inputs = build_family("llava")
    with capture(model) as captured:
        generate(model, inputs)
    kept = {step.untyped_storage().data_ptr(): step for steps in captured.steps.values() for step in steps}
    blocks = [step.untyped_storage().nbytes() for step in kept.values()]
    assert sorted(blocks) == [STEPS_AT_ONCE * (N_LAYERS + 2) * width * 4 for width in (WIDTH, FFN)]


def test_kept_values_are_copies_that_later_steps_do_not_touch():
    captured = Captured(n_layers=1)
    values = [torch.full((2, 3, 4), float(step)) for step in range(5 * STEPS_AT_ONCE)]
    kept = [captured.keep(value[:, -1:])[0] for value in values]
    for value in values:
        value.zero_()
    assert [one.unique().tolist() for one in kept] == [[float(step)] for step in range(5 * STEPS_AT_ONCE)]


def test_read_takes_each_row_and_step():
    model, inputs = build_family("llava")
    with capture(model) as captured:
        generate(model, {name: torch.cat([value, value.flip(-1)]) for name, value in inputs.items()})
    rows, steps = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 0])
    read = captured.read_layers(ACTIVATION, rows, steps)
    for index, (row, step) in enumerate([(1, 2), (0, 0), (1, 0)]):
        for layer in range(N_LAYERS):
            assert torch.equal(read[index, layer], captured.steps[ACTIVATION, layer][step][row])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_hook_survives_success(family):
    model, inputs = build_family(family)
    before = n_hooks(model)
    with capture(model, with_act=True):
        assert n_hooks(model) >= before + 2 * N_LAYERS + 2
        generate(model, inputs)
    assert n_hooks(model) == before


def test_no_hook_survives_an_exception_in_the_block():
    model, inputs = build_family("llava")

    def interrupt() -> None:
        generate(model, inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), capture(model):
        interrupt()
    assert n_hooks(model) == 0
    assert is_free(model.lock)


def test_no_hook_survives_when_registering_fails():
    model, _ = build_family("llava")
    broken = replace(model, anatomy=replace(model.anatomy, attentions=model.anatomy.attentions[:1]))
    with pytest.raises(IndexError), capture(broken):
        pass
    assert n_hooks(model) == 0
    assert is_free(model.lock)


def test_a_block_without_a_forward_pass_is_an_error():
    model, _ = build_family("llava")
    with pytest.raises(AssertionError, match="no forward pass"), capture(model):
        pass


def test_a_hook_that_never_fires_is_an_error():
    model, inputs = build_family("llava")
    unused = torch.nn.Linear(FFN, WIDTH)
    broken = replace(model, anatomy=replace(model.anatomy, ffn_outs=(*model.anatomy.ffn_outs[:-1], unused)))
    with pytest.raises(AssertionError, match=rf"unevenly.*activation {N_LAYERS - 1}': 0"), capture(broken):
        generate(model, inputs)


def test_a_final_norm_that_never_fires_is_an_error():
    model, inputs = build_family("llava")
    broken = replace(model, anatomy=replace(model.anatomy, final_norm=torch.nn.LayerNorm(WIDTH)))
    with pytest.raises(AssertionError, match="final norm never fired"), capture(broken):
        generate(model, inputs)


def test_a_module_of_the_picture_tower_is_an_error():
    model, inputs = build_family("llava")
    tower = next(m for name, m in model.module.named_modules() if "vision_tower" in name and name.endswith("fc2"))
    broken = replace(model, anatomy=replace(model.anatomy, ffn_outs=(tower, *model.anatomy.ffn_outs[1:])))
    with pytest.raises(AssertionError, match="before the first decoder layer"), capture(broken):
        generate(model, inputs)


def test_a_module_that_runs_for_the_prompt_only_fires_unevenly():
    model, inputs = build_family("llava")
    ffn_out = model.anatomy.ffn_outs[0]
    first_only = torch.nn.Linear(FFN, WIDTH)
    original = ffn_out.forward

    def forward(values):
        return first_only(values) if values.shape[1] > 1 else original(values)

    broken = replace(model, anatomy=replace(model.anatomy, ffn_outs=(first_only, *model.anatomy.ffn_outs[1:])))
    ffn_out.forward = forward  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match=r"unevenly.*activation 0': 1"), capture(broken):
        generate(model, inputs)


def test_capture_holds_the_lock_of_the_model():
    model, inputs = build_family("llava")
    with capture(model):
        assert not is_free(model.lock)
        generate(model, inputs)
    assert is_free(model.lock)


def is_free(lock: threading.RLock) -> bool:
    """Whether another thread could take the lock now."""
    taken = []

    def attempt() -> None:
        if lock.acquire(blocking=False):
            lock.release()
            taken.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(taken)
