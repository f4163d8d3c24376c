"""Do the same units write a noun when the picture's places are shuffled?

P2, figure 3 (arXiv 2311.07470). The ratio |A ∩ B| / k is averaged over a picture's concepts, then pictures, then
seeds, and its interval is by picture (METHODS: Region ratio, Intervals). Always with its floors: another noun of
the same picture, and chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.names import REGION
from mmn.statistics.intervals import ANYWHERE, draw_intervals, ratio_intervals
from mmn.statistics.many_tests import marked, sign_flip
from mmn.store.cells import NOUNS, Chosen, by_picture, distinct, in_order, led_by, values_by_picture, with_intervals
from mmn.store.rankings import d_experts
from mmn.store.reader import Reader

MOST_CONCEPTS: Final = 60
Layers = tuple[int, int] | None  # first and last, in which a noun's first unit lies; None for all
_RATIOS: Final = ("ratio", "floor_other_noun")

_MEASURED: Final = """
    SELECT kind, method, k, n, count(DISTINCT draw) AS n_draws FROM invariance
    WHERE run_id = $run_id AND ($kind = '' OR kind = $kind)
    GROUP BY ALL ORDER BY ALL
"""

_CURVES: Final = f"""
    WITH {NOUNS},
    numbered AS (SELECT image_id, noun, place FROM nouns JOIN pictures USING (image_id)),
    cells AS (
        SELECT method, k, (list_position($methods, method) - 1) * len($ks) + list_position($ks, k) - 1 AS cell
        FROM (SELECT unnest($methods) AS method), (SELECT unnest($ks)::INTEGER AS k)
    )
    SELECT place, cell, draw,
        avg(ratio) AS ratio, avg(floor_other_noun) AS floor_other_noun, avg(floor_random) AS floor_random
    FROM invariance JOIN cells USING (method, k) JOIN numbered USING (image_id, noun) {{led}}
    WHERE run_id = $run_id AND kind = 'region'
    GROUP BY place, cell, draw
"""  # noqa: S608 - no user's words

_N_CONCEPTS: Final = f"""
    WITH {NOUNS}, measured AS (
        SELECT DISTINCT image_id, noun, method FROM invariance {{led}}
        WHERE run_id = $run_id AND kind = 'region' AND k = $k AND method IN (SELECT unnest($methods))
    )
    SELECT method, count(*) AS n_concepts FROM measured JOIN nouns USING (image_id, noun)
    JOIN pictures USING (image_id) GROUP BY method
"""  # noqa: S608 - no user's words

_BY_CONCEPT: Final = f"""
    WITH {NOUNS}, measured AS (
        SELECT image_id, lemma, draw, ratio, floor_other_noun, floor_random
        FROM invariance JOIN nouns USING (image_id, noun) {{led}}
        WHERE run_id = $run_id AND kind = 'region' AND method = $method AND k = $k
    ),
    counted AS (SELECT lemma, count(DISTINCT image_id) AS n FROM measured GROUP BY lemma),
    numbered AS (SELECT lemma, row_number() OVER (ORDER BY n DESC, lemma) - 1 AS cell FROM counted)
    SELECT place, cell, lemma, draw, ratio, floor_other_noun, ratio - floor_other_noun AS difference, floor_random
    FROM measured JOIN numbered USING (lemma) JOIN pictures USING (image_id) WHERE cell < $most
"""  # noqa: S608 - no user's words

# Which nouns of the original captions the shuffled ones say, too: by lemma, as `dog` and `dogs` are one concept.
_SURVIVAL: Final = f"""
    WITH {NOUNS},
    led AS (SELECT image_id, lemma FROM (SELECT *, $method AS method FROM nouns) {{led}}),
    said AS (
        SELECT DISTINCT image_id, variant, lemma, true AS is_said FROM concept
        WHERE run_id = $run_id AND starts_with(variant, 'shuffled-') AND target_at IS NULL
    )
    SELECT place, 0 AS cell, variant AS draw, avg(coalesce(is_said, false)::INTEGER) AS share,
        count(*) AS n, count(is_said) AS n_kept
    FROM led JOIN pictures USING (image_id)
    JOIN (SELECT image_id, variant FROM caption WHERE run_id = $run_id AND starts_with(variant, 'shuffled-'))
        USING (image_id)
    LEFT JOIN said USING (image_id, variant, lemma)
    GROUP BY place, variant
