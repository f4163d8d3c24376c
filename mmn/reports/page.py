"""A report as one HTML file that opens from a disk, without a server and without a network.

Vega is in it (as vl-convert bundles it), and so are data and thumbnails. The page forbids itself to fetch anything and
to run any text as a program (its content security policy; Vega interprets its expressions). Text of captions, nouns,
models and files is escaped; what the charts are drawn of is JSON in which no sign can end a script.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any, Final

import vl_convert

from mmn import __version__
from mmn.counts import counted
from mmn.figures.specification import whole
from mmn.figures.theme import NUMBERS, paper_config, wrap
from mmn.reports.contents import MOST_ROWS, Contents, Noun, Picture, Shown

_WIDTH: Final = 620  # points of a chart
_PANEL, _HIGH = 500, 170  # of a panel of several: its width, and the least height that the title of its axis needs
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1a1a1a; --back: #fff; --line: #d5d9de; --quiet: #5a6470; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --back: #16181c; --line: #3a3f47; --quiet: #a3abb6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--back); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; } h3 { font-size: 1.05rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; } a { color: #3b82c4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0 2rem; } figcaption { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
.chart { background: #fff; color: #1a1a1a; border: 1px solid var(--line); border-radius: 6px; padding: .5rem;
  overflow-x: auto; display: block !important; width: 100%; max-width: 46rem; }
.chart svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
#find { font: inherit; width: min(24rem, 100%); padding: .3rem .5rem; margin: .3rem 0 1rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: .8rem; }
.picture { border: 1px solid var(--line); border-radius: 6px; padding: .5rem; display: flex; gap: .6rem; min-width: 0;
  content-visibility: auto; contain-intrinsic-size: 21rem 9rem; }
.picture[hidden] { display: none; } .picture > div { min-width: 0; overflow-wrap: anywhere; font-size: .85rem; }
.picture img, .gone { width: 96px; height: 96px; object-fit: contain; flex: none; } .gone { color: var(--quiet); }
.picture p { margin: 0 0 .2rem; font-weight: 600; } .picture ul { margin: 0; padding-left: 1rem; }
.quiet { color: var(--quiet); }
"""
_PROGRAM: Final = """
for (const place of document.querySelectorAll('.chart')) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, {actions: false, renderer: 'svg', ast: true, logLevel: 1}).catch(
    (error) => { place.textContent = 'This chart could not be drawn: ' + error.message; });
}
const find = document.getElementById('find');
find.addEventListener('input', () => {
  const words = find.value.trim().toLowerCase();
  let left = 0;
  for (const one of document.querySelectorAll('.picture')) {
    one.hidden = !one.textContent.toLowerCase().includes(words);
    left += !one.hidden;
  }
  document.getElementById('left').textContent = left + ' pictures';
});
"""


def page(found: Contents) -> str:
    """The report as HTML; the same contents give the same text."""
    told = dict(found.run)
    title = f"{told['Model']} on {told['Pictures'].partition(':')[0]}"
    specs = [one for shown in found.figures.values() for one in shown]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_safe(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_safe(title)}</h1>",
            *_head(found),
            *_figures(found),
            *_missing(found),
            *_pictures(found),
            *_definitions(found),
            f'<p class="quiet">Made by mmn {__version__}.</p>',
            f"<script>{_vega()}</script>",
            *(
                f'<script type="application/json" id="spec-{_safe(one.name)}">{_json(compiled(one))}</script>'
                for one in specs
            ),
            f"<script>{_PROGRAM}</script></body></html>\n",
        ]
    )


def compiled(shown: Shown) -> dict[str, Any]:
    """A chart as Vega: Vega-Lite would tell the console of a reader what it makes of each."""
    made: dict[str, Any] = vl_convert.vegalite_to_vega(spec(shown))
    return made


def spec(shown: Shown) -> dict[str, Any]:
    """A chart's specification for the page, in the theme of papers."""
    chart: dict[str, Any] = whole(shown.chart)
    own = {name: value for name, value in chart.get("config", {}).items() if name not in ("view", "background")}
    chart["config"] = paper_config(11) | own | {"locale": NUMBERS}
    title = chart["title"]
    title["text"] = wrap(title["text"], _WIDTH, 13)
    title["subtitle"] = wrap(title.get("subtitle", []), _WIDTH, 11.5)
    if "spec" in chart:
        chart["spec"] |= {"width": _PANEL} | ({"height": _HIGH} if _is_low(chart["spec"].get("height")) else {})
    else:
        chart |= {"width": _WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}
    return chart


