"""A view is the same in an address, in flags and in JSON."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.names import SIGMA_UNITS, WORD_ROWS
from mmn.view import AGAINST, FOUND_ON, MEASURES, NOUNS, QUANTITIES, SPELLINGS, UNITS, View, flag_of

WORD = st.text("abcdefghijklmnopqrstuvwxyzäß:-0123456789", min_size=1, max_size=12)
SHARES = st.integers(1, 1000).map(lambda n: n / 1000)


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


def several(one: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(one, max_size=3, unique=True).map(tuple)


def maybe(*options: str) -> st.SearchStrategy:
    return st.sampled_from(["", *options])


VIEWS = st.builds(
    View,
    run=st.just("") | WORD,
    methods=several(WORD),
    ks=several(st.integers(0, 10**9 - 1)),
    shares=several(SHARES),
    concepts=several(WORD),
    layers=st.none() | st.tuples(st.integers(0, 50), st.integers(50, 99)),
    quantity=maybe(*QUANTITIES),
    units=maybe(*UNITS),
    generality=st.none() | SHARES,
    words_by=maybe(*WORD_ROWS),
    control=st.booleans(),
    image=st.just("") | WORD,
    noun=st.just("") | WORD,
    rival=st.just("") | WORD,
    grey=st.booleans(),
    neuron=st.none() | st.builds(Neuron, st.integers(0, 99), st.integers(0, 10**5)),
    metric=several(WORD),
    most=st.none() | st.integers(1, 99),
    pictures=st.none() | st.integers(2, 99),
    found_on=maybe(*FOUND_ON),
    nouns=maybe(*NOUNS),
    measure=maybe(*MEASURES),
    against=maybe(*AGAINST),
    sigma_unit=maybe(*SIGMA_UNITS),
    edit=st.just("") | WORD,
    compare=st.just("") | WORD,
    token=st.none() | st.integers(0, 10**9 - 1),
    zoom=st.none() | st.tuples(st.sampled_from([1.0, 1.5, 16.0]), st.sampled_from([0.0, 0.333, 1.0]), st.just(0.5)),
    averaged=st.none() | st.integers(1, 99),
    beside=st.none() | st.integers(1, 99),
)


@UNHURRIED
@given(VIEWS)
def test_a_view_is_the_same_in_all_three_spellings(view: View) -> None:
    assert View.from_address(view.to_address()) == view
    assert View.from_json(view.to_json()) == view
    flags = dict.fromkeys(SPELLINGS)
    words = iter(view.to_flags())
    names = {flag_of(name): name for name in SPELLINGS}
    for flag in words:
        name = names[flag]
        flags[name] = True if SPELLINGS[name].is_switch else next(words)
    assert View.from_flags(flags) == view


@UNHURRIED
@given(VIEWS)
def test_nothing_that_was_not_chosen_is_written(view: View) -> None:
    assert set(json.loads(view.to_json())) == set(view.given())
    assert len(view.to_address()) <= len(view.given())
    assert View().to_address() == {}
    assert View().to_flags() == []


@UNHURRIED
@given(st.dictionaries(st.sampled_from([*SPELLINGS, "method", "k", "show", "ranking", "led"]), st.lists(st.text())))
def test_an_address_of_anything_means_something_or_nothing(parameters: dict[str, list[str]]) -> None:
    view = View.from_address(parameters)
    assert View.from_address(view.to_address()) == view


def test_an_address_is_spelled_as_the_widgets_of_pages_read_it() -> None:
    view = View(methods=("a", "b"), ks=(43,), shares=(0.014,), concepts=("dog",), layers=(1, 3), quantity="share")
    assert view.to_address() == {
        "method": ["a", "b"],
        "k": ["43", "1.4 %"],
        "concept": ["dog"],
        "layers": ["1", "3"],
        "show": ["share"],
    }


def test_the_labels_of_pages_and_of_old_addresses_mean_the_same() -> None:
    old = {
        "run": ["specimen gallery 69e7f985"],
        "ranking": ["attribution"],
        "k": ["43 (1.4 %)", "5 %"],
        "concept": ["dog (12)", "cat"],
        "led": ["1", "3"],
        "show": ["count"],
        "units": ["not interpretable"],
        "picture": ["A dog on a beach. · 00179761acc8"],
        "nouns": ["the first one"],
        "noisy": ["captions that lose the noun"],
        "axis": ["σ"],
        "found": ["Chosen on this picture (P2)"],
        "control": ["false"],
    }
    assert View.from_address(old) == View(
        run="69e7f985",
        methods=("attribution",),
        ks=(43,),
        shares=(0.05,),
        concepts=("dog", "cat"),
        layers=(1, 3),
        quantity="distinct",
        units="not-interpretable",
        image="00179761acc8",
        nouns="first",
        measure="lost",
        against="sigma",
        found_on="same",
        control=False,
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layers": "3-1"}, "--layers 3-1: give FIRST-LAST"),
        ({"ks": "43,x"}, "--ks x: give a whole number"),
        ({"shares": "1.4"}, "--shares 1.4: give a share"),
        ({"neuron": "3.4"}, "--neuron 3.4: '3.4' is not a unit"),
        ({"quantity": "many"}, "--quantity many: give one of per-picture, distinct, share"),
        ({"generality": "10"}, "--generality 10: give a share"),
        ({"words_by": "whitened"}, "--words-by whitened: give one of raw, centred, cosine"),
        ({"most": "0"}, "--most 0: give a whole number, at least 1"),
    ],
)
def test_a_flag_that_means_nothing_is_refused_by_name(given: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        View.from_flags(given)


@pytest.mark.parametrize("text", ["[]", "{", '{"k": 1}', '{"run": ["a", "b"]}', '{"layers": "x"}'])
def test_json_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        View.from_json(text)
