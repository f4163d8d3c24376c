"""Concepts: which words are nouns, which token stands for each, and that any tokenizer's offsets come out right."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from mmn.core import Concept
from mmn.errors import UsageError
from mmn.reading.concepts import GeneratedCaption, find_concepts, target_concept, token_ends_of
from mmn.reading.nouns import TAGGER_VERSION, NounSpan, lemma_of, tag_nouns
from mmn.specimen.world import IRREGULAR_PLURALS, NOUNS, PLACES, caption_of, plural, sample_scene, with_article


def caption_from(*pieces: str) -> GeneratedCaption:
    """A caption whose tokens are `pieces`; equal pieces are equal tokens."""
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    ends = [sum(map(len, pieces[: index + 1])) for index in range(len(pieces))]
    return GeneratedCaption("".join(pieces), tuple(ids[piece] for piece in pieces), tuple(ends))


def concepts(*pieces: str, references: tuple[str, ...] = ()) -> dict[str, Concept]:
    return {concept.lemma: concept for concept in find_concepts(caption_from(*pieces), references)}


def lemmas(text: str) -> list[str]:
    return [span.lemma for span in tag_nouns(text)]


def test_position_is_the_token_of_the_first_character_and_flags_follow():
    found = concepts("a", " tele", "phone", " and", " two", " tele", "vision", "s", " on", " the", " grass", ".")
    assert list(found) == ["telephone", "television", "grass"]
    telephone, television, grass = found.values()
    assert (telephone.position, television.position, grass.position) == (1, 5, 10)
    assert telephone.token_id == television.token_id != grass.token_id
    assert (telephone.is_shared_token, television.is_shared_token, grass.is_shared_token) == (True, True, False)
    assert (telephone.is_multi_token, television.is_multi_token, grass.is_multi_token) == (True, True, False)
    assert (telephone.is_first, television.is_first, grass.is_first) == (True, False, False)
    assert (television.noun, television.n_mentions, television.is_in_reference) == ("televisions", 1, None)
    assert all(concept.target_at is None for concept in found.values())


def test_one_concept_per_lemma_with_its_first_form():
    found = concepts("Books", " beside", " a", " book", " and", " two", " books", ".")
    assert list(found) == ["book"]
    assert (found["book"].noun, found["book"].n_mentions, found["book"].position) == ("books", 3, 0)
    assert not found["book"].is_shared_token  # with itself does not count


def test_a_noun_inside_an_earlier_word_does_not_move_it():
    """P2's released code searches for the token; 'cat' is also in 'cattle' and the token " the" comes twice."""
    found = concepts("cat", "tle", " near", " the", " cat", " on", " the", " beach")
    assert (found["cat"].position, found["beach"].position) == (4, 7)


def test_a_space_of_its_own_is_not_the_noun():
    found = concepts("a", " ", "dog", " ", "in", " ", "snow")
    assert (found["dog"].position, found["dog"].is_multi_token, found["snow"].position) == (2, False, 6)


def test_a_merge_with_the_word_before_keeps_the_token_that_emits_the_beginning():
    found = concepts("a d", "og", " and a cat", " in snow near a", " tree")
    assert (found["dog"].position, found["dog"].is_multi_token) == (0, True)
    assert (found["cat"].position, found["cat"].is_multi_token) == (2, False)
    two = concepts("a dog and a cat", " here")
    assert [concept.is_shared_token for concept in two.values()] == [True, True]


def test_in_reference_is_by_lemma_and_unknown_without_references():
    pieces = ("two", " dogs", " and", " a", " cat", " on", " skis")
    found = concepts(*pieces, references=("A Dog runs.", "Someone skis; an orange CATERPILLAR"))
    assert [found[lemma].is_in_reference for lemma in ("dog", "cat", "ski")] == [True, False, True]
    assert {concept.is_in_reference for concept in concepts(*pieces).values()} == {None}


def test_references_say_a_noun_by_any_word_for_what_it_means():
    found = concepts("a", " kitten", " and", " a", " hot", " dog", references=("a cat and a dog",))
    assert {lemma: found[lemma].is_in_reference for lemma in ("kitten", "dog")} == {"kitten": True, "dog": False}
    assert concepts("a", " hot", " dog", references=("two hotdogs",))["dog"].is_in_reference
    assert not concepts("a", " dog", references=("a hot dog",))["dog"].is_in_reference


