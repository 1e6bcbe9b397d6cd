"""Training keeps its memory: a small version of `benchmarks/training_memory.py`."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from box_runs import QUICK, write_boxes

ROOT = Path(__file__).resolve().parents[2]


def growth(data: Path, steps: int, warm: int, *overrides: str) -> float:
    program: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "training_memory.py"))
    _, more = program["growth"](str(data), steps, list(overrides), warm)
    return more


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_steps_leave_nothing_behind(tmp_path: Path) -> None:
    """With mosaic and copy-paste, which hold the most."""
    more = ("detect.augment.mosaic=0.5", "detect.augment.copy_paste=0.5")
    assert growth(write_boxes(tmp_path / "data"), 80, 40, *QUICK[:2], *QUICK[3:], *more) < 0.03


@pytest.mark.campaign
def test_two_thousand_steps(shared_data: Path) -> None:
    assert os.environ.get("OMP_NUM_THREADS"), "set the threads: their stacks count too"
    assert growth(shared_data / "bccd", 2000, 500) < 0.03
