"""Which strings do the pages hand to Streamlit as Markdown, and is each of them ours, a number, or through `app.text`?

Reads the source: every call of `app/` and `pages/` with an argument that Streamlit reads as Markdown, or as HTML. A
string is fine where it is built of constants, formatted numbers, what `plain` and `code` give (`html.escape` in HTML),
and what the lists below name; a local name, where all that it is ever given is fine. Anything else is a finding.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The calls whose first argument is Markdown, and those of them whose options are, too (other options are plain).
SHOWING = _names(
    """title header subheader markdown write caption info success warning error toast button download_button
    link_button checkbox toggle radio selectbox multiselect pills segmented_control slider select_slider
    text_input text_area number_input date_input time_input file_uploader expander popover metric badge spinner tabs
    status dialog chat_input feedback color_picker camera_input audio_input form_submit_button latex"""
)
WITH_OPTIONS = _names("radio pills segmented_control select_slider tabs")
KEYWORDS = _names("help label body caption text show_spinner")
HTML = _names("html iframe")
# Our own functions that show some of their arguments (by place): checked wherever they are called.
PASSED_ON = {
    "offer": (2, 3),
    "nothing_yet": (2, 3),
    "measure_again": (2,),
    "kind_picker": (1,),
    "_card": (0, 1, 2, 3),
    "_download": (1,),
    "_offer_file": (0,),
    "_mover": (1, 2),
    "_remover": (1,),
    "_caption_box": (1,),
    "_tell": (0, 1, 2, 3, 4, 5),
    "_one": (0,),
    "layer_picker": (1,),
    "chosen_layers": (1,),
}
# Our own functions that give what may be shown: what they return is checked likewise.
GIVING = _names(
    """annotate _defined label remarks progress_text _summary _why_not _of_top share _headline why_none _by_chance
    _wanted"""
)
# Elsewhere, and giving nothing but numbers and words of ours.
OURS = _names(
    """letter count counted duration pace percent interval_words why k_text k_options describe_drop describe_own
    describe_own_edit told_generality without_general forms_of parts_word neuron_url len int round bool strftime
    b64encode were_set_aside"""
)
REARRANGING = _names(
    """join replace items values keys iter next sorted list str lower upper capitalize strip decode removesuffix
    removeprefix _sentence tip"""
)
ESCAPING = {"Markdown": _names("plain code sentence"), "HTML": _names("escape _cell scale_colours")}
TYPES = ("int", "float", "bool", "Neuron", "Neuron | None", "Neuron | UnitOfExpert", "list[Neuron]", "Sequence[Neuron]")
NAMED = ("page.title", "job.button", "job.note")  # of the studies' declarations
NUMBER = re.compile(r"[+,.\d]*[deEfgG%,]|%[-% a-zA-Z,:]+")  # how numbers and times are formatted


def findings(source: str) -> list[str]:
    """`line: the expression` for every string that is shown and may hold foreign text as it is."""
    tree = ast.parse(source)
    own = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "app"
        for name in node.names
    }
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for kind, node in _shown(function, own)
        if not _Scope(function, ESCAPING[kind]).is_ours(node)
    ]


def _shown(function: ast.FunctionDef, own: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """(Markdown or HTML, the expression) of all that `function` shows, and of what it gives to be shown."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None and function.name in GIVING:
            yield "Markdown", node.value
        elif isinstance(node, ast.Call):
            yield from (("Markdown", one) for one in _markdown_of(node, own))
            if _name(node.func) in HTML:
                yield from (("HTML", one) for one in node.args[:1])


def _markdown_of(call: ast.Call, own: set[str]) -> Iterator[ast.expr]:
    name, words = _name(call.func), {word.arg: word.value for word in call.keywords}
    is_theirs = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in own
    if name in SHOWING and is_theirs:
        yield from call.args[: 2 if name == "metric" else 1]
    if name in WITH_OPTIONS and is_theirs:
        yield from [words["format_func"]] if "format_func" in words else call.args[1:2]
    yield from (call.args[place] for place in PASSED_ON.get(name, ()) if place < len(call.args))
    yield from (value for word, value in words.items() if word in KEYWORDS)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


