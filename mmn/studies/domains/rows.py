"""The rows of the figures of domains and modalities.

domain-layers     how many units of each group a layer has, of all pictures and as each half alone finds them
domain-overlap    which share of a picture's top units lies in each group, found on the other half of the pictures
domain-ablation   what zeroing a group leaves of nouns, in pictures of its domain and in others, beside random units
                  of its own layers; measured by `mmn domains RUN --ablate`, which has `mmn degrade` do it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.names import ABLATE, RANDOM, TOP
from mmn.runs.added_later import example_of
from mmn.statistics.intervals import interval_table
from mmn.store import Store
from mmn.store.generality import SHARE
from mmn.store.rankings import d_experts
from mmn.store.unit_rankings import facts_of
from mmn.studies.degradation.curves import curves
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.studies.domains.groups import WEIGHTS, WEIGHTS_WITHOUT, Group, groups
from mmn.studies.domains.measured import HALVES, Measured, groups_of_halves, half_of, stability
from mmn.studies.domains.membership import every_domain
from mmn.studies.domains.queries import DomainQueries
from mmn.studies.domains.sets import sets_of
from mmn.studies.domains.words import BYS, DAPE, EVERY, RULE_WORDS, TOKENS
from mmn.units.parts import Parts, layers_alike, parts_of
from mmn.units.sets import UnitSet

OWN, OTHER, ALL = "its domain", "other domains", "all pictures"


@dataclass(frozen=True)
class Found:
    """What a view chooses of a run's measurement, and the groups that come of it."""

    store: Store
    run: Mapping[str, Any]
    by: str
    rule: str

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer."""
        return self.measured.widths

    @cached_property
    def parts(self) -> Parts:
        """Among which units chance is taken: those of a layer, or of an expert."""
        experts = d_experts(self.run)
        return parts_of(self.widths, experts) if experts else layers_alike(len(self.widths), max(self.widths))

    @cached_property
    def measured(self) -> Measured:
        return self.store.ask(DomainQueries).measured(self.run_id, self.by)

    @cached_property
    def groups(self) -> list[Group]:
        return groups(self.rule, self.measured.rates)

    @cached_property
    def of_halves(self) -> dict[int, list[Group]]:
        """The groups that each half of the pictures finds."""
        queries = self.store.ask(DomainQueries)
        return groups_of_halves(self.rule, {half: queries.half(self.run_id, self.by, half) for half in HALVES})

    @cached_property
    def sets(self) -> dict[str, UnitSet]:
        """The groups as sets of units."""
        return sets_of(self.groups, self.rule, self.by, facts_of(dict(self.run)), self.run_id)

    def of_picture(self, image_ids: pd.Series, names: pd.Series) -> pd.Series:
        """Whether each picture is one of the group's domain; groups of token sets have all pictures."""
        if self.rule != DAPE:
            return pd.Series(ALL, index=image_ids.index)
        is_own = [(image_id, name) in self._members for image_id, name in zip(image_ids, names, strict=True)]
        return pd.Series([OWN if own else OTHER for own in is_own], index=image_ids.index)

    @cached_property
    def _members(self) -> set[tuple[str, str]]:
        """(picture, domain) of the run's pictures, those that were not counted, too."""
        examples = [example_of(one) for one in self.store.table(self.run_id, "image").to_dict("records")]
        rows = self.store.ask(DomainQueries).said(self.run_id)
        said = {str(image_id): set(of["lemma"]) for image_id, of in rows.groupby("image_id")}
        own = self.store.ask(DomainQueries).own(self.run_id, self.by)
        domains = every_domain(self.by, examples, said, sorted(own))
        return {(image_id, name) for name, pictures in domains.items() for image_id in pictures}

    @property
    def told(self) -> list[str]:
        """The rule and the sample, as lines for a subtitle."""
        n = counted(self.measured.n_images[EVERY], "picture")
        tokens = ", ".join(f"{n_tokens:,} {name}" for name, n_tokens in self.measured.n_tokens.items())
        return [f"n = {n}, {tokens} tokens", self._rule]

    @property
    def _rule(self) -> str:
        if self.rule == DAPE:
            domains = f"{counted(len(self.measured.rates.domains), 'domain')} by {self.by}"
            return f"MMNeuron (code), {domains}: 1 % of lowest entropy, with a rate above 95 % of all"
        if self.rule == TOKENS:
            return "after Xu et al. (rule ours): above 95 % of units' rates at image tokens, text tokens, both"
        weights = WEIGHTS if self.measured.has_attention else WEIGHTS_WITHOUT
        said = ", ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
        return f"MINER (code): 2 % of all units by {said}"


