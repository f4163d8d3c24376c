"""The docs as a small static site, from `docs/` and the registry: `python -m mmn.studies.site [FOLDER]`.

A page for each file of `docs/`, one for each study (its question, equations, commands and figures), and the sources
that its equations link to. Every address is relative: the folder opens from a disk, and from any server. Needs
`markdown-it-py`, which the program itself does not (`requirements-dev.txt`).
"""

from __future__ import annotations

import argparse
import ast
import html
import itertools
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mmn.errors import UsageError
from mmn.figures.figure import Figure
from mmn.studies.equations import EQUATIONS, Equation
from mmn.studies.registry import STUDIES
from mmn.studies.study import Study
from mmn.view import SPELLINGS, flag_of

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
OUT: Final = ROOT / "build" / "site"
FIRST: Final = ("tutorial", "questions", "methods", "findings")  # of the menu; the others follow by name
PICTURES: Final = (".png", ".svg")
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --link: #56b4e9; } }
body { margin: 0 auto; padding: 0 1rem 4rem; max-width: 54rem; font: 1rem/1.55 system-ui, sans-serif; }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; padding: .8rem 0; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
h1 { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; background: #fff; }
pre, table { display: block; overflow-x: auto; }
pre { padding: .7rem; background: #8882; border-radius: .4rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
table code { overflow-wrap: normal; }
table { border-collapse: collapse; }
td, th { padding: .25rem .6rem; border: 1px solid var(--line); text-align: left; vertical-align: top; }
.source a { color: inherit; opacity: .5; text-decoration: none; }
.source span:target { background: #e69f0055; }
"""


def build(out: Path = OUT) -> list[Path]:
    """Writes the site into `out`, which is emptied first; returns its pages.

    Raises:
        UsageError: there are no docs beside the program (a wheel has none), markdown-it-py is missing, or `out` is
            a folder of something else.
    """
    if not DOCS.is_dir():
        raise UsageError(f"no docs in {DOCS}: the site is built from a clone of the repository")
    _empty(out)
    for path in sorted(DOCS.rglob("*")):
        if path.suffix in PICTURES:
            _copy(path, out / path.relative_to(DOCS))
    pages = {f"{path.stem}.html": _markdown(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}
    pages |= {f"study-{study.name}.html": study_page(study) for study in STUDIES}
    pages |= {_source_name(module): _source(module) for module in sorted(_modules())}
    pages["index.html"] = _index()
    for name, body in pages.items():
        (out / name).write_text(_page(body, _title(body)), encoding="utf-8")
    (out / "style.css").write_text(_STYLE, encoding="utf-8")
    return [out / name for name in pages]


def study_page(study: Study) -> str:
    """A study in HTML: question, equations with the functions that compute them, commands, figures."""
    parts = [f"<h1>{_called(study.name)}</h1>", f"<p>{_text(study.question)}</p>", "<h2>Equations</h2>"]
    parts += [_equation(one) for one in EQUATIONS[study.name]]
    parts.append('<p>Definitions, deviations and controls: <a href="methods.html">methods</a>.</p>')
    if study.measurements:
        parts.append("<h2>Measured by</h2>")
    for job in study.measurements.values():
        words = " ".join(["python -m mmn", job.words[0], "latest", *job.words[1:]])
        parts.append(f"<pre><code>{_text(words)}</code></pre><p>{_text(job.note)}</p>")
    if study.pages:
        named = ", ".join(_text(page.title) for page in study.pages)
        parts.append(f"<p>On the dashboard: {named}.</p>")
    return "\n".join([*parts, *_figures(study)])


def located(function: str) -> tuple[Path, int, str]:
    """The file of `module:function`, its line, and the first line of its docstring. Nothing is imported.

    Raises:
        UsageError: there is no such function.
    """
    module, _, name = function.partition(":")
    path = ROOT / (module.replace(".", "/") + ".py")
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return path, node.lineno, (ast.get_docstring(node) or "").partition("\n")[0]
    raise UsageError(f"{function} is not there: mmn/studies/equations.py names it")


def _empty(out: Path) -> None:
    """Makes `out` an empty folder; only one that holds a site, or nothing, is emptied."""
    if out.is_dir() and any(out.iterdir()) and not (out / "style.css").is_file():
        raise UsageError(f"{out} holds something else than a site: name an empty folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def _equation(one: Equation) -> str:
    path, line, told = located(one.function)
    address = f"{_source_name(one.function.partition(':')[0])}#L{line}"
    return (
        f"<h3>{_text(one.name)}</h3><pre><code>{_text(one.text)}</code></pre>"
        f'<p>{_text(one.source)}. Computed by <a href="{address}"><code>{_text(one.function)}</code></a> '
        f"({path.name}, line {line}): {_with_code(told)}</p>"
    )


def _figures(study: Study) -> Iterator[str]:
    if study.figures:
        yield "<h2>Figures</h2>"
    for figure in study.figures:
        command = f"python -m mmn figure {figure.name} --run latest --out {figure.name}.svg"
        yield f"<h3>{_text(figure.name)}</h3><p>{_text(_sentence(figure))}</p><pre><code>{_text(command)}</code></pre>"


def _sentence(figure: Figure) -> str:
    flags = ", ".join(flag_of(name) for name in SPELLINGS if name in figure.takes)
    return f"{figure.question[:1].upper()}{figure.question[1:]}. Filters: {flags or 'none'}."


def _modules() -> set[str]:
    return {one.function.partition(":")[0] for some in EQUATIONS.values() for one in some}


def _source_name(module: str) -> str:
    return f"source-{module}.html"


def _source(module: str) -> str:
    lines = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8").splitlines()
    numbered = (
        f'<span id="L{n}"><a href="#L{n}">{n:4d}</a> {_text(line)}</span>' for n, line in enumerate(lines, start=1)
    )
    return f'<h1>{_text(module)}</h1>\n<pre class="source"><code>' + "\n".join(numbered) + "</code></pre>"


def _index() -> str:
    studies = "".join(
        f'<li><a href="study-{study.name}.html">{_called(study.name)}</a>: {_text(study.question)}</li>'
        for study in STUDIES
    )
    docs = "".join(f'<li><a href="{name}.html">{_called(name)}</a></li>' for name in _names())
    return (
        "<h1>mmn</h1><p>Find the neurons of a vision-language model that turn what it sees into words, and prove it."
        f'</p><p>New here: <a href="tutorial.html">the tutorial</a>.</p><h2>Studies</h2><ul>{studies}</ul>'
        f"<h2>Reference</h2><ul>{docs}</ul>"
    )


def _names() -> list[str]:
    known = sorted(path.stem for path in DOCS.glob("*.md"))
    return [*FIRST, *(name for name in known if name not in FIRST)]


def _called(name: str) -> str:
    """A file's or a study's name as a heading says it."""
    return "API" if name == "api" else name.replace("-", " ").capitalize()


def _page(body: str, title: str) -> str:
    links = "".join(f'<a href="{name}.html">{_called(name)}</a>' for name in ("index", *_names()))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title} · mmn</title><link rel="stylesheet" href="style.css"></head>'
        f"<body><nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def _title(body: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    return re.sub(r"<[^>]*>", "", found[1]) if found else "mmn"


def _markdown(text: str) -> str:
    """HTML of a page of `docs/`: headings have the ids that links name, and pages link to pages of the site."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise UsageError("the site needs markdown-it-py: pip install -r requirements-dev.txt") from error
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", _anchor(inline.content))
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", _address(child))
    return str(parser.renderer.render(tokens, parser.options, {}))


def _address(link: Any) -> str:
    address = str(link.attrGet("href"))
    return address if "://" in address else re.sub(r"\.md(?=#|$)", ".html", address)


def _anchor(heading: str) -> str:
    """As code forges do: small letters, hyphens for spaces, no other signs."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _text(text: object) -> str:
    return html.escape(str(text))


def _with_code(text: str) -> str:
    """A line of a docstring, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m mmn.studies.site", description="Builds the docs as a static site.")
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help=f"emptied first; {OUT} if left out")
    try:
        pages = build(parser.parse_args().folder)
    except (UsageError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{len(pages)} pages: {pages[-1]}")
