"""The numbers of docs/findings.md: runs its commands in one cache and prints its tables as Markdown.

    python benchmarks/findings.py CACHE            # hours on a slow machine; what is there already is not done again
    python benchmarks/findings.py CACHE --only fields specificity
    python benchmarks/findings.py CACHE --shipped specimen-smollm   # the tables of a run that ships, in a minute
    python benchmarks/findings.py CACHE --run RUN --only matter     # of any run of the cache, as it was measured

Nothing here is timed. A number with brackets is a mean and its 95 % interval by picture (docs/methods.md).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd

from mmn import names
from mmn.cli import DONE, main
from mmn.reading.nouns import lemma_of
from mmn.runs import shards
from mmn.specimen import RUN_PATHS
from mmn.specimen.ship import SHIPMENTS
from mmn.specimen.world import PLACES
from mmn.statistics.intervals import ANYWHERE, mean_intervals
from mmn.store import Store
from mmn.store.generality import GeneralityQueries
from mmn.store.rankings import RankingQueries
from mmn.studies.annotate.queries import FieldQueries
from mmn.studies.degradation.curves import curves
from mmn.studies.degradation.own import TEXTS, Interval, OwnPart, describe_own, own_parts
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.studies.image_tokens.queries import ImageTokenQueries
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.lens.queries import LensQueries
from mmn.studies.lens.rows import layer_shares, nearest_result
from mmn.studies.scoring.layer_queries import LayerQueries
from mmn.studies.selectivity.queries import SelectivityQueries
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.studies.specificity.queries import SpecificityQueries

LOOKING: Final = "contribution,contribution-folded,attribution,attribution-act,activation"
ALL: Final = (
    "contribution,contribution-folded,contribution-actfn,attribution,attribution-act,activation,random,random-matched"
)
SCORE: Final = f"score --model specimen --images gallery --top-k 1000 --methods {ALL}"
COMMANDS: Final = (  # on the run that `SCORE` made: `latest` would be any that the cache holds
    f"annotate RUN --top 10 --methods {LOOKING}",
    "specificity RUN",
    "sensitivity RUN --top 1",
    "invariance RUN --kind cross-image",
    "lens RUN --limit 64 --top 3",
    "degrade RUN --kind ablate --no-captions --draws 1 --limit 100 --method contribution,attribution",
    "invariance RUN --kind region --draws 1",
)
SHARES: Final = (0.001, 0.003, 0.014, 0.05, 0.25)


def section(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table under its title."""
    print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def number(value: float, digits: int = 3) -> str:
    """`.163`, without the zero before the point."""
    return (
        "–"
        if pd.isna(value)
        else f"{value:.{digits}f}".replace("0.", ".", 1)
        if abs(value) < 1
        else f"{value:.{digits}f}"
    )


def mean(row: Any, name: str, digits: int = 3) -> str:
    """`.163 [.159, .168]`; no brackets where there is no interval."""
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    ends = "" if pd.isna(low) else f" [{number(low, digits)}, {number(high, digits)}]"
    return number(value, digits) + ends


def layers(store: Store, run: dict[str, Any]) -> None:
    methods = store.score_methods(run["run_id"])
    k = kept(run, 0.014)
    found = store.ask(LayerQueries).distribution(run["run_id"], methods, [k])
    for quantity in ("n_units", "mean_units"):
        if quantity in found:
            wide = found.pivot(index="method", columns="layer", values=quantity).loc[methods]
            rows = [(method, *(number(v, 1) if v % 1 else int(v) for v in wide.loc[method])) for method in methods]
            section(f"Layers: {quantity} of the top {k}", ["ranking", *map(str, wide.columns)], rows)


