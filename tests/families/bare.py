"""Tiny models as `Model`s, without a processor: the tokenizer alone, to read what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mmn.core import ModelFacts
from mmn.models.adapters import Anatomy, find_family
from mmn.models.model import Model
from mmn.specimen.tokenizer import build_tokenizer

N_TOKENS = 3


def bare_model(model_type: str, module: Any, anatomy: Anatomy) -> Model:
    facts = ModelFacts(model_type, "none", model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, SimpleNamespace(tokenizer=build_tokenizer()), find_family(model_type), anatomy, facts)