"""  # noqa: S608 - no user's words

# A concept in both captions is a pair; `chance` is what random units would keep that lie in the same layers as the
# shuffled ranking's: of n units in a layer of m, n' / m each. In a mixture of experts parts are the experts.
_BY_LAYER: Final = f"""
    WITH {NOUNS},
    led AS (SELECT image_id, noun, lemma FROM (SELECT *, $method AS method FROM nouns) {{led}}),
    pairs AS (
        SELECT place, image_id, variant, told.noun AS noun, led.noun AS first_noun,
            row_number() OVER () AS pair, dense_rank() OVER (ORDER BY place, led.noun) AS concept
        FROM concept AS told JOIN led USING (image_id, lemma) JOIN pictures USING (image_id)
        WHERE run_id = $run_id AND starts_with(variant, 'shuffled-') AND target_at IS NULL
    ),
    before AS (
        SELECT concept, layer, unit // list_extract($widths, layer + 1) AS part, layer * $d_mlp + unit AS id
        FROM score JOIN (SELECT DISTINCT concept, image_id, first_noun AS noun FROM pairs) USING (image_id, noun)
        WHERE run_id = $run_id AND variant = 'original' AND method = $method AND rank BETWEEN 1 AND $k
    ),
    after AS (
        SELECT place, pair, concept, layer, unit // list_extract($widths, layer + 1) AS part,
            layer * $d_mlp + unit AS id
        FROM score JOIN pairs USING (image_id, variant, noun)
        WHERE run_id = $run_id AND starts_with(variant, 'shuffled-') AND method = $method AND rank BETWEEN 1 AND $k
    ),
    kept AS (SELECT place, layer, count(*) AS n_kept FROM after SEMI JOIN before USING (concept, id) GROUP BY ALL),
    n_before AS (SELECT concept, layer, part, count(*) AS n FROM before GROUP BY ALL),
    n_after AS (SELECT pair, layer, part, count(*) AS n FROM after GROUP BY ALL),
    scored AS (SELECT DISTINCT place, pair, concept FROM after),
    expected AS (
        SELECT place, layer, sum(n_before.n) AS n_units,
            sum(n_before.n * coalesce(n_after.n, 0) / list_extract($widths, layer + 1)) AS chance
        FROM scored JOIN n_before USING (concept) LEFT JOIN n_after USING (pair, layer, part) GROUP BY ALL
    )
    SELECT place, layer::INTEGER AS cell, n_units::DOUBLE AS n_units, coalesce(n_kept, 0)::DOUBLE AS n_kept,
        chance::DOUBLE AS chance
    FROM expected LEFT JOIN kept USING (place, layer)
