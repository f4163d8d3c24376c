"""Metrics of texts and pictures: hand-checked values, a plain second version, and what the bert-score package says."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from mmn.errors import ModelError, UsageError
from mmn.metrics import ImageMetric, Lexical, WordF1, find_metric, find_text_metric
from mmn.metrics.bertscore import BertScore
from mmn.metrics.clipscore import ClipScore
from mmn.metrics.encoders import Encoded
from mmn.specimen import MODEL_PATH
from tests.tiny_metrics import save_tiny_bert, save_tiny_clip

ROUNDING = 1e-6  # float32 sums in another order; the requirement, too
TEXTS = (
    "a dog on the beach.",
    "two cats on the grass",
    "umbrella rocket , camel running",
    "dog",
    "unbelievable dogs running next",
    "camel " * 30,  # is cut at 24 tokens
    "",
    " zzz",
)
PAIRS = [pair for pair in itertools.product(TEXTS, repeat=2) if pair != ("", "")]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("metrics") / "tiny-bert")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("metrics") / "tiny-clip")


# ---- without a model


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("A dog.", "a dog", 1.0),
        ("a dog and a cat", "a dog", 4 / 7),
        ("a a", "a", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("", "cat", 0.0),
        ("Ein Bär", "ein bär", 1.0),
    ],
)
def test_word_f1(one: str, other: str, expected: float) -> None:
    assert WordF1().compare([one], [other]) == pytest.approx([expected])
    assert WordF1().compare([other], [one]) == pytest.approx([expected])


@pytest.mark.parametrize(
    ("words", "reference", "expected"),
    [
        ("umbrella Dog rocket", "dog", 1.0),
        ("umbrella dogs rocket", "dog", 1.0),  # by their lemma
        ("umbrella dog rocket", "two dogs", 1.0),
        ("leaf", "the leaves", 1.0),
        ("dog,", "a dog.", 1.0),
        ("dog's", "a dog", 1.0),
        ("gir affe heli copter", "a giraffe and a helicopter", 0.0),  # pieces are no words
        ("hotdog", "dog", 0.0),
        ("a on the in of , . </s>", "a dog on the beach, in the sea.", 0.0),  # function words and signs
        ("t", "a t-shirt", 0.0),
        ("t-shirt", "a t-shirt", 1.0),
        ("3", "3 dogs", 0.0),
        ("", "dog", 0.0),
        ("dog", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_lexical(words: str, reference: str, expected: float) -> None:
    assert Lexical().compare([words], [reference]) == [expected]


def test_metrics_without_a_model_load_nothing_heavy() -> None:
    program = "import sys\nfrom mmn.metrics import find_metric\nfor n in 'lexical', 'word-f1': find_metric(n)\n"
    program += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False).returncode == 0


# ---- by name


def test_names_carry_model_layer_and_version_and_no_path(bert: Path, clip: Path) -> None:
    digits = "[0-9a-f]{12}"
    expected = {
        "lexical": "lexical-v1",
        "word-f1": "word-f1-v1",
        f"bertscore:{bert}": f"bertscore:tiny-bert@{digits}:L3:v1",
        f"bertscore:{bert}:2": f"bertscore:tiny-bert@{digits}:L2:v1",
        f"bertscore:{bert}/": f"bertscore:tiny-bert@{digits}:L3:v1",
        f"clipscore:{clip}": f"clipscore:tiny-clip@{digits}:v1",
    }
    for text, name in expected.items():
        assert re.fullmatch(name, find_metric(text, "cpu").name), text


def test_another_model_of_the_same_name_is_another_metric(bert: Path, tmp_path: Path) -> None:
    other = save_tiny_bert(tmp_path / "tiny-bert", seed=1)
    copy = Path(shutil.copytree(bert, tmp_path / "elsewhere" / "tiny-bert"))
    names = [find_metric(f"bertscore:{path}", "cpu").name for path in (bert, copy, other)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("text", ["", "bleu", "lexical:noun", "bertscore", "bertscore:", "clipscore:", "clipscore"])
def test_a_metric_that_is_not_there_is_named_with_those_that_are(text: str) -> None:
    with pytest.raises(UsageError, match=rf"no metric '{text}'; there are lexical, word-f1, bertscore:MODEL"):
        find_metric(text)


def test_models_that_cannot_be_used_are_refused(bert: Path, clip: Path, tmp_path: Path) -> None:
    pickled = Path(shutil.copytree(bert, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights"):
        find_metric(f"bertscore:{pickled}")
    with pytest.raises(ModelError, match="is no folder"):
        find_metric("bertscore:./nowhere")
    with pytest.raises(ModelError, match="is no text encoder as BERT is"):
        find_metric(f"bertscore:{MODEL_PATH}", "cpu")
    with pytest.raises(ModelError, match=r"is no CLIP \(BertModel\)"):
        find_metric(f"clipscore:{bert}", "cpu")
    with pytest.raises(UsageError, match=r"has the layers 0 \(its embedding\) to 3, not 4"):
        find_metric(f"bertscore:{bert}:4", "cpu")
    with pytest.raises(UsageError, match="compares with pictures"):
        find_text_metric(f"clipscore:{clip}")


# ---- BERTScore


def plain_bertscore(path: Path, layer: int, candidate: str, reference: str) -> tuple[float, float, float]:
    """One pair, each text alone in the model, token by token in loops; empty texts aside."""
    tokenizer, model = hf.AutoTokenizer.from_pretrained(path), hf.AutoModel.from_pretrained(path)
    sides = []
    for text in (candidate, reference):
        inputs = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.no_grad():
            hidden = model(**inputs, output_hidden_states=True).hidden_states[layer][0].double().numpy()
        is_word = [token not in ("[CLS]", "[SEP]") for token in tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])]
        sides.append((hidden, is_word))
    means = []
    for (ours, is_word), (theirs, _) in (sides, sides[::-1]):
        best = []
        for vector, counts in zip(ours, is_word, strict=True):
            if counts:
                lengths = [np.linalg.norm(vector) * np.linalg.norm(other) for other in theirs]
                best.append(max(vector @ other / length for other, length in zip(theirs, lengths, strict=True)))
        means.append(float(np.mean(best)))
    precision, recall = means
    return precision, recall, 2 * precision * recall / (precision + recall)


# Precision, recall and F1 that bert-score 0.3.13 (with torch 2.13.0, transformers 5.23.0) gives for the tiny BERT's
# layer 2, `bert_score.score(…, model_type=FOLDER, num_layers=2, batch_size=1)`. With batches its padding replaces
# negative maxima by 0; these pairs have none.
OF_THE_PACKAGE = {
    (TEXTS[0], TEXTS[1]): (0.849773, 0.8511273, 0.8504496),
    (TEXTS[0], TEXTS[7]): (0.8433726, 0.8595513, 0.8513851),
    (TEXTS[1], TEXTS[5]): (0.8789319, 0.7794496, 0.8262069),
    (TEXTS[2], TEXTS[3]): (0.9154491, 0.948563, 0.9317119),
    (TEXTS[3], TEXTS[1]): (0.7203441, 0.7132741, 0.7167917),
    (TEXTS[4], TEXTS[5]): (0.6459777, 0.7567939, 0.6970087),
    (TEXTS[5], TEXTS[3]): (0.9287601, 0.9632702, 0.9457004),
}


def test_bertscore_equals_a_plain_version(bert: Path) -> None:
    metric = BertScore.load(str(bert), 2, "cpu")
    pairs = [(TEXTS[one], TEXTS[other]) for one, other in ((0, 1), (1, 0), (2, 4), (3, 0), (5, 1), (4, 4), (7, 2))]
    found = metric.match(*map(list, zip(*pairs, strict=True)))
    expected = [plain_bertscore(bert, 2, *pair) for pair in pairs]
    assert np.abs(found.numpy() - np.array(expected)).max() < ROUNDING


def test_bertscore_equals_the_package(bert: Path) -> None:
    found = BertScore.load(str(bert), 2, "cpu").match(*map(list, zip(*OF_THE_PACKAGE, strict=True)))
    assert np.abs(found.numpy() - np.array(list(OF_THE_PACKAGE.values()))).max() < ROUNDING


@pytest.mark.parametrize("layer", [0, 3])
def test_a_pair_scores_the_same_alone_and_among_others(bert: Path, layer: int) -> None:
    candidates, references = map(list, zip(*PAIRS, strict=True))
    together = BertScore.load(str(bert), layer, "cpu").compare(candidates, references)
    alone = [BertScore.load(str(bert), layer, "cpu").compare([one], [other])[0] for one, other in PAIRS[::9]]
    assert together[::9] == pytest.approx(alone, abs=ROUNDING)
    order = np.random.default_rng(0).permutation(len(PAIRS))
    shuffled = BertScore.load(str(bert), layer, "cpu").compare(
        [candidates[row] for row in order], [references[row] for row in order]
    )
    assert shuffled == pytest.approx(np.array(together)[order], abs=ROUNDING)


def test_equal_texts_score_1_empty_ones_0_and_none_nothing(bert: Path) -> None:
    metric = find_text_metric(f"bertscore:{bert}", "cpu")
    assert metric.compare(["a dog", " a dog "], ["a dog", "a dog"]) == pytest.approx([1, 1])
    assert metric.compare(["", "a dog", " ", "[SEP]"], ["a dog", "", "", "a dog"]) == [0, 0, 0, 0]
    assert metric.compare([], []) == []


def test_a_byte_level_first_word_has_its_space(bert: Path) -> None:
    tokenizer = hf.RobertaTokenizer(vocab={"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "Ġ": 5}, merges=[])
    module = BertScore.load(str(bert), 0, "cpu").module
    metric = BertScore("tiny", 0, module, tokenizer)
    assert metric._token_ids("a a") == [0, 5, 4, 5, 4, 2]
    assert metric._token_ids("") == [0, 2]


def test_texts_are_encoded_once_while_they_are_kept() -> None:
    asked: list[list[str]] = []

    def encode(texts: list[str]) -> list[str]:
        asked.append(texts)
        return [text.upper() for text in texts]

    encoded = Encoded(encode, most=2)
    assert encoded.of(["a", "b", "a"]) == {"a": "A", "b": "B"}
    assert encoded.of(["b", "c", "d"]) == {"b": "B", "c": "C", "d": "D"}
    assert encoded.of(["d", "a"]) == {"d": "D", "a": "A"}
    assert asked == [["a", "b"], ["c", "d"], ["a"]]


# ---- CLIPScore


def test_clipscore_is_a_hundred_cosines(clip: Path) -> None:
    metric = find_metric(f"clipscore:{clip}", "cpu")
    assert isinstance(metric, ImageMetric)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]
    texts = ["a dog", "two cats on the grass", "x", "dog " * 40]
    model, processor = hf.CLIPModel.from_pretrained(clip), hf.CLIPProcessor.from_pretrained(clip)
    pairs = list(itertools.product(texts, images))
    expected, negative = [], 0
    for text, image in pairs:
        inputs = processor(text=[text], images=[image], return_tensors="pt", truncation=True, max_length=77)
        with torch.no_grad():
            out = model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(out.text_embeds, out.image_embeds).item()
        negative += cosine < 0
        expected.append(100 * max(cosine, 0))
    assert 0 < negative < len(pairs)
    assert metric.compare_images(*zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-4)
    assert [metric.compare_images([text], [image])[0] for text, image in pairs] == pytest.approx(expected, abs=1e-4)
    assert metric.compare_images([], []) == []


def test_clip_reads_77_tokens(clip: Path) -> None:
    metric = ClipScore.load(str(clip), "cpu")
    image = Image.new("RGB", (28, 28), "red")
    first = "ab" * 100  # 2 + 200 tokens
    found = metric.compare_images([first, first + "c"], [image, image])
    assert found[0] == found[1]
