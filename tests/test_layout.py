"""The tree is the architecture: imports point one way, every component has its test, no file is a drawer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ringfence", "collectors", "processors", "sinks")
COMPONENTS = ("collectors", "processors", "sinks")
DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "shared", "lib", "tools"}
LAYERS = {
    # a module of the core may import those of its own rank and below
    0: {"ringfence", "errors", "batch", "clock", "files", "bus"},
    1: {"console", "schema", "telemetry", "topology", "yamlfile", "timestamps", "addresses", "retry", "pace"},
    2: {
        "segments",
        "intents",
        "projection",
        "jsonlines",
        "codec",
        "documents",
        "deadletter",
        "batching",
        "matrix",
        "crossings",
        "detectors",
        "scans",
        "paths",
        "names",
        "detections",
        "sigma",
        "yara",
        "correlation",
        "alert_exceptions",
        "alert_list",
        "alerting",
        "summary",
        "wording",
    },
    3: {"component", "testing", "ledger", "registry", "rulesets"},
    4: {"stages", "config"},
    5: {"runtime", "demo"},
    6: {"cli", "reference", "__main__"},
}


def _modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _imports(path: Path, with_type_checking: bool = True) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not with_type_checking and id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "ringfence":
                yield from (f"ringfence.{alias.name}" for alias in node.names)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_imports_point_from_components_to_the_core(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    foreign = {name.partition(".")[0] for name in _imports(path)} & set(PACKAGES) - {package, "ringfence"}

    assert not foreign


@pytest.mark.parametrize("path", sorted((ROOT / "ringfence").rglob("*.py")), ids=_name)
def test_imports_inside_the_core_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT / "ringfence").with_suffix("").parts
    own = "ringfence" if parts == ("__init__",) else parts[0]
    rank = {name: level for level, names in LAYERS.items() for name in names}
    assert own in rank, f"{own} has no layer: add it to LAYERS where it belongs"

    upward = {
        name
        for name in _imports(path, with_type_checking=False)
        if name.startswith("ringfence.") and rank.get(name.split(".")[1], -1) > rank[own]
    }

    assert not upward


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_no_module_is_a_drawer(path: Path) -> None:
    assert path.stem not in DRAWERS


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring
    assert len(docstring.splitlines()[0]) > 15


@pytest.mark.parametrize(
    "path", [path for folder in COMPONENTS for path in sorted((ROOT / folder).glob("[!_]*.py"))], ids=_name
)
def test_every_component_has_a_test_of_its_name(path: Path) -> None:
    assert (ROOT / "tests" / path.parent.name / f"test_{path.stem}.py").is_file()


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_rules_and_dashboards_are_data() -> None:
    assert not list((ROOT / "rules").rglob("*.py"))
    assert not list((ROOT / "dashboards").rglob("*.py"))
