"""Who may import what, proven in a fresh interpreter; and where hooks, SQL and model types may be named."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmn"
LIGHT = (
    "mmn.store",
    "mmn.figures",
    "mmn.figures.export",
    "mmn.core",
    "mmn.runs.jobs",
    "mmn.runs.shards",
    "mmn.images",
    "mmn.runs.plan",
    "mmn.statistics.intervals",
    "mmn.studies.degradation.curves",
)
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


@pytest.mark.parametrize("module", LIGHT)
def test_reading_results_needs_no_torch(module):
    assert loaded(f"import {module}").isdisjoint({*HEAVY, "streamlit"})


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


@pytest.mark.parametrize(
    ("does", "allowed"),
    [
        (registers_hooks, ("mmn/reading/hooks/",)),
        (speaks_sql, ("mmn/store/",)),
        (compares_model_types, ("mmn/models/adapters/",)),
    ],
)
def test_what_belongs_in_one_place_is_only_there(does, allowed):
    files = [*sources(), *(ROOT / "app").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    guilty = {str(file.relative_to(ROOT)) for file in files if does(file.read_text())}
    assert guilty, "nothing found even where it belongs: the search is broken"
    assert {name for name in guilty if not name.startswith(allowed)} == set()


@pytest.mark.parametrize(
    ("does", "source"),
    [
        (registers_hooks, "module.register_forward_pre_hook(f, with_kwargs=True)"),
        (registers_hooks, "tensor.register_hook(f)"),
        (speaks_sql, "con.execute('SELECT 1')"),
        (speaks_sql, "con.execute(f'''\n  DELETE FROM {table}''')"),
        (compares_model_types, "if config.model_type == 'llava': pass"),
        (compares_model_types, "x = model_type in ('a', 'b')"),
    ],
)
def test_each_search_finds_what_it_looks_for(does, source):
    assert does(source)
    assert not does('"""SELECT model_type: register_forward_hook."""\nx = 1')