def agreement(store: Store, run: dict[str, Any]) -> None:
    pairs = [
        ("contribution", "contribution-folded"),
        ("contribution", "contribution-actfn"),
        ("contribution", "activation"),
        ("attribution", "attribution-act"),
        ("contribution", "attribution"),
    ]
    rows, there = [], store.score_methods(run["run_id"])
    for a, b in [pair for pair in pairs if set(pair) <= set(there)]:
        shared = store.ask(RankingQueries).overlap(run["run_id"], a, b, [10, most_of(run)])
        rho = pd.Series(store.ask(RankingQueries).correlation(run["run_id"], a, b)).rename(
            {"low": "spearman_low", "high": "spearman_high"}
        )
        told = [f"{mean(one, 'overlap')} (chance {number(one.chance)})" for one in shared.itertuples()]
        rows.append(
            (
                f"{a}, {b}",
                *told,
                mean(rho, "spearman", 2),
                f"{rho['n_images']:.0f}, {rho['n']:.0f}, {rho['n_units']:.0f}",
            )
        )
    section(
        "Do the rankings agree?",
        ["", "k = 10", f"k = {most_of(run)}", "Spearman, union", "pictures, nouns, units"],
        rows,
    )
    control = store.ask(RankingQueries).control_overlap(run["run_id"], kept(run, 0.014))
    section("Controls", list(control.columns), control.round(4).itertuples(index=False))


def fields(store: Store, run: dict[str, Any]) -> None:
    found = store.ask(FieldQueries).summary(run["run_id"], 10)
    rows = [
        (
            one.method,
            one.selection,
            mean(one, "iou"),
            mean(one, "iou_other"),
            mean(one, "iou_random"),
            number(one.iou_best),
            f"{one.n_images}, {one.n}",
        )
        for one in found.itertuples()
    ]
    section(
        "Do the top units look at their object?",
        ["ranking", "found on", "own", "others", "random", "best reachable", "pictures, rows"],
        rows,
    )
    first = store.ask(FieldQueries).summary(run["run_id"], 1)
    alone = [(one.method, one.selection, mean(one, "iou"), mean(one, "iou_random")) for one in first.itertuples()]
    section("The first unit alone", ["ranking", "found on", "own", "random"], alone)


def specificity(store: Store, run: dict[str, Any]) -> None:
    methods = store.ask(SpecificityQueries).methods(run["run_id"])
    shares = store.ask(SpecificityQueries).summary(run["run_id"], methods)
    rows = [
        (o.method, o.selection, o.is_control, o.is_own, mean(o, "share"), f"{o.n_images}, {o.n}")
        for o in shares.itertuples()
    ]
    section("Specificity: shares", ["ranking", "found on", "control", "own noun", "share", "pictures, nouns"], rows)
    highest = store.ask(SpecificityQueries).highest_for_own_noun(run["run_id"], methods)
    rows = [
        (o.method, o.selection, o.is_control, mean(o, "share"), number(o.chance), f"{o.n_images}, {o.n}")
        for o in highest.itertuples()
    ]
    section(
        "Specificity: own noun highest",
        ["ranking", "found on", "control", "share", "one in so many", "pictures, nouns"],
        rows,
    )
    print("\nnouns of one picture:", store.ask(SpecificityQueries).nouns_of_one_picture(run["run_id"]))


def selectivity(store: Store, run: dict[str, Any]) -> None:
    rows = []
    for method in store.ask(SelectivityQueries).methods(run["run_id"]):
        found = store.ask(SelectivityQueries).by_class(run["run_id"], method, 1000)
        own, ours = found["unit_noun"] == found["noun"], ~found["is_control"]
        share = {(o, c): found[(own == o) & (ours == c)]["share"].mean() for o in (True, False) for c in (True, False)}
        best = found[ours].loc[found[ours].groupby("unit_noun")["value"].idxmax()]
        tested = found[own & ours]
        rows.append(
            (
                method,
                *(number(share[key]) for key in ((True, True), (False, True), (True, False), (False, False))),
                f"{(best['unit_noun'] == best['noun']).mean():.0%} of {len(best)}",
                int(tested["is_discovery"].sum()),
            )
        )
    section("Selectivity", ["ranking", "own", "other", "random own", "random other", "own highest", "survive BH"], rows)


def invariance(store: Store, run: dict[str, Any]) -> None:
    methods, ks = (
        store.score_methods(run["run_id"]),
        sorted({kept(run, 0.014), most_of(run), kept(run, 0.25)}),
    )
    found = store.ask(InvarianceQueries).curves(run["run_id"], methods, ks)
    rows = [
        (
            o.method,
            o.k,
            mean(o, "ratio"),
            mean(o, "floor_other_noun"),
            number(o.floor_random),
            f"{o.n_images}, {o.n_concepts}",
        )
        for o in found.itertuples()
    ]
    section("Shuffled pictures", ["ranking", "k", "stays", "another noun", "chance", "pictures, nouns"], rows)


