"""What `mmn domains` would have found in the made-up run, with invented numbers: domains by noun, groups zeroed."""

import pandas as pd
import pyarrow as pa

from mmn.core import ModelFacts
from mmn.names import ABLATE, EVERYWHERE, ORIGINAL, RANDOM, TOKEN_SETS, TOP
from mmn.studies.domains.groups import groups
from mmn.studies.domains.measured import HALVES, half_of, of_rows
from mmn.studies.domains.sets import sets_of
from mmn.studies.domains.words import EVERY, NOUN, RULES
from mmn.studies.tables import TABLES

DOMAINS = ("dog", "bus", "tree")
N_TOKENS = {"text": 120, "image": 400}
MEASURES = ("prob", "mean", "maximum", "attn_k", "attn_q")


def domain_tables(rng, rows, facts: ModelFacts, run_id: str):
    """Tables `domain_rate`, `modality_score`, and `effect` of every group of every rule."""
    key = {"measured": "12ab34cd"}
    rates, scores = [], []
    for half in HALVES:
        n_images = sum(half_of(row["image_id"]) == half for row in rows["image"])
        for token_set in TOKEN_SETS:
            for layer in range(facts.n_layers):
                of = key | {"token_set": token_set, "half": half, "layer": layer, "n_images": n_images}
                measures = {name: [rng.random() for _ in range(facts.d_mlp)] for name in MEASURES}
                scores.append(of | measures)
                for domain in (EVERY, *DOMAINS):
                    n = N_TOKENS[token_set] * (3 if domain == EVERY else 1)
                    active = [int(n * rng.random() ** 3) for _ in range(facts.d_mlp)]
                    rates.append(of | {"grouped_by": NOUN, "domain": domain, "n_tokens": n, "active": active})
    found = of_rows(pd.DataFrame(rates), pd.DataFrame(scores))
    sets = [one for rule in RULES for one in sets_of(groups(rule, found.rates), rule, NOUN, facts, run_id).values()]
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    effects = {one.label: [row for concept in said for row in _effects(concept, one)] for one in sets}
    told = {"domain_rate": rates, "modality_score": scores, "effect": [row for of in effects.values() for row in of]}
    return {name: pa.Table.from_pylist(found, schema=TABLES[name]) for name, found in told.items()}


def _effects(concept, one):
    for selection, draw, left in ((TOP, 0, 0.5), (RANDOM, 0, 0.9), (RANDOM, 1, 0.8)):
        for k in (0, len(one.units)) if not draw else (len(one.units),):
            prob = concept["prob"] * (left if k else 1)
            of = {name: concept[name] for name in ("image_id", "variant", "noun", "logit")}
            what = {"kind": ABLATE, "selection": selection, "method": one.label, "k": k, "draw": draw}
            yield of | what | {"positions": EVERYWHERE, "prob": prob}
