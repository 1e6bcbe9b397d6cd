"""Hostile checkpoints: nothing is executed, nothing crashes, hangs or eats memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile_actions
from hostile import open_and_read, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


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
