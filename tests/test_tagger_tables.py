"""The packed tables hold what HanTa's, lemminflect's and ours held as dictionaries and sets, entry by entry."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from HanTa import HanoverTagger
from hypothesis import given
from hypothesis import strategies as st
from lemminflect.codecs.LemmaLUCodec import LemmaLUCodec
from lemminflect.config import lemma_lu_fn

from mmn.reading import nouns
from mmn.reading.sorted_lines import SortedEntries, SortedWords
from mmn.reading.tagger_tables import Transitions, known_lemmas, shrink_hanta

WORDS = st.lists(st.text(st.characters(exclude_characters="\t", codec="utf-8"), min_size=1, max_size=4), max_size=30)


@given(WORDS, st.text(max_size=4))
def test_sorted_words_are_a_set(words, other):
    found = SortedWords(set(words))
    assert set(found) == set(words)
    assert len(found) == len(set(words))
    assert all(word in found for word in words)
    assert (other in found) == (other in words)


@given(WORDS)
def test_sorted_entries_are_a_mapping_even_of_words_that_begin_alike(words):
    entries = {word: [f"{index}", word] for index, word in enumerate(dict.fromkeys(words))}
    found = SortedEntries((f"{word}\t{part}" for word, parts in entries.items() for part in parts), sorted)
    assert dict(found) == {word: sorted(parts) for word, parts in entries.items()}
    assert found.get("\t", "nothing") == "nothing"


def test_hantas_tables_are_the_same_packed():
    path = Path(HanoverTagger.__file__).with_name("morphmodel_en.pgz")
    plain, packed = HanoverTagger.HanoverTagger(str(path)), HanoverTagger.HanoverTagger(str(path))
    shrink_hanta(packed)
    assert isinstance(packed.LP_trans_word, Transitions)
    assert isinstance(packed.cache, SortedEntries)
    assert dict(packed.LP_trans_word) == plain.LP_trans_word
    assert [list(row) for row in packed.LP_trans_word.values()] == [list(row) for row in plain.LP_trans_word.values()]
    assert dict(packed.cache) == plain.cache


def test_lemminflects_dictionary_is_the_same_packed():
    assert dict(known_lemmas(Path(lemma_lu_fn))) == LemmaLUCodec.load(lemma_lu_fn)


def test_the_tagger_asks_the_packed_tables():
    nouns.lemma_of("dogs")
    assert isinstance(nouns._lemminflect().Lemmatizer().lemma_dict, SortedEntries)
    assert isinstance(nouns._hanta().cache, SortedEntries)


def test_states_of_different_tags_are_left_as_they_are():
    rows = {(0, 1): {1: -1.0}, (1, 1): {2: -1.0}}
    tagger = SimpleNamespace(LP_trans_word=rows)
    shrink_hanta(tagger)
    assert tagger.LP_trans_word is rows
    with pytest.raises(AssertionError, match="different tags"):
        Transitions(rows)
