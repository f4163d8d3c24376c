"""Is a text English? Nouns are sought in English captions alone; another language is told, and nothing made of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mmn.core import ScoreSettings
from mmn.images import list_source
from mmn.models.model import Model
from mmn.reading import captions
from mmn.reading.concepts import GeneratedCaption, find_concepts
from mmn.reading.language import is_english
from mmn.runs.engines.local import Opened, open_batch, score_opened
from mmn.runs.plan import Batch
from mmn.scores import batch
from mmn.specimen.world import caption_of, sample_scene
from tests.test_engine import planned

FOREIGN = """
Eine Frau hält einen Regenschirm. | Zwei Elefanten im Wasser | Ein Bus steht an der Haltestelle
Ein Löffel liegt neben einer Tasse Kaffee | Surfer auf einer Welle | Une femme tient un parapluie.
Deux éléphants dans l'eau | Un bus à l'arrêt | Une cuillère à côté d'une tasse de café | Surfeur sur une vague
Una mujer sostiene un paraguas. | Dos elefantes en el agua | Un autobús en la parada | Surfista en una ola
Una donna tiene un ombrello. | Due elefanti nell'acqua | Un autobus alla fermata | Una tazza di caffè
Uma mulher segura um guarda-chuva. | Dois elefantes na água | Um ônibus no ponto | Een kop koffie
Een vrouw houdt een paraplu vast. | Twee olifanten in het water | En kvinna håller ett paraply
Två elefanter i vattnet | To elefanter i vandet | En kop kaffe | Kobieta trzyma parasol | Dwa słonie w wodzie
Žena drží deštník | Bir kadın şemsiye tutuyor | İki fil suda | Seorang wanita memegang payung | Dua gajah di air
Nainen pitää sateenvarjoa | Egy nő esernyőt tart | O femeie ține o umbrelă | Một người phụ nữ cầm ô
一个女人拿着伞 | 水の中の二頭の象 | 물속의 코끼리 두 마리 | Женщина держит зонт | امرأة تحمل مظلة
औरत छाता पकड़े हुए है | ผู้หญิงถือร่ม | Γυναίκα κρατά ομπρέλα | אישה מחזיקה מטריה
"""
ENGLISH = """
A man riding a wave on top of a surfboard. | a group of people flying kites | two giraffes | dog | A STOP SIGN | STOP
Pikachu and Charmander at Comic-Con | The Eiffel Tower in Paris at night | a taco, a burrito and guacamole
Vincent van Gogh's Starry Night | Hagia Sophia, Istanbul | spaghetti carbonara | a café in Montmartre | 2 x 3 = 6
Skiers on a chairlift in Zermatt | A bento box with edamame and onigiri | Los Angeles skyline | Machu Picchu in Peru
a Le Creuset pot | A man in lederhosen at Oktoberfest | Man vs. food | a chow chow | ukulele | Santa Claus | "" | ...
a plate of gnocchi alla romagnola | the the the the | a piñata at a fiesta | Queen Elizabeth II | Yoda
"""


def texts_of(told: str) -> list[str]:
    return [text.strip() for line in told.strip().splitlines() for text in line.split(" | ")]


def test_foreign_captions_are_told_from_english_ones() -> None:
    """4 of these 48 were missed at first sight, before two numbers (twee, tre) joined the lists of little words."""
    missed = [text for text in texts_of(FOREIGN) if is_english(text)]
    assert len(missed) <= 0.1 * len(texts_of(FOREIGN)), missed


@pytest.mark.parametrize("text", texts_of(ENGLISH))
def test_names_and_dishes_are_not_called_foreign(text: str) -> None:
    assert is_english(text)


def test_no_caption_of_the_specimen_is_called_foreign() -> None:
    rng = random.Random(0)
    assert all(is_english(caption_of(sample_scene(rng))) for _ in range(500))


@pytest.mark.parametrize(
    "text", ["ein Hund und eine Katze am Strand.", "一只狗和一只猫在沙滩上。", "un chien et un chat"]
)
def test_no_nouns_are_made_of_a_foreign_caption(text: str) -> None:
    assert find_concepts(one_token(text), ()) == ()


def test_references_in_another_language_do_not_call_a_noun_unsaid() -> None:
    caption = one_token("a dog on the beach")
    german, english = "ein Hund am Strand und eine Katze", "a dog"
    assert [one.is_in_reference for one in find_concepts(caption, (german,))] == [None, None]
    assert [one.is_in_reference for one in find_concepts(caption, (german, english))] == [True, False]


def test_a_foreign_caption_is_a_failure_that_says_so_beside_pictures_that_do_not_open(
    tiny: Model, pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = "ein Hund und eine Katze"
    whole = captions.caption_encoded

    def speak_german(*arguments, **options):
        batch = whole(*arguments, **options)
        told = replace(one_token(german), token_ids=batch.captions[0].token_ids[:1])
        return replace(batch, captions=(told, *batch.captions[1:]))

    monkeypatch.setattr(batch, "caption_encoded", speak_german)
    opened = open_batch(Batch("b", list_source(str(pictures)).examples[:4]))
    missing = replace(opened.examples[3], source="gone.png")
    some = Opened(opened.batch, opened.examples[:3], opened.images[:3], open_batch(Batch("b", (missing,))).failures)
    run = planned(tiny, pictures).run
    tables = score_opened(replace(run, settings=ScoreSettings("A picture of", top_k=5)), tiny, some)
    there, not_english = tables["failure"].to_pylist()
    assert (there["stage"], there["source"]) == ("open", "gone.png")
    assert (not_english["stage"], not_english["source"]) == ("caption", opened.examples[0].source)
    assert not_english["error"] == "LanguageError"
    assert f"“{german}” is not English" in not_english["message"]
    assert tables["caption"]["text"].to_pylist()[0] == german
    assert opened.examples[0].image_id not in set(tables["concept"]["image_id"].to_pylist())


def one_token(text: str) -> GeneratedCaption:
    return GeneratedCaption(text, (0,), (len(text),))
