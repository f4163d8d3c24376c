"""Does decoding every unit take at most twice the time of the bare matrix product W_U · W_out?

The product alone is made for the same blocks of units, into memory of its own. The two are timed in turn, so that a
busy machine slows both; the median of the ratios is what counts. The first decoding, which also reads the dictionary,
is timed apart.

    python benchmarks/decoding.py [MODEL ...] [--repeats 15] [--threads 1]

Without a model it is a decoder of 4 layers of 2,048 units, width 512, 32,000 tokens, random weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmn.core import ModelFacts
from mmn.models.adapters import find_anatomy, find_family
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.words import load_words
from mmn.units.decoding import BLOCK_BYTES, decode_units

BUDGET: Final = 2.0  # times the bare product
N_LAYERS, D_MODEL, D_MLP, N_VOCABULARY = 4, 512, 2048, 32_000


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    models = [load_model(name) for name in arguments.models] or [_synthetic()]
    torch.set_num_threads(arguments.threads)
    print(f"{'model':24} {'units':>7} {'first s':>8} {'product s':>10} {'decoding s':>11} {'ratio':>6} {'worst':>6}")
    for model in models:
        _report(model, arguments.repeats)
    print(f"budget: a ratio of {BUDGET}")


def _report(model: Model, repeats: int) -> None:
    def decode() -> None:
        decode_units(model)
        _wait(model)

    def multiply() -> None:
        _multiply(model)
        _wait(model)

    first = _seconds(decode)
    _seconds(multiply)
    pairs = [(_seconds(multiply), _seconds(decode)) for _ in range(repeats)]
    ratios = [decoding / product for product, decoding in pairs]
    product, decoding = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    print(
        f"{model.facts.name[-24:]:24} {model.facts.n_units:7,} {first:8.2f} {product:10.3f} {decoding:11.3f} "
        f"{statistics.median(ratios):6.2f} {max(ratios):6.2f}"
    )


@torch.inference_mode()
def _multiply(model: Model) -> None:
    """W_U · W_out of every unit in float32, block by block, and nothing else."""
    w_u = model.anatomy.unembedding.weight.float()
    n_block = min(model.facts.d_mlp, max(1, BLOCK_BYTES // (4 * len(w_u))))
    product = torch.empty(n_block, len(w_u), device=w_u.device)
    for layer in range(model.facts.n_layers):
        vectors = model.anatomy.w_out(layer).float().T
        for first in range(0, len(vectors), n_block):
            block = vectors[first : first + n_block]
            torch.mm(block, w_u.T, out=product[: len(block)])


def _synthetic() -> Model:
    """A LLaVA with random weights and a vocabulary of 32,000 words; its eye is tiny, since decoding never looks."""
    import transformers as hf
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    torch.manual_seed(0)
    words = sorted(load_words())[:: len(load_words()) // N_VOCABULARY][:N_VOCABULARY]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    small = {"num_hidden_layers": 1, "num_attention_heads": 8}
    text = hf.LlamaConfig(
        **small | {"num_hidden_layers": N_LAYERS},
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        vocab_size=N_VOCABULARY,
    )
    vision = hf.CLIPVisionConfig(**small, hidden_size=64, intermediate_size=64, image_size=28, patch_size=14)
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=N_VOCABULARY - 1)
    module = hf.LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    processor = SimpleNamespace(tokenizer=hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    family = find_family(config.model_type)
    facts = ModelFacts("synthetic", "0" * 16, family.model_type, N_LAYERS, D_MLP)
    return Model(module, processor, family, find_anatomy(module, family), facts)


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