def found(store: Store, asked: Asked) -> Found:
    """What a view means; by what was measured first, and by DAPE, unless it says otherwise.

    Raises:
        UsageError: it was not measured.
    """
    there = store.ask(DomainQueries).grouped_by(asked.run_id)
    if not there:
        raise UsageError(f"run {asked.run_id} was not measured: mmn domains {asked.run_id[:8]} does that")
    by = asked.one("by", "grouping", [one for one in BYS if one in there], asked.view.by or None)
    return Found(store, asked.run, by, asked.view.rule or DAPE)


def domain_layers(store: Store, asked: Asked) -> Rows:
    """Units of each group in each layer, of all pictures and of each half.

    Raises:
        UsageError: not measured; DAPE of one domain; no unit passes.
    """
    what = found(store, asked)
    rows = layer_rows(what)
    return Rows(rows, asked.run | {"n_images": what.measured.n_images[EVERY]}, _words(what))


def layer_rows(what: Found) -> pd.DataFrame:
    """Returns group, layer, n_units, uniform (had all layers the same share of theirs), half_0 and half_1 (as each half
    finds it).
    """
    n_layers = len(what.widths)
    _require_groups(what)
    shares = np.array(what.widths) / sum(what.widths)
    parts = [_per_layer(one, n_layers).assign(uniform=len(one.units) * shares) for one in what.groups]
    for half, of_half in what.of_halves.items():
        there = {one.name: one for one in of_half}
        for part in parts:
            name = part["group"].iloc[0]
            alone = _per_layer(there[name], n_layers)["n_units"] if name in there else float("nan")
            part[f"half_{half}"] = alone
    return pd.concat(parts, ignore_index=True)


def _per_layer(group: Group, n_layers: int) -> pd.DataFrame:
    layers = [one.layer for one in group.units]
    counts = [layers.count(layer) for layer in range(n_layers)]
    return pd.DataFrame({"group": group.name, "layer": range(n_layers), "n_units": counts})


def domain_overlap(store: Store, asked: Asked) -> Rows:
    """Shares of pictures' top units in each group, by score, beside random units of the same layers.

    Raises:
        UsageError: not measured; several k, or more than the run stored; no half of the pictures finds a group.
    """
    what = found(store, asked)
    ks = asked.ks((SHARE,))
    if len(ks) > 1 or ks[0] > asked.stored_k:
        raise UsageError(
            f"domain-overlap draws one k of at most {asked.stored_k}, the units per noun that the run stored"
        )
    data = overlap_rows(what, ks[0])
    run = asked.run | {"n_images": int(data["n"].max())}
    return Rows(data, run, _words(what) | {"k": ks[0]})


def overlap_rows(what: Found, k: int) -> pd.DataFrame:
    """Returns group, method, mean, low, high, n, matched, uniform.

    A picture is judged with the groups that the other half found. Of domains the group is `OWN` (those that the picture
    belongs to) or `OTHER`, each the mean over its domains: one has too few units to be told alone. `matched` is what as
    many random units of the top's own layers would share, of experts those of its own experts, `uniform` those of all.
    """
    parts = [_shared(what, k, half, of_half) for half, of_half in what.of_halves.items() if of_half]
    if not parts:
        raise UsageError("no half of the pictures finds a group of units alone: measure more pictures")
    rows = pd.concat(parts, ignore_index=True)
    by = ["group", "method"]
    told = interval_table(rows, by, "share").merge(rows.groupby(by)[["matched", "uniform"]].mean().reset_index(), on=by)
    places = {name: place for place, name in enumerate([OWN, OTHER, *(one.name for one in what.groups)])}
    known = told[told["group"].isin(places)]
    return known.sort_values("group", key=lambda names: names.map(places), kind="stable", ignore_index=True)


def _shared(what: Found, k: int, half: int, of_half: Sequence[Group]) -> pd.DataFrame:
    """Shares of the pictures outside a half, by the groups that it found."""
    members = pd.DataFrame(
        [(one.name, unit.layer, unit.unit) for one in of_half for unit in one.units],
        columns=["group_name", "layer", "unit"],
    )
    parts = pd.concat([_part_shares(what, one) for one in of_half])
    rows = what.store.ask(DomainQueries).shared_tops(what.run_id, k, members, parts)
    rows = rows[[half_of(image_id) != half for image_id in rows["image_id"]]].rename(columns={"group_name": "group"})
    sizes = {one.name: len(one.units) / sum(what.widths) for one in of_half}
    rows = rows.assign(uniform=rows["group"].map(sizes))
    return rows.assign(group=what.of_picture(rows["image_id"], rows["group"])) if what.rule == DAPE else rows