"""  # noqa: S608 - no user's words


def _asked(methods: Sequence[str], ks: Sequence[int], lemmas: Sequence[str]) -> dict[str, list[Any]]:
    return {"methods": distinct(methods), "ks": list(dict.fromkeys(ks)), "lemmas": distinct(lemmas)}


def _cells(asked: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """A row for each method and k, as `_CURVES` numbers them."""
    return pd.DataFrame([(m, k) for m in asked["methods"] for k in asked["ks"]], columns=["method", "k"])


def _curve_rows(
    cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], asked: Mapping[str, Sequence[Any]], layers: Layers
) -> pd.DataFrame:
    """The ratios of numbered pictures and cells, of each draw."""
    led, values = led_by(run, layers)
    rows = cursor.sql(_CURVES.format(led=led), params={**asked, **values, "run_id": run["run_id"]}).df()
    if rows.empty:
        raise nothing_measured(run, REGION, asked["methods"], asked["lemmas"], layers)
    return rows


class InvarianceQueries(Reader):
    """Questions about units that stay the same."""

    def measured(self, run_id: str, kind: str = "") -> pd.DataFrame:
        """Returns what was measured of a run, of one kind or all: kind, method, k, n, n_draws, in `METHODS`' order.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            found = cursor.sql(_MEASURED, params={"run_id": run["run_id"], "kind": kind}).df()
        place = {method: number for number, method in enumerate(in_order(found["method"]))}
        return found.sort_values("method", key=lambda names: names.map(place), kind="stable").reset_index(drop=True)

    def curves(
        self,
        run_id: str,
        methods: Sequence[str],
        ks: Sequence[int],
        lemmas: Sequence[str] = (),
        layers: Layers = None,
    ) -> pd.DataFrame:
        """Returns the ratio against k, with 95 % intervals by picture: one row per method and k that was measured.

        Columns: method, k, then ratio and floor_other_noun with `_low` and `_high`, floor_random (chance), n_images,
        n_concepts (in at least one shuffled caption, too).

        Args:
            run_id: of one run.
            methods: rankings.
            ks: units compared.
            lemmas: only these nouns; all if empty.
            layers: only nouns whose first unit by the method lies in these, first and last.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured; layers that the model does not have.
        """
        asked = _asked(methods, ks, lemmas)
        with self._of_run(run_id) as (cursor, run):
            led, values = led_by(run, layers)
            values["run_id"] = run["run_id"]
            rows = _curve_rows(cursor, run, asked, layers)
            one_k = asked["ks"][int(rows["cell"].min()) % len(asked["ks"])]  # every k has the same concepts
            values |= {"methods": asked["methods"], "lemmas": asked["lemmas"], "k": one_k}
            counted = cursor.sql(_N_CONCEPTS.format(led=led), params=values).df()
        cells = _cells(asked)
        array = by_picture(rows, _RATIOS, len(cells))
        found = with_intervals(cells, _RATIOS, array, draw_intervals)
        found["floor_random"] = rows.groupby("cell")["floor_random"].mean().reindex(range(len(cells))).to_numpy()
        found["n_concepts"] = found["method"].map(counted.set_index("method")["n_concepts"]).fillna(0).astype(int)
        return found[found["n_images"] > 0].reset_index(drop=True)

    def ratios_by_picture(
        self,
        run_id: str,
        methods: Sequence[str],
        ks: Sequence[int],
        lemmas: Sequence[str] = (),
        layers: Layers = None,
    ) -> pd.DataFrame:
        """Returns each picture's `ratio` behind `curves`: image_id, method, k, value (raises as that does)."""
        asked = _asked(methods, ks, lemmas)
        with self._of_run(run_id) as (cursor, run):
            rows = _curve_rows(cursor, run, asked, layers)
            return values_by_picture(cursor, rows, _cells(asked), "ratio", asked | {"run_id": run["run_id"]})

    def by_concept(
        self, run_id: str, method: str, k: int, lemmas: Sequence[str] = (), layers: Layers = None
    ) -> pd.DataFrame:
        """Returns each concept's ratio at one k, with 95 % intervals by picture, the furthest above its floor first.

        Columns: lemma, then ratio, floor_other_noun and difference (ratio − floor) with `_low` and `_high`,
        floor_random, n_images; `p` of no difference, by picture (`many_tests.sign_flip`), and `is_discovery`, whether
        it survives among these lemmas. The `MOST_CONCEPTS` lemmas of the most pictures.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        quantities = (*_RATIOS, "difference")
        asked = {"method": method, "k": k, "lemmas": distinct(lemmas), "most": MOST_CONCEPTS}
        with self._of_run(run_id) as (cursor, run):
            led, values = led_by(run, layers)
            rows = cursor.sql(_BY_CONCEPT.format(led=led), params=values | asked | {"run_id": run["run_id"]}).df()
        if rows.empty:
            raise nothing_measured(run, REGION, [method], lemmas, layers)
        cells = rows.groupby("cell").agg(lemma=("lemma", "first"), floor_random=("floor_random", "mean")).reset_index()
        array = by_picture(rows, quantities, len(cells))
        cells = cells.drop(columns="cell")
        found = with_intervals(cells, quantities, array, draw_intervals, {"difference": ANYWHERE})
        by_lemma = rows.groupby(["cell", "place"])["difference"].mean()
        found = marked(
            found, np.array([sign_flip(of.to_numpy(dtype=float)) for _, of in by_lemma.groupby(level="cell")])
        )
        return found.sort_values(["difference", "ratio"], ascending=False, kind="stable").reset_index(drop=True)

    def survival(
        self, run_id: str, lemmas: Sequence[str] = (), method: str = "", layers: Layers = None
    ) -> dict[str, Any]:
        """Returns how many nouns of the original captions the shuffled ones say, too; with `layers` only nouns whose
        first unit by `method` lies in these.

        `share` (mean over nouns, pictures, seeds) with `low` and `high` by picture; n_images, n_draws, and n_concepts
        with n_kept, counted over all draws. NaN and 0 without shuffled captions.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            led, values = led_by(run, layers)
            values |= {"run_id": run["run_id"], "lemmas": distinct(lemmas), "method": method}
            rows = cursor.sql(_SURVIVAL.format(led=led), params=values).df()
        array = by_picture(rows, ["share"], 1)
        found = with_intervals(pd.DataFrame(index=[0]), ["share"], array, draw_intervals).iloc[0]
        told = {"share": found["share"], "low": found["share_low"], "high": found["share_high"]}
        counts = {"n_images": int(found["n_images"]), "n_draws": rows["draw"].nunique()}
        return told | counts | {"n_concepts": int(rows["n"].sum()), "n_kept": int(rows["n_kept"].sum())}

    def by_layer(
        self, run_id: str, method: str, k: int, lemmas: Sequence[str] = (), layers: Layers = None
    ) -> pd.DataFrame:
        """Returns which share of the top k units of each layer is among the top k under shuffling, too: one row per
        layer that has any, over all concepts in both captions, with 95 % intervals by picture.

        Columns: layer, share, share_low, share_high, chance (random units in the layers of the shuffled ranking; in a
        mixture of experts in its experts, and NaN for a layer without some, whose width the run does not tell),
        n_units (concepts × draws × units of the layer), n_images (with units there), of_images (compared in all).

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of shuffled captions by that method.
        """
        with self._of_run(run_id) as (cursor, run):
            led, values = led_by(run, layers)
            widths = [width or run["d_mlp"] for width in d_experts(run)] or [run["d_mlp"]] * run["n_layers"]
            values |= {"run_id": run["run_id"], "d_mlp": run["d_mlp"], "widths": widths, "method": method, "k": k}
            rows = cursor.sql(_BY_LAYER.format(led=led), params=values | {"lemmas": distinct(lemmas)}).df()
        if rows.empty:
            raise nothing_measured(run, REGION, [method], lemmas, layers)
        array = np.nan_to_num(by_picture(rows, ["n_units", "n_kept", "chance"], run["n_layers"]))[:, :, 0]
        n_units, n_kept, chance = np.split(array, 3, axis=1)
        share, low, high = ratio_intervals(n_kept, n_units)
        with np.errstate(invalid="ignore"):
            expected = chance.sum(0) / n_units.sum(0)
        expected[[layer for layer, width in enumerate(d_experts(run)) if not width]] = np.nan
        told = {"layer": range(run["n_layers"]), "share": share, "share_low": low, "share_high": high}
        counts = {"n_units": n_units.sum(0).astype(int), "n_images": (n_units > 0).sum(0), "of_images": len(n_units)}
        found = pd.DataFrame(told | {"chance": expected} | counts)
        return found[found["n_units"] > 0].reset_index(drop=True)


def nothing_measured(
    run: dict[str, Any], kind: str, methods: Sequence[str], lemmas: Sequence[str], layers: Layers = None
) -> UsageError:
    """What to tell where the filters leave nothing: it was not measured, or not of these."""
    of = Chosen(methods, lemmas, layers)
    return UsageError(
        f"run {run['run_id']} has no {kind} invariance of {', '.join(of.methods) or 'any method'}{of.words}: "
        f"measure it with mmn invariance {run['run_id']} --kind {kind}, or choose other filters"
    )
