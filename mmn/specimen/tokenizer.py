"""The specimen's tokenizer: one token a word, with exceptions that real vocabularies have too.

A unigram model over a list of words, with bytes to fall back on, so that any text can be encoded. The nouns of
SPLIT are in several pieces, and the first piece of some is shared ("tele" begins a telephone and a television),
so that the flags `is_multi_token` and `is_shared_token` occur for real.
"""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from mmn.specimen.world import CATEGORY, GLYPHS, NOUNS, PLACES, plural

PAD, BOS, EOS, IMAGE, UNKNOWN = "<pad>", "<s>", "</s>", "<image>", "<unk>"
SPECIALS = (PAD, BOS, EOS, IMAGE, UNKNOWN)
SPLIT: dict[str, tuple[str, ...]] = {
    "telephone": ("tele", "phone"),
    "television": ("tele", "vision"),
    "watermelon": ("water", "melon"),
    "strawberry": ("straw", "berry"),
    "helicopter": ("heli", "copter"),
    "butterfly": ("butter", "fly"),
    "kangaroo": ("kanga", "roo"),
    "motorcycle": ("motor", "cycle"),
}
SPLIT_PLURALS: dict[str, tuple[str, ...]] = {
    "strawberry": ("straw", "berries"),
    "butterfly": ("butter", "flies"),
}
FUNCTION_WORDS = (
    *("A", "picture", "of", "a", "an", "and", "next", "to", "on", "in", "the", "two", "three", "small", "big"),
    *(".", ",", ":", "Words", "is", "are", "both", "can", "people", "some", "what", "describe", "this", "image"),
    *("photo", "there", "with"),
)
SPACE = "▁"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Pads on the left, as batched generation needs; `<s>` is put first by the prompt, not by the tokenizer."""
    words = [SPACE + word for word in _whole_words()]
    pieces = sorted({piece for parts in _split_nouns() for piece in parts[1:]} | {"s"} | set(".,:"))
    firsts = sorted({SPACE + parts[0] for parts in _split_nouns()})
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = [(token, 0.0) for token in SPECIALS]
    vocabulary += [(token, -5.0) for token in dict.fromkeys(words + firsts)] + [(token, -5.5) for token in pieces]
    vocabulary += [(SPACE, -8.0)] + [(token, -20.0) for token in byte_tokens]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=SPECIALS.index(UNKNOWN), byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    tokenizer.add_special_tokens(list(SPECIALS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE},
    )


def _whole_words() -> list[str]:
    nouns = [form for noun in NOUNS if noun not in SPLIT for form in (noun, plural(noun))]
    return list(dict.fromkeys([*FUNCTION_WORDS, *PLACES, *GLYPHS, *(plural(c) for c in GLYPHS), *nouns]))


def _split_nouns() -> list[tuple[str, ...]]:
    assert set(SPLIT) <= set(CATEGORY)
    return [*SPLIT.values(), *SPLIT_PLURALS.values()]