def cross_image(store: Store, run: dict[str, Any]) -> None:
    measured = store.ask(InvarianceQueries).measured(run["run_id"])
    measured = measured[measured["kind"] == "cross-image"]
    rows = []
    for method in dict.fromkeys(measured["method"]):
        of = store.ask(CrossImageQueries).by_concept(run["run_id"], method, most_of(run), 5)
        several = of["n_draws"] > 1
        rows.append(
            (
                method,
                number(of["ratio"].mean()),
                f"{number(of['ratio'].min())} to {number(of['ratio'].max())}",
                f"{of['floor_random'].mean():.5f}",
                f"{len(of)} ({int((~several).sum())} with one draw)",
                int(of["is_discovery"].sum()),
            )
        )
    section(
        f"Five pictures of a noun, k = {most_of(run)}",
        ["ranking", "mean over nouns", "lowest to highest noun", "random", "nouns", "survive BH"],
        rows,
    )


def sensitivity(store: Store, run: dict[str, Any]) -> None:
    methods, metrics = store.ask(SensitivityQueries).measured(run["run_id"])
    found = store.ask(SensitivityQueries).summary(run["run_id"], methods, metrics)
    rows = [
        (
            o.metric,
            o.method,
            mean(o, "value"),
            mean(o, "control"),
            mean(o, "control_blank"),
            mean(o, "difference"),
            f"{o.n_images}, {o.n}",
        )
        for o in found.itertuples()
    ]
    section(
        "Sensitivity",
        ["measure", "ranking", "top units", "another picture's", "over grey", "difference", "pictures, nouns"],
        rows,
    )


def ablation(store: Store, run: dict[str, Any]) -> None:
    settings = store.ask(EffectQueries).settings(run["run_id"])
    methods = tuple(dict.fromkeys(settings[settings["kind"] == names.ABLATE]["method"]))
    shares = {units_of(run, share) for share in SHARES}
    for title, lemmas in (("all", ()), ("places", tuple(place_nouns()))):
        means = store.ask(EffectQueries).means(run["run_id"], EffectFilter(names.ABLATE, methods, tuple(lemmas)))
        if means.empty:
            continue
        ks = [0, *sorted(shares & set(ablated_ks(means)))]
        drawn = curves(means, "prob").rename(columns={"mean": "prob", "low": "prob_low", "high": "prob_high"})
        rows = []
        for key, of in drawn.groupby(["method", "selection", "positions"], sort=False):
            at = {one.k: mean(one, "prob") for one in of.itertuples()}
            rows.append((*key, *(at.get(k, "–") for k in ks), int(of["n"].max())))
        section(f"Ablation, {title}", ["ranking", "units", "at", *map(str, ks), "pictures"], rows)


def own_parts_of(store: Store, run: dict[str, Any]) -> None:
    """How much of a drop is the noun's own, by the controls: a table of all k, then the words of `mmn degrade`."""
    n_units = run["n_layers"] * run["d_mlp"]
    for title, lemmas in (("all", ()), ("places", place_nouns()), ("objects", objects_of(store, run))):
        means = measured_ablations(store, run, tuple(lemmas))
        if means.empty:
            continue
        parts = [part for k in ablated_ks(means) for part in own_parts(means[means["k"].isin((0, k))], n_units)]
        heads = ["ranking", "at", "k", "untouched share", *DROPS, *EXCESSES, *SHARES_OF_NOUNS, "pictures"]
        section(f"Whose is the drop? {title}", heads, map(drop_cells, parts))
        read = [part for part in parts if part.perplexity]
        if title == "all":
            section("What text suffers: perplexity", ["ranking", "at", "k", *TEXTS.values()], map(text_cells, read))
    print("\n## How much of the drop is the noun's own?\n")
    for part in own_parts(measured_ablations(store, run, ()), n_units):
        print(f"- `{part.method}`: {describe_own(part, n_units, '')}")