@pytest.mark.parametrize("text", ["", ".", "running quickly and", "12 + 30 = 42 !!", "  ", "\n"])
def test_captions_without_nouns_have_no_concepts(text):
    caption = GeneratedCaption(text, (0,), (len(text),)) if text else GeneratedCaption("", (), ())
    assert find_concepts(caption, ("a dog",)) == ()


def test_the_tagger_is_the_callers():
    def capitals(text: str) -> list[NounSpan]:
        return [NounSpan(i, i + 1, char.lower()) for i, char in enumerate(text) if char.isupper()]

    found = find_concepts(caption_from("aB", "cBD"), ("xB",), tagger=capitals)
    assert [(concept.lemma, concept.position, concept.n_mentions) for concept in found] == [("b", 0, 2), ("d", 1, 1)]
    assert [concept.is_in_reference for concept in found] == [True, False]


def test_offsets_that_do_not_tile_the_text_are_our_bug():
    for ids, ends in [((1,), (2,)), ((1, 2), (3,)), ((1, 2), (3, 2)), ((), ())]:
        with pytest.raises(AssertionError):
            GeneratedCaption("dog", ids, ends)


SENTENCES = [
    ("{a} on the grass.", ("grass",)), ("a big {n} in the snow.", ("snow",)), ("a small {n} on the beach.", ("beach",)),
    ("two {p} in a room.", ("room",)), ("three {p} on the road.", ("road",)),
    ("{a} next to a dog in the sea.", ("dog", "sea")),
    ("a dog next to {a} in the sky.", ("dog", "sky")), ("{a} and a cat in the desert.", ("cat", "desert")),
    ("two {p} next to a cat in the sky.", ("cat", "sky")), ("a dog and two {p} on the road.", ("dog", "road")),
    ("{a}, a dog and a cat in the sea.", ("dog", "cat", "sea")),
    ("a dog, {a} and a cat in a room.", ("dog", "cat", "room")),
    ("a dog, a cat and {a} in the snow.", ("dog", "cat", "snow")), ("{n}", ()), ("{p}", ()), ("{N}.", ()), ("{P}!", ()),
    ("A {N} ON THE GRASS.", ("grass",)), ("the {n}'s name", ("name",)), ("A picture of {a}", ("picture",)),
]  # fmt: skip


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_of_the_specimen_is_found_in_every_form_of_sentence(noun):
    for form, others in SENTENCES:
        many = plural(noun)
        text = form.format(n=noun, a=with_article(noun), p=many, N=noun.capitalize(), P=many.capitalize())
        assert set(lemmas(text)) == {noun, *others}, text


def test_sampled_captions_of_the_specimen_are_read_exactly():
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng)
        text = caption_of(scene)
        assert list(dict.fromkeys(lemmas(text))) == [*dict.fromkeys(scene.nouns), scene.place], text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's tail and the dogs’ bowls", ["dog", "tail", "dog", "bowl"]),
        ("a man’s t-shirt, isn't it?", ["man", "t-shirt"]),
        ("two fire-engines near a fire-engine", ["fire-engine", "fire-engine"]),
        ("A giraffe, some giraffes. Giraffe!", ["giraffe"] * 3),
        ("a café with cafe\u0301s and a piñata", ["café", "café", "piñata"]),
        ("Two Skateboarders on Skis in Paris", ["skateboarder", "ski", "paris"]),
        ("leaves, knives and glasses by the bus", ["leaf", "knife", "glasses", "bus"]),
        ("The Big Next Two Dogs", ["dog"]),
        ("a cactus and three cacti", ["cactus", "cactus"]),
        ("a big orange next to a light brown key in a black and white photo", ["orange", "key", "photo"]),
        ("an orange cat beside the orange", ["cat", "orange"]),
        ("people and children under 3 trees", ["people", "child", "tree"]),
    ],
)
def test_hard_words(text, expected):
    assert lemmas(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a man wearing glasses", ["man", "glasses"]),
        ("a woman with sunglasses, pants and headphones", ["woman", "sunglasses", "pants", "headphones"]),
        ("scissors, jeans, shorts, goggles and binoculars", ["scissors", "jeans", "shorts", "goggles", "binoculars"]),
        ("reading glasses on a glass table", ["glasses", "glass", "table"]),
        ("two glasses and a bottle", ["glass", "bottle"]),
        ("wine glasses", ["wine", "glass"]),
        ("glasses of water", ["glass", "water"]),
        ("a glass", ["glass"]),
    ],
)
def test_glasses_are_no_glass_unless_one_drinks_from_them(text, expected):
    assert lemmas(text) == expected


