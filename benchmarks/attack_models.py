"""Can a stranger's model folder harm anything? Crafted folders, each loaded and checked as `mmn doctor` does.

A folder is harmless when it is refused in one line, or does what the whole one does; within 5 s of processor time and
3 GiB, without a raw exception, and without a file anywhere else. The bundled specimen is the model that is spoiled.

    python benchmarks/attack_models.py [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tally import SLOW_S, Tally

MOST_SECONDS: Final = 5.0  # of processor time, which others on the machine do not lengthen
MOST_BYTES: Final = 3 << 30
GIVE_UP_SECONDS: Final = 60.0  # by the clock, which runs on for what only waits
REFUSED, ACCEPTED, HARMED = "refused", "accepted", "harmed"
Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Verdict:
    """How one folder ended; `why` is its line, or what it did."""

    name: str
    ending: str
    seconds: float
    gibibytes: float
    why: str


class Runs:
    """What a pickle can do where somebody opens it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.canary}",))


def template(text: str) -> Spoil:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def changed(name: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return spoil


def inside(part: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        values[part] |= changes
        (folder / "config.json").write_text(json.dumps(values))

    return spoil


def written(name: str, content: str | bytes) -> Spoil:
    data = content.encode() if isinstance(content, str) else content

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

    return spoil


def sparse(name: str, n_bytes: int) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        with (folder / name).open("wb") as stream:
            stream.truncate(n_bytes)

    return spoil


def piped(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def linked(name: str, target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def lying(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Weights whose header is changed, and says its own new length truly."""

    def spoil(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return spoil


def first_tensor(header: dict[str, Any]) -> dict[str, Any]:
    return next(about for name, about in header.items() if name != "__metadata__")


def many_tensors(header: dict[str, Any]) -> None:
    header |= {f"tensor {number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(300_000)}


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(folder.parent / "canary")))


def pickled_beside(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(folder.parent / "canary")))


def code_beside(folder: Path) -> None:
    """Code that the folder asks to be run: refused, or loaded by transformers' own classes without it."""
    code = f"import os\nos.system('touch {folder.parent / 'canary'}')\n"
    (folder / "modeling_evil.py").write_text(code)
    auto_map = {"AutoConfig": "modeling_evil.Config", "AutoModelForImageTextToText": "modeling_evil.Model"}
    changed("config.json", auto_map=auto_map)(folder)
    changed("processor_config.json", auto_map={"AutoProcessor": "modeling_evil.Processor"})(folder)
    changed("tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.A", "modeling_evil.B"]})(folder)


def code_of_an_unknown_type(folder: Path) -> None:
    code_beside(folder)
    changed("config.json", model_type="evil_vl")(folder)


LOOPS: Final = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
MANY_DIGITS: Final = '{"model_type": "llava", "a": ' + "9" * 10**6 + "}"
DEEP: Final = '{"a":' * 50_000 + "1" + "}" * 50_000
ATTACKS: Final[dict[str, Spoil]] = {
    "template: reaches for __class__": template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "template: calls what it must not": template("{{ messages.__init__.__globals__ }}"),
    "template: changes the messages": template("{{ messages.append(1) }}"),
    "template: loops for ever": template(LOOPS),
    "template: a string of a terabyte": template("{{ 'x' * 1000000000000 }}"),
    "template: grows until it is killed": template(
        "{% set ns = namespace(t='x'*999) %}" + LOOPS.replace("{% for c", "{% set ns.t = ns.t ~ ns.t %}{% for c")
    ),
    "template: an enormous power": template("{{ 9 ** 9 ** 9 }}"),
    "template: a huge range": template("{% for a in range(10**12) %}{{ a }}{% endfor %}"),
    "template: calls itself": template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "template: includes a file": template("{% include '/etc/passwd' %}"),
    "template: does not parse": template("{% for %}"),
    "template: deep brackets": template("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}"),
    "template: text alone": template("USER: {{ messages[0]['content'][1]['text'] }}"),
    "template: ten thousand pictures": template("{{ '<image>' * 10000 }}"),
    "template: bytes that are no text": written("chat_template.jinja", b"\xff\xfe\x00\x80"),
    "config: deep": written("config.json", DEEP),
    "config: a deep text part": changed("config.json", text_config=json.loads("[" * 800 + "]" * 800)),
    "config: ten million layers": inside("text_config", num_hidden_layers=10_000_000),
    "config: ten million layers of the encoder": inside("vision_config", num_hidden_layers=10_000_000),
    "config: three hundred layers": inside("text_config", num_hidden_layers=300),
    "config: minus one layer": inside("text_config", num_hidden_layers=-1),
    "config: no layers": inside("text_config", num_hidden_layers=0),
    "config: text_config null": changed("config.json", text_config=None),
    "config: text_config a word": changed("config.json", text_config="llama"),
    "config: vision_config null": changed("config.json", vision_config=None),
    "config: a width of 10^12": inside("text_config", hidden_size=10**12),
    "config: a vocabulary of 10^12": inside("text_config", vocab_size=10**12),
    "config: pictures of 10^9 pixels": inside("vision_config", image_size=10**9),
    "config: a patch of nothing": inside("vision_config", patch_size=0),
    "config: an integer of a million digits": written(
        "config.json", '{"model_type": "llava", "a": ' + "9" * 10**6 + "}"
    ),
    "config: no number": inside("text_config", rms_norm_eps=float("nan")),
    "config: a lone surrogate": changed("config.json", default_prompt="\ud800"),
    "config: image token out of range": changed("config.json", image_token_index=10**9, image_token_id=10**9),
    "config: code beside": code_beside,
    "config: code of an unknown type": code_of_an_unknown_type,
    "config: sparse, 40 GB": sparse("config.json", 40 << 30),
    "config: a pipe": piped("config.json"),
    "config: /dev/zero": linked("config.json", "/dev/zero"),
    "processor: a crop of 10^6 × 10^6": changed(
        "processor_config.json",
        image_processor={
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": 10**6},
            "do_center_crop": True,
            "crop_size": {"height": 10**6, "width": 10**6},
        },
    ),
    "processor: a patch of nothing": changed("processor_config.json", patch_size=0),
    "processor: a class that is none": changed("processor_config.json", processor_class="os.system"),
    "processor: 10^9 image tokens": changed("processor_config.json", num_additional_image_tokens=10**9),
    "processor: /dev/zero": linked("preprocessor_config.json", "/dev/zero"),
    "tokenizer: deep": written("tokenizer.json", DEEP),
    "tokenizer: empty": written("tokenizer.json", b""),
    "tokenizer: a pipe": piped("tokenizer.json"),
    "tokenizer: sparse, 40 GB": sparse("tokenizer.json", 40 << 30),
    "tokenizer: a class that is none": changed("tokenizer_config.json", tokenizer_class="subprocess.Popen"),
    "weights: pickled": pickled,
    "weights: pickled, beside": pickled_beside,
    "weights: a header of 2^62 bytes": written("model.safetensors", struct.pack("<Q", 1 << 62) + b"{}"),
    "weights: a header longer than the file": written("model.safetensors", struct.pack("<Q", 1 << 20) + b"{}"),
    "weights: a deep header": written("model.safetensors", struct.pack("<Q", len(DEEP)) + DEEP.encode()),
    "weights: three hundred thousand tensors": lying(many_tensors),
    "weights: a shape that lies": lying(lambda header: first_tensor(header).update(shape=[10**6, 10**6])),
    "weights: a shape that overflows": lying(lambda header: first_tensor(header).update(shape=[2**40, 2**40])),
    "weights: offsets beyond the end": lying(lambda header: first_tensor(header).update(data_offsets=[0, 1 << 50])),
    "weights: offsets that overlap": lying(lambda header: first_tensor(header).update(data_offsets=[0, 4])),
    "weights: a type that is none": lying(lambda header: first_tensor(header).update(dtype="OBJECT")),
    "weights: a type that lies": lying(lambda header: first_tensor(header).update(dtype="I8")),
    "weights: an index that leads elsewhere": written(
        "model.safetensors.index.json", json.dumps({"weight_map": {"a": "../../../etc/passwd"}})
    ),
    "weights: sparse, 40 GB": sparse("model.safetensors", 40 << 30),
    "weights: /dev/zero": linked("model.safetensors", "/dev/zero"),
    "adapter: a config that is none": written("adapter_config.json", "[" * 50_000),
    "generation: wrong types": written("generation_config.json", '{"eos_token_id": "end", "max_length": -5}'),
    "generation: deep": written("generation_config.json", DEEP),
}


def attack(work: Path, _seed: int) -> Tally:
    """Tries every folder; nothing here is drawn."""
    quieten()
    found = list(verdicts(work))
    return Tally(
        tried=len(found),
        refused=sum(one.ending == REFUSED for one in found),
        accepted=sum(one.ending == ACCEPTED for one in found),
        harmed=sum(one.ending == HARMED for one in found),
        slow=sum(one.seconds > SLOW_S for one in found),
    )


def verdicts(work: Path, only: str = "") -> Iterator[Verdict]:
    """Makes each folder in `work`, loads and checks it in a process of its own, and removes it again."""
    from mmn.models.loading import load_model
    from mmn.runs.doctor import check
    from mmn.specimen import MODEL_PATHS

    model = load_model("specimen", device="cpu")  # here, so that no process has to load the libraries again
    usual = check(model, model.exact_prompt("A picture of")).caption
    for name, spoil in ATTACKS.items():
        if only in name:
            folder = work / "stranger"
            shutil.copytree(MODEL_PATHS["specimen"], folder)
            spoil(folder)
            yield _judge(name, _try(folder, work), usual, work / "canary")
            shutil.rmtree(folder)


def _judge(name: str, found: dict[str, Any], usual: object, canary: Path) -> Verdict:
    ending = found["ending"]
    if ending == ACCEPTED and json.loads(found["line"]) != usual:
        ending, found["line"] = HARMED, f"accepted, and not as the whole one: {found['line']}"
    if found["seconds"] > MOST_SECONDS or found["bytes"] > MOST_BYTES or "\n" in found["line"] or canary.exists():
        ending = HARMED
    canary.unlink(missing_ok=True)
    return Verdict(name, ending, found["seconds"], found["bytes"] / (1 << 30), found["line"])


def _try(folder: Path, work: Path) -> dict[str, Any]:
    """What loading and checking comes to: an ending, a line, seconds, and bytes of memory at the highest."""
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _load(folder, answer)
    done, _, taken = os.wait4(child, os.WNOHANG)
    while not done:
        time.sleep(0.01)
        if time.monotonic() > started + GIVE_UP_SECONDS:
            os.kill(child, signal.SIGKILL)
        done, _, taken = os.wait4(child, os.WNOHANG)
    found = {"ending": HARMED, "line": "the process died or was given up"}
    if answer.exists():
        found = json.loads(answer.read_text())
    return found | {"seconds": taken.ru_utime + taken.ru_stime, "bytes": taken.ru_maxrss * 1024}


def _load(folder: Path, answer: Path) -> None:
    """In the forked process, which ends here."""
    from mmn.errors import MmnError
    from mmn.models.loading import load_model
    from mmn.runs.doctor import check

    try:
        model = load_model(str(folder), device="cpu")
        ending, line = ACCEPTED, json.dumps(check(model, model.exact_prompt("A picture of")).caption)
    except MmnError as error:
        ending, line = REFUSED, str(error)
    except BaseException:
        ending, line = HARMED, traceback.format_exc().strip().splitlines()[-1]
    answer.write_text(json.dumps({"ending": ending, "line": line}))
    os._exit(0)


def main() -> None:
    """Prints a line for each folder, and how many ended how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME", help="only the folders whose name holds NAME")
    only = parser.parse_args().only
    quieten()
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        for one in verdicts(Path(folder), only):
            found.append(one)
            print(
                f"{one.ending:8} {one.seconds:5.1f} s {one.gibibytes:4.1f} GiB  {one.name}: {one.why[:150]}", flush=True
            )
    endings = [one.ending for one in found]
    counts = ", ".join(f"{endings.count(ending)} {ending}" for ending in (REFUSED, ACCEPTED, HARMED))
    print(f"tried {len(found)}: {counts}; slowest {max(one.seconds for one in found):.1f} s")


def quieten() -> None:
    """One thread, and no word of the libraries."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