def measured_ablations(store: Store, run: dict[str, Any], lemmas: tuple[str, ...]) -> pd.DataFrame:
    settings = store.ask(EffectQueries).settings(run["run_id"])
    methods = tuple(dict.fromkeys(settings[settings["kind"] == names.ABLATE]["method"]))
    return store.ask(EffectQueries).means(run["run_id"], EffectFilter(names.ABLATE, methods, lemmas))


def ablated_ks(means: pd.DataFrame) -> list[int]:
    return sorted({int(k) for k in means["k"]} - {0})


DROPS: Final = ("own units take", "another picture's", "random")
EXCESSES: Final = ("own minus another's", "own minus random")
SHARES_OF_NOUNS: Final = ("noun's share: own off", "another's off", "random off", "another's minus own")


def drop_cells(part: OwnPart) -> list[object]:
    """Shares of the untouched probability, and the noun's share among all nouns."""
    controls = [part.beyond.get(name) for name in (names.ANOTHER, names.RANDOM)]
    own = next((one.own_drop for one in controls if one), float("nan"))
    drops = [own, *(one.drop if one else float("nan") for one in controls)]
    shares = [part.shares.get(name, float("nan")) for name in ("untouched", names.TOP, names.ANOTHER, names.RANDOM)]
    share_excess = controls[0].share_excess if controls[0] else None
    pictures = max((one.excess.n for one in controls if one), default=0)
    cells = [number(value) for value in (*drops,)] + [interval_cell(one.excess if one else None) for one in controls]
    told = [number(value) for value in shares[1:]] + [interval_cell(share_excess)]
    return [part.method, part.positions, part.k, number(shares[0]), *cells, *told, pictures]


def text_cells(part: OwnPart) -> list[object]:
    """By text the perplexity untouched, and with own, another picture's and random units off."""
    order = ("untouched", names.TOP, names.ANOTHER, names.RANDOM)
    told = [
        ", ".join(f"{values[name]:,.4g} {name}" for name in order if name in values)
        for values in (part.perplexity.get(text, {}) for text in TEXTS)
    ]
    return [part.method, part.positions, part.k, *(one or "–" for one in told)]


def matter(store: Store, run: dict[str, Any]) -> None:
    """Which ranking finds units that matter? Each measure less its control, picture by picture."""
    ks = [units_of(run, share) for share in (0.001, 0.014)]
    columns = [
        *(column for k in ks for column in _ablated_beyond(store, run, k)),
        ("own noun is highest, held out, minus random unit", _highest_beyond(store, run)),
        *((f"IoU, held out, minus {words}", _iou_beyond(store, run, name)) for name, words in _OTHER_REGIONS.items()),
    ]
    methods = dict.fromkeys(method for _, column in columns for method in column)
    rows = [(method, *(interval_cell(column.get(method)) for _, column in columns)) for method in methods]
    section("Which ranking finds units that matter?", ["ranking", *(title for title, _ in columns)], rows)


_OTHER_REGIONS: Final = {"iou_random": "random units", "iou_other": "other objects"}
Column = dict[str, Interval]  # by ranking


def _ablated_beyond(store: Store, run: dict[str, Any], k: int) -> list[tuple[str, Column]]:
    means = measured_ablations(store, run, ())
    means = means[means["k"].isin((0, k)) & (means["positions"] == names.EVERYWHERE)]
    parts = {part.method: part.beyond for part in own_parts(means, run["n_layers"] * run["d_mlp"]) if part.k == k}
    return [
        (
            f"drop at {k}, minus {words}",
            {method: of[control].excess for method, of in parts.items() if control in of},
        )
        for control, words in ((names.ANOTHER, "another picture's units"), (names.RANDOM, "random units"))
    ]


def _highest_beyond(store: Store, run: dict[str, Any]) -> Column:
    queries = store.ask(SpecificityQueries)
    if not (methods := queries.methods(run["run_id"])):
        return {}
    shares = queries.highest_by_picture(run["run_id"], methods)
    held_out = shares[shares["selection"] == names.HELD_OUT]
    wide = held_out.pivot(index=["method", "image_id"], columns="is_control", values="value")
    return _means_by_method(wide[False] - wide[True])


