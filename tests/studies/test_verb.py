"""The verb `vitrail study`: what it passes on and what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vitrail.cli import cli
from vitrail.studies import run
from vitrail.studies.claims import Claim, Finding
from vitrail.studies.result import StudyResult
from vitrail.train.run import Said

FINDING = Finding(Claim("it is better", "yes", ()), "agrees", "by much")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    options: dict[str, Any] = {}

    def study(name: str, **given: Any) -> StudyResult:
        options.update(given, name=name)
        given["listener"](Said("1/2 done"))
        return StudyResult(name, [{"arm": "plain"}], [FINDING], "agrees", Path("tokens.md"))

    monkeypatch.setattr(run, "study", study)
    monkeypatch.setattr(sys, "argv", ["vitrail", "study", "tokens"])
    return options


def test_options_are_passed_on(asked: dict[str, Any]) -> None:
    words = ["study", "tokens", "--scale", "full", "--data", "images", "--seeds", "4", "--out", "x"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert asked["name"] == "tokens"
    assert (asked["scale"], asked["data"], asked["seeds"]) == ("full", "images", 4)
    assert asked["out"] == Path("x")
    assert asked["command"] == "vitrail study tokens"
    assert "1/2 done" in result.stderr
    assert "verdict: agrees" in result.stdout
    assert "tokens.md" in result.stdout


def test_json_has_the_contracted_keys(asked: dict[str, Any]) -> None:
    result = CliRunner().invoke(cli, ["study", "tokens", "--json"])
    expected = {"name": "tokens", "rows": [{"arm": "plain"}], "verdict": "agrees"}
    assert json.loads(result.stdout) == expected
    assert asked["scale"] == "small"
    assert asked["seeds"] is None


def test_a_verdict_needs_three_seeds() -> None:
    assert CliRunner().invoke(cli, ["study", "tokens", "--seeds", "2"]).exit_code == 2
