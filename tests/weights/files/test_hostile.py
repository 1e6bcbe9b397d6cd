"""Hostile checkpoints: nothing is executed, nothing crashes, hangs or eats memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile_actions
from hostile import Case, open_and_read, run
from parity.cases import ABSENT, FOLDER, NAMES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


BESIDE = ("case.json", "io.safetensors", "README.md")
"""What stands in a golden case and is no part of the checkpoint."""


def test_hostile_checkpoints(tmp_path: Path) -> None:
    report = run(open_and_read, 300, tmp_path, batch=150)
    assert not report.faults
    # Sound files that were hardly touched are read, the others are not.
    assert 10 < report.opened < 150
    assert report.opened + report.refused == 300


@pytest.mark.campaign
def test_hostile_checkpoints_in_bulk(tmp_path: Path) -> None:
    report = run(open_and_read, 20_000, tmp_path, seed=1, batch=1000)
    assert not report.faults
    assert report.opened + report.refused == 20_000


def sound_cases() -> list[Case]:
    """The golden checkpoints of every format, as the files that they are."""
    cases: list[Case] = []
    for name in NAMES:
        folder = FOLDER / name
        files = sorted(path for path in folder.iterdir() if path.name not in BESIDE)
        cases.append({path.name: path.read_bytes() for path in files})
    return cases


@pytest.mark.skipif(not NAMES, reason=ABSENT)
@pytest.mark.parametrize(
    "count", [150, pytest.param(20_000, marks=pytest.mark.campaign)], ids=["few", "many"]
)
def test_hostile_checkpoints_of_every_format(count: int, tmp_path: Path) -> None:
    """Recognised, described, held against a model and read: config.json is hostile too."""
    report = run(
        hostile_actions.loads, count, tmp_path, seed=2, given=sound_cases(), batch=min(count, 1000)
    )
    assert not report.faults
    assert report.opened + report.refused == count


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (hostile_actions.executes, "executed ["),
        (hostile_actions.writes, "executed ["),
        (hostile_actions.fails, "KeyError"),
        (hostile_actions.dies, "the process ended with 3"),
        (hostile_actions.bloats, "MiB beyond"),
    ],
)
def test_the_harness_sees(action: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    assert any(words in fault for fault in run(action, 1, tmp_path).faults)