def _iou_beyond(store: Store, run: dict[str, Any], control: str) -> Column:
    found = store.ask(FieldQueries).by_picture(run["run_id"], 10)
    found = found[found["selection"] == names.HELD_OUT].set_index(["method", "image_id"])
    return _means_by_method(found["iou"] - found[control])


def _means_by_method(differences: pd.Series) -> Column:
    found = {}
    for method, of in differences.dropna().groupby(level="method", sort=False):
        value, low, high = (float(one[0]) for one in mean_intervals(of.to_numpy(dtype=float)[:, None], ANYWHERE))
        found[str(method)] = Interval(value, low, high, len(of))
    return found


def perturbation(store: Store, run: dict[str, Any]) -> None:
    """What noise leaves of a noun, by its size, and how much of a drop is the noun's own."""
    settings = store.ask(EffectQueries).settings(run["run_id"])
    methods = tuple(dict.fromkeys(settings[settings["kind"] == names.PERTURB]["method"]))
    means = store.ask(EffectQueries).means(run["run_id"], EffectFilter(names.PERTURB, methods)) if methods else None
    if means is None or means.empty:
        return
    drawn = curves(means, "prob").rename(columns={"mean": "prob", "low": "prob_low", "high": "prob_high"})
    rows = [(o.method, o.selection, o.k, o.sigma, mean(o, "prob"), int(o.n)) for o in drawn.itertuples()]
    section("Noise", ["ranking", "units", "k", "sigma", "probability left", "pictures"], rows)
    n_units = run["n_layers"] * run["d_mlp"]
    for k in ablated_ks(means):
        for part in own_parts(means[means["k"] == k], n_units):
            print(f"- `{part.method}`: {describe_own(part, n_units, '')}")


def image_tokens(store: Store, run: dict[str, Any]) -> None:
    """What nouns lose without image tokens, and without attention to them."""
    queries = store.ask(ImageTokenQueries)
    for table, title, key, ask in (
        ("token_loss", "Image tokens replaced", ["token_set"], queries.token_sets),
        ("knockout", "Attention blocked", ["source", "target", "first_layer", "last_layer"], queries.knockouts),
    ):
        if store.has_rows(run["run_id"], table, ""):
            rows = [
                (*(getattr(o, name) for name in key), mean(o, "lost"), mean(o, "lost_control"), f"{o.n_images}, {o.n}")
                for o in ask(run["run_id"]).itertuples()
            ]
            section(title, [*key, "probability lost", "random tokens", "pictures, nouns"], rows)


def interval_cell(one: Interval | None) -> str:
    return "–" if one is None else f"{number(one.mean)} [{number(one.low)}, {number(one.high)}]"


def budget(store: Store, run: dict[str, Any]) -> None:
    """Mean logits that each kind of term brings to objects and to places."""
    terms = store.table(run["run_id"], "budget")
    terms = terms[terms["variant"] == names.ORIGINAL]
    terms = terms.assign(of=terms["noun"].isin(set(place_nouns())).map({True: "places", False: "objects"}))
    each = terms.groupby(["of", "image_id", "noun", "term"])["logit"].sum().unstack(fill_value=0)
    means = each.groupby("of").mean()
    rows = [
        (of, int((each.index.get_level_values("of") == of).sum()), *(number(v, 2) for v in means.loc[of]))
        for of in means.index
    ]
    section("What writes a noun", ["", "concepts", *means.columns], rows)


def words(store: Store, run: dict[str, Any]) -> None:
    """Units that pass P1's filter, and the tokens that most units have first, by raw and by cosine rows."""
    neurons = store.table(run["run_id"], "neuron")
    rows = []
    for title, tokens, flag in (
        ("raw", "tokens", "is_interpretable"),
        ("cosine", "cosine_tokens", "is_cosine_interpretable"),
    ):
        first = neurons[tokens].str[0].value_counts()
        told = ", ".join(f"{token!r} {count}" for token, count in first.head(6).items())
        ten = neurons[tokens].explode().value_counts()
        rows.append(
            (
                title,
                len(neurons),
                f"{neurons[flag].mean():.1%}",
                len(first),
                f"{ten.head(12).sum() / ten.sum():.1%}",
                told,
            )
        )
    heads = [
        "rows of W_U",
        "units decoded",
        "interpretable",
        "different first tokens",
        "12 commonest of all ten",
        "commonest first tokens",
    ]
    section("What units say", heads, rows)


