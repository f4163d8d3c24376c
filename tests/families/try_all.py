import sys, traceback, time
import torch
from tests.families.tiny import TYPES, REFUSED, build
from tests.families.test_build import pictures
from mmn.models.adapters import find_anatomy, find_family, Family
from mmn.core import ModelFacts
from mmn.models.model import Model
from tests.test_budget import *


def forward_residual(model, inputs):
    with torch.inference_mode(), capture(model, with_act=True) as captured:
        logits = model.module(**inputs).logits[:, -1].float()
    tokens = logits.argmax(-1)
    n = len(tokens)
    reading = Reading(torch.arange(n), torch.zeros(n, dtype=torch.long), tokens)
    read = (reading.rows, reading.steps)
    folded = folded_rows(model.anatomy, model.anatomy.w_u(tokens), captured.read(FINAL, ONCE, *read))
    written = written_rows(model.anatomy, folded, ffn_outputs(model.anatomy, captured, reading))
    scores = contribution(model.anatomy, captured.read_layers(ACTIVATION, *read), written, captured.chosen(*read))
    budget = logit_budget(model.anatomy, captured, reading, folded, written, scores)
    logit = model.anatomy.uncapped(logits.gather(1, tokens[:, None])[:, 0].double())
    return ((logit - budget.total()).abs() / logit.abs().clamp(min=1)).max().item()


ok = 0
for t in sys.argv[1:] or TYPES:
    if t in REFUSED:
        continue
    try:
        vlm = build(t)
        family = find_family(t)
        anatomy = find_anatomy(vlm.module, family)
        facts = ModelFacts(t, "none", t, anatomy.n_layers, anatomy.d_mlp)
        model = Model(vlm.module, None, family, anatomy, facts)
        r = forward_residual(model, vlm.encode(pictures()))
        ok += r < 1e-5
        print(
            t,
            f"{r:.2g}",
            anatomy.norm.name,
            "post" if anatomy.post_ffns else "",
            "gated" if anatomy.is_gated else "",
            type(anatomy.activations[0]).__name__ if anatomy.activations else "experts",
            flush=True,
        )
    except Exception as e:
        print(t, "XX", type(e).__name__, str(e)[:200], flush=True)
        if "AttributeError" in type(e).__name__ or "Assert" in type(e).__name__:
            traceback.print_exc(limit=-3)
print(ok)