@pytest.mark.parametrize(
    ("text", "modifiers", "heads"),
    [
        ("a stop sign on the road", ["stop"], ["sign"]),
        ("Stop sign.", [], ["sign"]),  # the tagger takes "stop" for a verb there
        ("two hot dogs on a plate", [], ["dog"]),
        ("a wine glass next to wine glasses", ["wine"], ["glass"]),
        ("an ice cream cone", ["ice", "cream"], ["cone"]),
        ("the dog's tail, cat and mouse", [], []),
        ("a fire-engine in a parking lot", [], ["lot"]),
        ("a dog, a cat on the beach", [], []),
    ],
)
def test_a_hot_dog_is_flagged_and_a_stop_sign_keeps_its_head(text, modifiers, heads):
    found = find_concepts(GeneratedCaption(text, (0,), (len(text),)), ())
    assert [one.lemma for one in found if one.is_modifier] == modifiers
    assert [one.lemma for one in found if one.is_compound and not one.is_modifier] == heads
    assert all(one.is_compound is not None and one.is_modifier is not None for one in found)


def test_irregular_plurals_have_the_worlds_lemma():
    assert {lemma_of(many) for many in IRREGULAR_PLURALS.values()} == set(IRREGULAR_PLURALS)
    assert [lemma_of(place) for place in PLACES] == list(PLACES)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40) | st.lists(st.sampled_from(["dog", "'s", "n't", "-", "’", " ", "é", "Dogs", "1"])).map("".join)
)
def test_any_text_is_tagged_with_spans_in_order_inside_it(text):
    end = 0
    for span in tag_nouns(text):
        assert end <= span.start < span.end <= len(text)
        assert span.lemma == span.lemma.lower() != ""
        end = span.end


def test_the_tagger_is_loaded_once_and_by_any_thread():
    import mmn.reading.nouns as module

    module._loaded_hanta.cache_clear()
    module.lemma_of.cache_clear()
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(lemmas("two mice and a giraffe"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["mouse", "giraffe"]] * 8
    assert module._loaded_hanta.cache_info().misses == 1


def test_a_model_file_in_the_working_directory_is_not_unpickled(tmp_path, monkeypatch):
    import mmn.reading.nouns as module

    (tmp_path / "morphmodel_en.pgz").write_text("not ours")
    monkeypatch.chdir(tmp_path)
    module._loaded_hanta.cache_clear()
    assert lemmas("a dog") == ["dog"]
    assert "HanTa 1." in TAGGER_VERSION
    assert "lemminflect 0." in TAGGER_VERSION


# -- offsets, for four kinds of tokenizer ------------------------------------------------------------------------------

WORDS = ["a", "dog", "cat", "the", "tele", "phone", "on", "grass", "two", "s", "water", "melon"]
SPACE = "▁"


def metaspace(prepend: str = "always") -> Tokenizer:
    """Like Llama's: a space mark, and bytes to fall back on."""
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), (SPACE, -8.0), (".", -5.0)]
    vocabulary += [(SPACE + word, -5.0) for word in WORDS] + [(word, -5.5) for word in WORDS]
    vocabulary += [(f"<0x{value:02X}>", -20.0) for value in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prepend, split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def byte_level() -> Tokenizer:
    """Like GPT-2's: every byte is a letter, a few words are merged."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog"), ("Ġ", "a"), ("c", "a"), ("Ġ", "ca"), ("Ġca", "t")]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *dict.fromkeys(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def word_piece() -> Tokenizer:
    """Like BERT's: no spaces in tokens, specials on both sides."""
    tokens = ["[UNK]", "[CLS]", "[SEP]", ".", *WORDS, *("##" + word for word in WORDS), "<s>"]
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "[CLS]", "[SEP]"])
    return tokenizer


TOKENIZERS = {
    "metaspace": metaspace(),
    "metaspace-first": metaspace("first"),
    "byte-level": byte_level(),
    "word-piece": word_piece(),
}