def _is_low(height: Any) -> bool:
    """Whether a panel has a height, and the title of its axis none."""
    return isinstance(height, int | float) and height < _HIGH


def _head(found: Contents) -> Iterator[str]:
    links = [("figures", "Figures"), ("pictures", "Pictures"), ("definitions", "Definitions")]
    yield "<nav>" + "".join(f'<a href="#{name}">{words}</a>' for name, words in links) + "</nav>"
    yield "<dl>" + "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in found.run) + "</dl>"


def _figures(found: Contents) -> Iterator[str]:
    yield '<h2 id="figures">Figures</h2>'
    for question, figures in found.figures.items():
        yield f"<h3>{_safe(question)}</h3>"
        for shown in figures:
            yield f'<figure id="{_safe(shown.name)}"><div class="chart" data-spec="spec-{_safe(shown.name)}"></div>'
            yield f"<figcaption>{_safe(shown.caption)}</figcaption>{_table(shown)}</figure>"


def _table(shown: Shown) -> str:
    if not shown.cells:
        return ""
    head = "".join(f"<th>{_safe(one)}</th>" for one in shown.headings)
    rows = "".join("<tr>" + "".join(f"<td>{_safe(one)}</td>" for one in row) + "</tr>" for row in shown.cells)
    more = f"<p>The first {MOST_ROWS} of {counted(shown.n_rows, 'row')}.</p>" if shown.n_rows > MOST_ROWS else ""
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>Its numbers</summary>{more}{table}</details>"


def _missing(found: Contents) -> Iterator[str]:
    if found.missing:
        yield "<details><summary>What is not drawn, and why</summary><ul>"
        yield "".join(f"<li>{_safe(name)}: {_safe(why)}</li>" for name, why in found.missing) + "</ul></details>"


def _pictures(found: Contents) -> Iterator[str]:
    n = len(found.pictures)
    some = "" if n == found.n_pictures else f" {n:,} of {found.n_pictures:,}, evenly taken."
    yield '<h2 id="pictures">Pictures</h2>'
    yield (
        f'<p class="quiet">Each caption, its nouns with their probability, and the unit that leads each by '
        f"{_safe(found.method)}; in brackets the same over a grey picture, where it was scored.{some}</p>"
    )
    yield '<label>Find a word, a unit or a picture <input id="find" type="search"></label> <span id="left"></span>'
    yield '<div class="pictures">' + "".join(_picture(one) for one in found.pictures) + "</div>"


def _picture(one: Picture) -> str:
    name = f"Picture {one.image_id[:8]}"
    source = f"data:image/webp;base64,{one.webp}"
    image = f'<img src="{source}" alt="{name}">' if one.webp else f'<div class="gone">{name} does not open</div>'
    nouns = "".join(f"<li>{_noun(noun)}</li>" for noun in one.nouns) or "<li>no noun</li>"
    text = _safe(one.text) or "no caption"
    return (
        f'<div class="picture">{image}<div><p>{text}</p><ul>{nouns}</ul><span class="quiet">{name}</span></div></div>'
    )


def _noun(one: Noun) -> str:
    said = f"<b>{_safe(one.noun)}</b> {one.prob}" + (f" (grey {one.grey_prob})" if one.grey_prob else "")
    if not one.unit:
        return said
    said += f"; {one.unit} {one.score}" + (f" (grey {one.grey_score})" if one.grey_score else "")
    return said + (f' <span class="quiet">writes {_safe(one.words)}</span>' if one.words else "")


def _definitions(found: Contents) -> Iterator[str]:
    yield '<h2 id="definitions">Definitions</h2><div class="wide"><table><tbody>'
    for row in found.methods:
        yield "<tr>" + "".join(f"<td>{_safe(one)}</td>" for one in row) + "</tr>"
    yield "</tbody></table></div><ul>"
    for line in _GLOSSARY:
        yield f"<li>{_safe(line)}</li>"
    yield "</ul>"


_GLOSSARY: Final = (
    "A unit is one neuron of a feed-forward layer, L6.u100 the one of layer 6 with the number 100, both from 0.",
    "k is how many of a ranking's first units are meant; it means nothing without its share of all units.",
    "a is the input of the layer's matrix W_out, z that of its non-linearity, W_u the unembedding, t the noun's token.",
    "An interval is of 95 %, by picture; none is given where fewer than eight pictures are too few.",
    "A residual is how much of a noun's logit the separately captured terms miss, as a share of it.",
    "P1: Schwettmann and others 2023, arXiv 2308.01544. P2: Pan and others 2024, arXiv 2311.07470. OURS: this program.",
)


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _json(value: Any) -> str:
    """JSON in which no sign can end a script or begin a comment."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
