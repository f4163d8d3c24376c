"""Who may import what, proven in a fresh interpreter; and where hooks, SQL and model types may be named."""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmn"
LIGHT = (
    "mmn.core",
    "mmn.view",
    "mmn.images",
    "mmn.statistics.intervals",
    "mmn.figures.export",
    "mmn.studies.registry",
    "mmn.studies.tables",
    "mmn.runs.jobs",
    "mmn.runs.plan",
    "mmn.store",
)
READING = ("study", "tables", "rows", "queries", "figures")  # how the modules of a study end that torch is not for
HEAVY = ("torch", "transformers")


def loaded(statement: str) -> set[str]:
    """Top-level packages that are loaded after `statement` in a fresh interpreter."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def all_modules() -> list[str]:
    return ["mmn", *(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "mmn."))]


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_of_the_library_imports_streamlit():
    """One interpreter for all: what none of them loads together, none loads alone."""
    modules = all_modules()
    assert {"mmn.studies.scoring.command", "mmn.runs.engines.local", "mmn.store.store", "mmn.__main__"} <= set(modules)
    found = loaded("\n".join(f"import {module}" for module in modules))
    assert "torch" in found
    assert "streamlit" not in found


def test_mmn_alone_imports_nothing_heavy():
    assert loaded("import mmn").isdisjoint({*HEAVY, "streamlit", "pandas", "altair"})


def test_a_command_line_is_read_without_database_and_tables():
    found = loaded("from mmn.cli import build_parser\nbuild_parser()")
    assert found.isdisjoint({*HEAVY, "streamlit", "altair", "pandas", "duckdb"})


SCORE = """
from pathlib import Path
from mmn.core import ScoreSettings
from mmn.images import list_source
from mmn.models.loading import load_model
from mmn.runs.engines.local import carry_out
from mmn.runs.plan import plan
model, listing = load_model("specimen"), list_source("gallery", limit=1)
settings = ScoreSettings(prompt=model.default_prompt, top_k=5, batch_size=1)
planned = plan(model.facts, listing, "gallery", model.exact_prompt(settings.prompt), settings)
carry_out(planned, model, Path({folder!r}), lambda progress: None)
"""


def test_scoring_loads_neither_pandas_nor_the_database(tmp_path):
    found = loaded(SCORE.format(folder=str(tmp_path)))
    assert {"pyarrow", "HanTa", "lemminflect"} <= found, "nothing was scored"
    assert found.isdisjoint({"pandas", "duckdb", "streamlit"})


@pytest.mark.parametrize("module", LIGHT)
def test_reading_results_needs_no_torch(module):
    assert loaded(f"import {module}").isdisjoint({*HEAVY, "streamlit"})


def test_the_declarations_queries_rows_and_charts_of_studies_need_no_torch():
    modules = [module for module in all_modules() if module.startswith("mmn.studies.") and module.endswith(READING)]
    assert {f"mmn.studies.sensitivity.{kind}" for kind in READING} <= set(modules)
    assert loaded("\n".join(f"import {module}" for module in modules)).isdisjoint({*HEAVY, "streamlit"})


def test_listing_runs_needs_no_torch(tmp_path):
    words = ["runs", "--json", "--cache", str(tmp_path)]
    quiet = "contextlib.redirect_stdout(io.StringIO())"
    found = loaded(f"import contextlib, io\nfrom mmn.cli import main\nwith {quiet}: main({words!r})")
    assert "duckdb" in found
    assert found.isdisjoint(HEAVY)


@pytest.mark.parametrize("package", ["streamlit", "torch"])
def test_a_forbidden_import_would_be_noticed(package, tmp_path):
    """Stands in for the real package, so that this costs no time."""
    (tmp_path / f"{package}.py").write_text("")
    (tmp_path / "culprit.py").write_text(f"def late():\n    import {package}\nlate()\n")
    assert package in loaded(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport culprit")


def calls(tree: ast.AST, pattern: str) -> list[str]:
    """Attribute and function names in `tree` that the pattern matches whole."""
    names = [
        n.attr if isinstance(n, ast.Attribute) else n.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute | ast.Name)
    ]
    return [name for name in names if re.fullmatch(pattern, name)]


def texts(tree: ast.AST) -> list[str]:
    """String constants in `tree`, documentation aside."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]


def registers_hooks(source: str) -> bool:
    return bool(calls(ast.parse(source), r"register_\w*hook"))


def speaks_sql(source: str) -> bool:
    sql = r"\s*(SELECT|WITH|INSERT INTO|DELETE FROM|CREATE (TABLE|VIEW)|ALTER TABLE|UPDATE \w+ SET|DROP TABLE)\b"
    return any(re.match(sql, text) for text in texts(ast.parse(source)))


def compares_model_types(source: str) -> bool:
    comparisons = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)]
    sides = [side for node in comparisons for side in (node.left, *node.comparators)]
    return any(calls(side, "model_type") for side in sides)


def shows_a_chart(source: str) -> bool:
    """Streamlit's charts: its own are made of any data, so they would not be figures of the registry."""
    return bool(calls(ast.parse(source), r"(altair|line|bar|area|scatter|pydeck|plotly|vega_lite)_chart|pyplot"))


def exports_a_chart(source: str) -> bool:
    makers = r"save_figure|figure_files?|chart_bytes|drawing|svg_as|grid_file|panel_svg|set_bytes"
    return bool(calls(ast.parse(source), makers))