class _Scope:
    """What the names of one function may hold."""

    def __init__(self, function: ast.FunctionDef, escaping: frozenset[str]) -> None:
        self._escaping = escaping
        self._given: dict[str, list[ast.expr | None]] = {}
        self._asked: set[str] = set()
        passed = PASSED_ON.get(function.name, ())
        for place, one in enumerate(function.args.args):
            is_own = place in passed or (one.annotation is not None and ast.unparse(one.annotation) in TYPES)
            self._given[one.arg] = [] if is_own else [None]
        if function.args.vararg and passed:
            self._given[function.args.vararg.arg] = []
        for node in ast.walk(function):
            self._note(node)

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if ast.unparse(annotation) in TYPES:
                self._given[name] = []
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._give(target, value)
            case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
                self._give(target, value)
            case ast.NamedExpr(target=target, value=value):
                self._give(target, value)
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                self._give(target, value)
            case ast.Call(func=ast.Attribute(value=ast.Name() as target, attr="append"), args=[value]):
                self._give(target, value)
            case ast.ExceptHandler(name=str(name)):
                self._given[name] = [None]

    def _give(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._given.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple | ast.List):
            for place, one in enumerate(target.elts):
                self._give(one, _part(value, place, len(target.elts)))

    def is_ours(self, node: ast.AST | None) -> bool:
        """Whether `node` can hold no foreign text but an escaped one."""
        check = getattr(self, f"_{type(node).__name__}", None)
        return check is not None and check(node)

    def _all(self, *nodes: ast.AST | None) -> bool:
        return all(map(self.is_ours, nodes))

    def _Constant(self, _node: ast.Constant) -> bool:
        return True

    def _Compare(self, _node: ast.Compare) -> bool:
        return True

    def _JoinedStr(self, node: ast.JoinedStr) -> bool:
        return self._all(*node.values)

    def _FormattedValue(self, node: ast.FormattedValue) -> bool:
        spec = node.format_spec
        written = spec.values[0] if isinstance(spec, ast.JoinedStr) and len(spec.values) == 1 else None
        is_number = isinstance(written, ast.Constant) and NUMBER.fullmatch(str(written.value))
        return bool(is_number) or self.is_ours(node.value)

    def _IfExp(self, node: ast.IfExp) -> bool:
        return self._all(node.body, node.orelse)

    def _BinOp(self, node: ast.BinOp) -> bool:
        return self._all(node.left, node.right)

    def _BoolOp(self, node: ast.BoolOp) -> bool:
        return self._all(*node.values)

    def _Tuple(self, node: ast.Tuple | ast.List) -> bool:
        return self._all(*node.elts)

    _List = _Tuple

    def _Dict(self, node: ast.Dict) -> bool:
        return self._all(*node.keys, *node.values)

    def _DictComp(self, node: ast.DictComp) -> bool:
        return self.is_ours(node.key)  # the keys are the options; a value that is shown is asked for by itself

    def _ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> bool:
        return self.is_ours(node.elt)

    _GeneratorExp = _ListComp

    def _Lambda(self, node: ast.Lambda) -> bool:
        return self.is_ours(node.body)

    def _Starred(self, node: ast.Starred | ast.Subscript) -> bool:
        return self.is_ours(node.value)

    _Subscript = _Starred

    def _Attribute(self, node: ast.Attribute) -> bool:
        return node.attr.isupper() or ast.unparse(node) in NAMED or self.is_ours(node.value)

    def _Name(self, node: ast.Name) -> bool:
        if node.id.isupper() or node.id in self._escaping or node.id in self._asked:  # asked: added to itself
            return True
        self._asked.add(node.id)
        try:
            return node.id in self._given and self._all(*self._given[node.id])
        finally:
            self._asked.discard(node.id)

    def _Call(self, node: ast.Call) -> bool:
        name = _name(node.func)
        receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        if name == "get":  # what is asked for is not what is found
            return self._all(*receiver, *node.args[1:])
        is_known = name in OURS or name in self._escaping or name in GIVING
        return is_known or (name in REARRANGING and self._all(*receiver, *node.args))


def _part(value: ast.expr | None, place: int, n_parts: int) -> ast.expr | None:
    """What the name at `place` is given of a value that is taken apart; the whole where that cannot be told."""
    if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == n_parts:
        return value.elts[place]
    if isinstance(value, ast.Call) and _name(value.func) == "zip":
        return value.args[place]
    return value
