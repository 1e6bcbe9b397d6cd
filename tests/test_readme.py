"""What the documentation names exists: links, files, commands, library names."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

import vitrail
from vitrail.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vitrail"
PAGES = sorted(ROOT.glob("*.md"))
READMES = ("README.md", "README.zh-CN.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), flags=re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[list[str]]:
    """The shell commands of a page as words, comments and assignments before them left out."""
    lines = [line for block in blocks(name, "sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[w for i, w in enumerate(line) if i or "=" not in w] for line in words if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_backquotes_exist(page: Path) -> None:
    tops = ("src/", "tests/", "examples/", "benchmarks/", ".ci/")
    named = re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8"))
    inside = [path for path in named if path.startswith(tops)]
    assert [path for path in inside if not (ROOT / path).exists()] == []


def test_architecture_has_one_line_for_each_file() -> None:
    """The tree in ARCHITECTURE.md, read by its indentation, against the package."""
    tree = next(block for block in blocks("ARCHITECTURE.md", "text") if "__init__.py" in block)
    folders: list[str] = []
    listed: set[str] = set()
    for line in tree.splitlines()[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            assert len(line.split()) > 2, f"{name}: no word on what it is"
            listed.add("".join(folders) + name)
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    optional = {path for path in files if path.endswith("/__init__.py")}
    assert files - optional - listed == set(), "missing in ARCHITECTURE.md"
    assert {path for path in listed if not (PACKAGE / path).is_file()} == set()


@pytest.mark.parametrize("page", READMES)
def test_commands_parse(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), flags=re.MULTILINE))
    verbs: set[str] = set()
    for program, *words in commands(page):
        if program == "make":
            assert set(words) <= targets
        elif program == "vitrail":
            verb, command, rest = cli.resolve_command(click.Context(cli), words)
            assert verb is not None
            assert command is not None
            parse(command, verb, rest)
            verbs.add(verb)
    assert verbs == set(cli.commands), "each verb that exists is shown, and no other"


def parse(command: click.Command, verb: str, words: list[str]) -> None:
    """Parse a command line; that its example files are not there is no mistake."""
    try:
        command.make_context(verb, words)
    except click.MissingParameter:
        raise
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            raise


def test_both_languages_show_the_same() -> None:
    assert commands("README.zh-CN.md") == commands("README.md")
    assert blocks("README.zh-CN.md", "python") == blocks("README.md", "python")
    assert figures("README.zh-CN.md") == figures("README.md")


def figures(page: str) -> list[str]:
    """The cells of the tables that hold a number with a unit, in order."""
    return re.findall(r"(?<=\| )[\d.,]+ ?(?:%|s|min|images/s|ms|×)(?= \|)", text(page))


def test_the_library_example_uses_public_names() -> None:
    (program,) = blocks("README.md", "python")
    used = {
        node.attr
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "vitrail"
    }
    assert used
    assert used <= set(vitrail.__all__)


def test_the_constraints_pin_what_is_tested() -> None:
    import tomllib

    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], extras["parquet"], extras["dev"]]
    wanted = {normal(line) for group in groups for line in group}
    lines = [line for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines), "name==version only"
    assert wanted <= {normal(line) for line in lines}


def normal(requirement: str) -> str:
    """The name in a requirement, in the spelling of the package index."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()