def imported(source: str) -> Iterator[str]:
    """The modules that a file imports when it runs: what is imported for types alone is left out."""
    tree = ast.parse(source)
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    for_types = {id(one) for block in blocks for one in ast.walk(block)}
    for node in (one for one in ast.walk(tree) if id(one) not in for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def makes_charts(source: str) -> bool:
    """Charts are made in `figures.py` of a study, from `Rows`: pages and commands only draw figures of the registry."""
    charts = r"altair(\..*)?|mmn\.studies\.\w+\.(\w+_)?figures\..*|mmn\.figures\.axes\..*"
    return any(re.fullmatch(charts, module) for module in imported(source))


def test_no_page_and_no_command_makes_a_chart_of_its_own():
    commands = [file for file in sources() if file.name == "command.py" or file.parent.name == "cli"]
    pages = [*(ROOT / "app").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    guilty = {str(file.relative_to(ROOT)) for file in [*pages, *commands] if makes_charts(file.read_text())}
    assert guilty == {"app/charts.py"}, "it turns Altair's checks off; no other has any use for it"


ORDER = (  # of the rooms: a module imports from its own room and from those before it
    "ground",
    "safety",
    "specimen",
    "statistics",
    "figures",
    "declarations",
    "models",
    "images",
    "reading",
    "metrics",
    "scores",
    "units",
    "runs",
    "store",
    "reports",
    "cli",
    "studies",
    "top",
)
GROUND = {"names", "errors", "lazily", "printable", "counts", "core", "view", "no_nouns", "columns"}


def room(module: str) -> str:
    """The room of a module or of a name in it; `top` is what puts all together: the API and the specimen's makers."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in {"__main__", "api", "__version__"}:
        return "ground" if parts[-1] == "__version__" else "top"
    if parts[1] in GROUND:
        return "ground"
    if parts[1] == "specimen":
        return "top" if (PACKAGE / "specimen" / f"{parts[2] if len(parts) > 2 else ''}.py").is_file() else "specimen"
    if parts[1] == "studies":
        is_declared = len(parts) < 3 or parts[2] in {"study", "table", "tables", "registry", "MODULES", "describe"}
        return "declarations" if is_declared or parts[-1] in {"study", "tables"} or "study" in parts[3:] else "studies"
    return parts[1]


def climbs(module: str, source: str) -> list[str]:
    """What a module imports of rooms that come after its own."""
    place = ORDER.index(room(module))
    ours = [name for name in imported(source) if name.split(".")[0] == "mmn"]
    return [f"{module} ({room(module)}) -> {name} ({room(name)})" for name in ours if ORDER.index(room(name)) > place]


def test_rooms_import_only_from_those_before_them():
    found = []
    for file in sources():
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found += climbs(module, file.read_text())
    assert found == []
    assert {room(module) for module in all_modules()} == set(ORDER)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mmn.store.store", "from mmn.studies.lens.queries import LensQueries"),
        ("mmn.reading.captions", "def f():\n    from mmn.runs import plan"),
        ("mmn.studies.lens.study", "from mmn.studies.lens.measure import measure"),
        ("mmn.models.loading", "import mmn.cli"),
    ],
)
def test_an_import_that_climbs_would_be_noticed(module, source):
    assert climbs(module, source)
    assert not climbs(module, "from mmn.errors import UsageError\nfrom typing import TYPE_CHECKING\n")
    assert not climbs(
        module, f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {source.splitlines()[-1].strip()}"
    )


@pytest.mark.parametrize(
    ("does", "allowed"),
    [
        (registers_hooks, (r"mmn/reading/hooks/",)),
        (speaks_sql, (r"mmn/store/", r"mmn/studies/\w+/(\w+_)?queries\.py")),
        (shows_a_chart, (r"app/charts\.py",)),
        (
            exports_a_chart,
            (
                r"app/(charts|pinned)\.py",
                r"mmn/cli/(figure|pins)\.py",
                r"mmn/figures/(export|saving|panels|paper_set)\.py",
                r"mmn/api\.py",
            ),
        ),
        (compares_model_types, (r"mmn/models/adapters/",)),
    ],
)
def test_what_belongs_in_one_place_is_only_there(does, allowed):
    files = [*sources(), *(ROOT / "app").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    guilty = {str(file.relative_to(ROOT)) for file in files if does(file.read_text())}
    assert guilty, "nothing found even where it belongs: the search is broken"
    assert {name for name in guilty if not any(re.match(one, name) for one in allowed)} == set()


@pytest.mark.parametrize(
    ("does", "source"),
    [
        (registers_hooks, "module.register_forward_pre_hook(f, with_kwargs=True)"),
        (registers_hooks, "tensor.register_hook(f)"),
        (speaks_sql, "con.execute('SELECT 1')"),
        (speaks_sql, "con.execute(f'''\n  DELETE FROM {table}''')"),
        (compares_model_types, "if config.model_type == 'llava': pass"),
        (compares_model_types, "x = model_type in ('a', 'b')"),
        (shows_a_chart, "st.altair_chart(chart)"),
        (shows_a_chart, "st.line_chart(data)"),
        (exports_a_chart, "data = chart_bytes(chart, data, 'svg')"),
        (exports_a_chart, "content = figure_file(drawn, 'svg', layout).content"),
        (makes_charts, "from mmn.studies.lens.figures import noun_shares"),
        (makes_charts, "from mmn.studies.invariance import cross_image_figures\nfrom altair import Chart"),
        (makes_charts, "import altair as alt"),
    ],
)
def test_each_search_finds_what_it_looks_for(does, source):
    assert does(source)
    assert not does('"""SELECT model_type: register_forward_hook."""\nx = 1')
