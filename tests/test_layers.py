"""Imports go one way (ARCHITECTURE.md), and what is imported is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vitrail"


def test_the_import_contracts_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((PACKAGE / "nn").glob("*.py")), ids=lambda path: path.name)
def test_a_part_imports_torch_and_the_shared_types_only(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "torch", "jaxtyping"}
    for name in imported(path):
        inside = name.startswith("vitrail.nn.") or name == "vitrail.types"
        assert inside or name.partition(".")[0] in allowed, f"{path.name} imports {name}"


def test_what_is_imported_is_declared_as_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    used = ("parquet", "hub", "peers")
    needed = [*project["dependencies"], *(name for extra in used for name in extras[extra])]
    declared = {normal(re.split(r"[<>=\[ ]", line)[0]) for line in needed}
    tops = {name.partition(".")[0] for path in PACKAGE.rglob("*.py") for name in imported(path)}
    homes = packages_distributions()
    for top in tops - {*sys.stdlib_module_names, "vitrail"}:
        assert declared & {normal(name) for name in homes.get(top, [top])}, f"{top} is not declared"


def normal(name: str) -> str:
    """A distribution's name in the spelling of the package index."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            names.add(node.module)
    return names