def _part_shares(what: Found, group: Group) -> pd.DataFrame:
    """Returns group_name, layer, expert (-1 in a layer without), part: which share of its units is in the group."""
    parts, d_mlp = what.parts, max(what.widths)
    experts = np.array(d_experts(what.run) or [0] * len(what.widths))
    first = np.flatnonzero(np.diff(parts.of_unit, prepend=-1))  # parts are numbered in the order of their units
    counts = np.bincount(parts.of_unit[[one.layer * d_mlp + one.unit for one in group.units]], minlength=len(first))
    number = first % d_mlp // np.maximum(experts[parts.layers], 1)
    columns = {"group_name": group.name, "layer": parts.layers, "part": counts / parts.sizes}
    return pd.DataFrame(columns).assign(expert=np.where(experts[parts.layers] > 0, number, -1))


def domain_ablation(store: Store, asked: Asked) -> Rows:
    """What is left of nouns when a group is zeroed, beside random units of its layers.

    Raises:
        UsageError: not measured, with the command that does.
    """
    what = found(store, asked)
    data = ablation_rows(what)
    if data.empty:
        raise UsageError(
            f"no group of run {what.run_id} was zeroed by this rule: mmn domains {what.run_id[:8]} --by {what.by} "
            f"--ablate --rules {what.rule} does that"
        )
    return Rows(data, asked.run | {"n_images": int(data["n"].max())}, _words(what))


def ablation_rows(what: Found) -> pd.DataFrame:
    """Returns group, pictures, selection (`top` is the group, `random` its control), k, mean, low, high, n.

    mean is the probability of a picture's nouns as a share of the untouched model's; empty where no group was zeroed.
    """
    effects = what.store.ask(EffectQueries)
    named = {one.digest: name for name, one in what.sets.items()}  # whatever the set of these units is called
    there = effects.settings(what.run_id)["method"].unique()
    names = {label: named[digest] for label in there if (digest := label.rpartition("@")[2]) in named}
    columns = ["group", "pictures", "selection", "k", "mean", "low", "high", "n"]
    if not names:
        return pd.DataFrame(columns=columns)
    means = effects.means(what.run_id, EffectFilter(ABLATE, tuple(names)))
    sizes = {label: len(what.sets[name].units) for label, name in names.items()}
    means = means[means["selection"].isin((TOP, RANDOM)) & (means["k"] == means["method"].map(sizes))]
    if means.empty:
        return pd.DataFrame(columns=columns)
    means = means.assign(group=means["method"].map(names))
    means = means.assign(pictures=what.of_picture(means["image_id"], means["group"]))
    parts = [curves(of, "relative").assign(pictures=pictures) for pictures, of in means.groupby("pictures")]
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(group=rows["method"].map(names))
    return _in_order(rows[columns], what)


def group_table(what: Found) -> pd.DataFrame:
    """Returns group, n_units, n_images, again and chance (`measured.stability`), set (its name), first (units)."""
    _require_groups(what)
    rows = []
    for one in what.groups:
        held = stability(one.name, what.of_halves, what.parts, max(what.widths))
        n = what.measured.n_images.get(one.name if what.rule == DAPE else EVERY, 0)
        rows.append(
            {
                "group": one.name,
                "n_units": len(one.units),
                "n_images": n,
                "again": held.again,
                "chance": held.chance,
                "set": what.sets[one.name].name,
                "first": ", ".join(map(str, one.units[:5])),
            }
        )
    return pd.DataFrame(rows)


def _require_groups(what: Found) -> None:
    if not what.groups:
        raise UsageError(f"no unit of run {what.run_id} passes by this rule ({RULE_WORDS[what.rule]})")


def _words(what: Found) -> dict[str, Any]:
    return {"rule": RULE_WORDS[what.rule], "told": what.told}


def _in_order(rows: pd.DataFrame, what: Found) -> pd.DataFrame:
    """`rows` with the groups as the rule lists them."""
    place = {one.name: number for number, one in enumerate(what.groups)}
    known = rows[rows["group"].isin(place)]
    order = known["group"].map(place)
    return known.assign(_place=order).sort_values("_place", kind="stable", ignore_index=True).drop(columns="_place")
