"""The circuits of a run's nouns: which there are, their units and edges, and what is left of the noun."""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_CIRCUITS: Final = """
    SELECT circuit, noun, rule, image_id, k, n_found, n_judged, n_mean, other_noun, token, token_id, logit, prob,
        tokens, image_at
    FROM circuit WHERE run_id = $run_id ORDER BY image_id IS NOT NULL, noun, rule, n_found DESC, n_judged DESC, circuit
"""
_UNITS: Final = """
    SELECT layer::INTEGER AS layer, unit, place, score, effect, effect_low, effect_high, at_image, from_image, position,
        tokens::VARCHAR[] AS tokens
    FROM (SELECT * FROM circuit_unit WHERE run_id = $run_id AND circuit = $circuit)
    LEFT JOIN (SELECT layer, unit, tokens FROM neuron WHERE model_fingerprint = $fingerprint) USING (layer, unit)
    ORDER BY layer, place
"""
_EDGES: Final = """
    SELECT source, target, weight, weight_low, weight_high, size, through_attention
    FROM circuit_edge WHERE run_id = $run_id AND circuit = $circuit ORDER BY target, source
"""
_LAYERS: Final = """
    SELECT layer::INTEGER AS layer, through_attention, carried
    FROM circuit_layer WHERE run_id = $run_id AND circuit = $circuit ORDER BY layer
"""
_EFFECTS: Final = """
    SELECT image_id, direction, selection, size, draw, logit, prob, is_held_out
    FROM circuit_effect WHERE run_id = $run_id AND circuit = $circuit
    ORDER BY image_id, direction, selection, draw, size
"""


class CircuitQueries(Reader):
    """Questions about the circuits of a run; each raises `RunNotFoundError` where there is no such run."""

    def circuits(self, run_id: str) -> pd.DataFrame:
        """Returns the rows of `circuit`: those of several pictures first, by noun, the one of most pictures first."""
        return self._ask(_CIRCUITS, run_id)

    def units(self, run_id: str, circuit: str) -> pd.DataFrame:
        """Returns the kept units of a circuit, by layer, best first; and the tokens that each writes, where decoded."""
        found = self._ask(_UNITS, run_id, circuit=circuit, is_of_model=True)
        return found.assign(tokens=[[] if one is None else list(one) for one in found["tokens"]])

    def edges(self, run_id: str, circuit: str) -> pd.DataFrame:
        """Returns what passes between the units of a circuit, from its inputs, and into its noun."""
        return self._ask(_EDGES, run_id, circuit=circuit)

    def layers(self, run_id: str, circuit: str) -> pd.DataFrame:
        """Returns layer, through_attention (of what passes into its kept units), carried (of all by the kept ones)."""
        return self._ask(_LAYERS, run_id, circuit=circuit)

    def effects(self, run_id: str, circuit: str) -> pd.DataFrame:
        """Returns what is left of the noun in each picture: the rows of `circuit_effect`."""
        return self._ask(_EFFECTS, run_id, circuit=circuit)

    def _ask(self, question: str, run_id: str, *, is_of_model: bool = False, **values: str) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            of_model = {"fingerprint": run["model_fingerprint"]} if is_of_model else {}
            return cursor.sql(question, params={"run_id": run["run_id"], **values, **of_model}).df()