def lens(store: Store, run: dict[str, Any]) -> None:
    found = nearest_result(store.ask(LensQueries).nearest_tokens(run["run_id"]))
    if found is not None:
        print(
            f"\n## Are image tokens words?\n\nD = {found.test.statistic:.3f}, p {found.test.p_text}; English words: "
            f"{found.word_share:.1%}, random vectors {found.word_share_random:.1%}"
        )
    shares = layer_shares(store, run["run_id"])
    rows = [
        (o.layer, o.line, mean(o._replace(), "mean"))
        for o in shares.rename(columns={"low": "mean_low", "high": "mean_high"}).itertuples()
    ]
    section("Logit lens: a noun of the caption is the likeliest token", ["after layer", "tokens", "share"], rows)


def generality(store: Store, run: dict[str, Any]) -> None:
    """How general the units are that lead rankings."""
    rows = []
    for method in store.score_methods(run["run_id"]):
        told = store.ask(GeneralityQueries).told(run["run_id"], method)
        units = store.ask(GeneralityQueries).units(run["run_id"], method)
        rows.append(
            (
                method,
                told["k"],
                f"{told['chance']:.4f}",
                number(told["most"]),
                int((units["generality"] > 0.5).sum()),
                len(units),
            )
        )
    section(
        "Generality", ["ranking", "k", "chance", "the most general unit", "units above .5", "units of any top k"], rows
    )


SECTIONS: Final[dict[str, Callable[[Store, dict[str, Any]], None]]] = {
    "layers": layers,
    "agreement": agreement,
    "fields": fields,
    "specificity": specificity,
    "selectivity": selectivity,
    "invariance": invariance,
    "cross-image": cross_image,
    "sensitivity": sensitivity,
    "ablation": ablation,
    "own": own_parts_of,
    "matter": matter,
    "perturbation": perturbation,
    "image-tokens": image_tokens,
    "budget": budget,
    "words": words,
    "lens": lens,
    "generality": generality,
}


def place_nouns() -> list[str]:
    """The lemma of each place of the specimen's world."""
    return [lemma_of(text.split()[-1]) for text in PLACES.values()]


def objects_of(store: Store, run: dict[str, Any]) -> list[str]:
    """The lemmas of the run that are no place."""
    return [lemma for lemma in store.concepts(run["run_id"])["lemma"] if lemma not in place_nouns()]


def units_of(run: dict[str, Any], share: float) -> int:
    return round(share * run["n_layers"] * run["d_mlp"])


def most_of(run: dict[str, Any]) -> int:
    """100 units, or as many as a ranking of the run has."""
    return min(100, run["settings"]["top_k"])


def kept(run: dict[str, Any], share: float) -> int:
    """So many units, or as many as a ranking of the run has."""
    return min(units_of(run, share), run["settings"]["top_k"])


def scored_run(cache: Path) -> str:
    """The id of the run that `SCORE` makes, or has made."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert main([*SCORE.split(), "--json", "--cache", str(cache)]) == DONE, SCORE
    return json.loads(told.getvalue())["run_id"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--print", action="store_true", help="only print what is there")
    parser.add_argument("--shipped", choices=SHIPMENTS, help="of the bundled run of a model, which is measured already")
    parser.add_argument("--run", help="of any run of the cache, which is measured already")
    options = parser.parse_args()
    shipped = SHIPMENTS[options.shipped].run_path if options.shipped else None
    run_id = options.run or (shards.read_run(shipped)[0].run_id if shipped else scored_run(options.cache))
    for command in () if options.print or shipped or options.run else COMMANDS:
        assert main([*command.replace("RUN", run_id).split(), "--cache", str(options.cache)]) == DONE, command
    with Store.open(options.cache) as opened:
        opened.load_new_shards([opened.runs_path, *RUN_PATHS])
        for name in options.only:
            SECTIONS[name](opened, opened.run(run_id) | opened.summary(run_id))
