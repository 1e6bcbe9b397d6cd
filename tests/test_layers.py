"""Imports go one way (ARCHITECTURE.md), and a part of a network needs torch alone."""

from __future__ import annotations

import ast
import sys
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
