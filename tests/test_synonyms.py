"""The list that ships, what a user's file does to it, and which object a noun has the mask of."""

import numpy as np
import pytest

from mmn.errors import MmnError
from mmn.reading.concepts import mentioned_names
from mmn.reading.nouns import lemma_of
from mmn.reading.synonyms import NO_SYNONYMS, Name, Synonyms, read_synonyms, shipped_synonyms
from mmn.units.masks import MaskSource, Outlines


def test_the_list_that_ships_is_of_lemmas_and_of_coco_s_objects():
    shipped = shipped_synonyms()
    assert len(shipped.objects) == 80
    assert {"person", "dining table", "cell phone", "ski", "hair drier", "hot dog"} <= shipped.objects
    assert [one for one in shipped.object_of if lemma_of(one) != one] == []
    assert all(shipped.meaning(name) == name for name in shipped.objects)
    told = {"men": "person", "puppies": "dog", "sofa": "couch", "table": "dining table", "fridge": "refrigerator"}
    assert {word: shipped.meaning(lemma_of(word)) for word in told} == told
    assert not any(map(shipped.is_listed, ("sky", "day", "photo", "hot", "light", "glass")))


def test_names_of_several_words_come_before_their_words():
    shipped = shipped_synonyms()
    said = list(shipped.names("Two hot dogs, a dog; baby elephants under a Traffic light"))
    assert [one.name for one in said if len(one.parts) > 1] == ["hot dog", "baby elephant", "traffic light"]
    assert Name(("dog",), "dog") in said
    assert shipped.mentions("an orange hot dog and hot-dogs", ["dog", "hot-dog"]) == ["hot dog", "hot-dog"]
    assert shipped.senses("a hot dog", ["dog", "hot"]) == {"dog": "hot dog", "hot": None}
    assert shipped.senses("a hot dog and a dog", ["dog"]) == {"dog": "dog"}


def test_references_mention_what_a_name_is_made_of_unless_that_is_another_object():
    told = mentioned_names(("A hot dog and a wine glass.", "Ein Hund."), shipped_synonyms()) or frozenset()
    assert {"hot dog", "wine glass", "glass"} <= told
    assert "dog" not in told
    assert "dog" in (mentioned_names(("A dog eats a hot dog.",), shipped_synonyms()) or ())
    assert mentioned_names((), shipped_synonyms()) is None


def test_a_file_adds_to_the_list_or_takes_its_place(tmp_path):
    file = tmp_path / "words.csv"
    file.write_text("Word,Object\r\n\r\nDoggos,Dogs\nman,man\nsky scrapers,building\n", encoding="utf-8-sig")
    added = read_synonyms(str(file))
    assert {word: added.meaning(word) for word in ("doggo", "puppy", "man", "woman", "sky scraper")} == {
        "doggo": "dog",
        "puppy": "dog",
        "man": "man",
        "woman": "person",
        "sky scraper": "building",
    }
    only = read_synonyms(f"only:{file}")
    assert only.objects == {"dog", "man", "building"}
    assert only.meaning("puppy") == "puppy"
    assert read_synonyms("none") == NO_SYNONYMS
    assert len({one.digest for one in (added, only, shipped_synonyms(), NO_SYNONYMS)}) == 4


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "does not begin with 'word,object'"),
        (b"puppy,dog\n", "does not begin with 'word,object'"),
        (b"[1, 2]", "does not begin with 'word,object'"),
        (b"\xff\xfe\x00", "is no CSV in UTF-8"),
        (b'word,object\n"puppy,dog', "is no CSV in UTF-8"),
        (b"word,object\n", "has no words"),
        (b"word,object\npuppy\n", "line 2: 'puppy' is no pair"),
        (b"word,object\npuppy,\n", "line 2: 'puppy,' is no pair"),
        (b"word,object\na,b,c\n", "line 2: 'a,b,c' is no pair"),
        (b"word,object\nx,dog\nx,cat\n", "line 3: 'x' means 'dog' already"),
        (b"word,object\nx,puppy\n", "'puppy', which itself is a word for 'dog'"),
        (None, "is no file of synonyms"),
    ],
)
def test_garbage_is_refused_with_what_to_do(tmp_path, data, why):
    file = tmp_path / "words.csv"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(MmnError) as told:
        read_synonyms(str(file))
    assert why in str(told.value)
    assert "\n" not in str(told.value)


def test_a_noun_has_the_mask_of_the_object_that_it_means_and_only_where_no_mask_bears_its_name():
    masks = {"person": np.ones((2, 2), bool), "dog": np.zeros((2, 2), bool)}
    source = MaskSource("", lambda _: Outlines(masks), objects=frozenset(masks), synonyms=shipped_synonyms())
    found = source.masks_for("men", masks)
    assert (set(found), found["man"] is masks["person"]) == ({"man", "dog"}, True)
    assert source.masks_for("dogs", masks) == masks
    assert source.by_synonyms(["man", "dog", "cat", "puppies"]) == [("man", "person"), ("puppy", "dog")]
    own = MaskSource(
        "", lambda _: Outlines(masks), objects=frozenset({"man", "person"}), synonyms=Synonyms({"man": "person"})
    )
    assert own.object_of("man") == "man"