def generated(tokenizer: Tokenizer, text: str) -> GeneratedCaption:
    ids = tokenizer.encode(text).ids
    decoded, ends = token_ends_of(ids, tokenizer.decode)
    return GeneratedCaption(decoded, tuple(ids), ends)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(
        st.sampled_from([*WORDS, "<s>", "é", "猫", "🐕‍🦺", ".", "\ufffd", "x y"]) | st.text(max_size=4), max_size=8
    )
)
def test_token_spans_tile_the_text_of_any_tokenizer(kind, words):
    caption = generated(TOKENIZERS[kind], " ".join(words))  # the constructor asserts the tiling
    find_concepts(caption, ())


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 250), max_size=20))
def test_token_spans_tile_even_broken_bytes(ids):
    text, ends = token_ends_of(ids, TOKENIZERS["byte-level"].decode)
    GeneratedCaption(text, tuple(ids), ends)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_token_of_a_noun_is_the_one_that_spells_it(kind):
    tokenizer = TOKENIZERS[kind]
    caption = generated(tokenizer, "two dog on the grass.")
    dog = find_concepts(caption, ())[0]
    assert dog.lemma == "dog"
    assert tokenizer.id_to_token(dog.token_id) in (SPACE + "dog", "Ġdog", "dog")
    before = caption.token_ends[dog.position - 1]
    assert caption.text[before : caption.token_ends[dog.position]].strip() == "dog"


@pytest.mark.parametrize("kind", ["metaspace", "byte-level"])
def test_a_noun_that_begins_with_a_character_in_several_bytes_has_the_first_of_them(kind):
    tokenizer = TOKENIZERS[kind]
    caption = generated(tokenizer, "the église")
    start = caption.text.index("é")
    (concept,) = find_concepts(caption, (), tagger=lambda text: [NounSpan(start, len(text), "église")])
    assert tokenizer.id_to_token(concept.token_id) in ("<0xC3>", "Ã")
    assert concept.is_multi_token


def test_specials_that_are_skipped_cover_nothing():
    tokenizer = TOKENIZERS["metaspace"]
    special, the, dog = (tokenizer.get_vocab()[token] for token in ("<s>", SPACE + "the", SPACE + "dog"))
    ids = [special, the, special, dog, special]
    assert token_ends_of(ids, tokenizer.decode) == ("the dog", (0, 3, 3, 7, 7))
    assert token_ends_of([], tokenizer.decode) == ("", ())


# -- targets -----------------------------------------------------------------------------------------------------------


def encoder(tokenizer: Tokenizer):
    return lambda text: tokenizer.encode(text).ids


DOG = Concept("dogs", "dog", 2, 5, 3, True, False, False, True)


@pytest.mark.parametrize(
    ("kind", "word", "token", "is_multi"),
    [
        ("metaspace", "cat", SPACE + "cat", False),
        ("metaspace-first", "cat", SPACE + "cat", False),
        ("byte-level", "cat", "Ġcat", False),
        ("word-piece", "cat", "cat", False),
        ("metaspace", "telephone", SPACE + "tele", True),
        ("metaspace", "zoo", "<0x7A>", True),
        ("word-piece", "telephone", "tele", True),
        ("metaspace", "  cat  dog ", SPACE + "cat", True),
    ],
)
def test_a_target_is_the_token_that_the_word_has_inside_a_caption(kind, word, token, is_multi):
    tokenizer = TOKENIZERS[kind]
    target = target_concept(word, DOG, encoder(tokenizer))
    assert tokenizer.id_to_token(target.token_id) == token
    assert target.is_multi_token == is_multi
    assert (target.target_at, target.position, target.noun) == ("dogs", 3, " ".join(word.split()))
    assert (target.n_mentions, target.is_first, target.is_in_reference) == (0, False, None)


def test_a_target_agrees_with_the_concept_of_the_same_word():
    for kind, tokenizer in TOKENIZERS.items():
        caption = generated(tokenizer, "the telephone and the cat")
        for concept in find_concepts(caption, ()):
            target = target_concept(concept.noun, concept, encoder(tokenizer), ("Two cats",))
            assert (target.token_id, target.lemma, target.n_mentions) == (concept.token_id, concept.lemma, 1), kind
            assert target.is_shared_token
            assert target.is_in_reference == (concept.lemma == "cat")


@pytest.mark.parametrize("word", ["", "  ", "\t\n"])
def test_an_empty_target_is_refused(word):
    with pytest.raises(UsageError, match="choose another word"):
        target_concept(word, DOG, lambda text: [ord(char) for char in text])


def test_a_target_without_a_token_is_refused():
    with pytest.raises(UsageError, match="no token"):
        target_concept("dog", DOG, lambda _: [1])
    with pytest.raises(UsageError, match="merges"):
        target_concept("dog", DOG, lambda text: [hash(text)])
