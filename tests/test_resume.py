"""`kill -9` at random moments, then `--resume`: the same bits as a run that was left alone.

The campaign with twenty kills for each kind of worker is `benchmarks/kill_resume.py`.
"""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "kill_resume.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_resume"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


kill_resume = load_script()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kill_resume.write_data(tmp_path_factory.mktemp("resume") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left alone, without worker processes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    kill_resume.finish(kill_resume.start(run, data, workers=0))
    return run


def assert_same(run: Path, whole: Path) -> None:
    assert kill_resume.sha256_of_weights(run) == kill_resume.sha256_of_weights(whole)
    assert kill_resume.epochs_of(run) == kill_resume.epochs_of(whole)


@pytest.mark.parametrize(("workers", "seed", "times"), [(0, 1, 2), (2, 2, 1)])
def test_killed_and_resumed(
    workers: int, seed: int, times: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    """The run without workers is the measure for both: who prepares batches changes nothing."""
    run, rng = tmp_path / "run", random.Random(seed)
    process = kill_resume.start(run, data, workers)
    for _ in range(times):
        kill_resume.kill(process, run, rng, span=1.0)
        process = kill_resume.start(run, None, workers)
    kill_resume.finish(process)
    assert_same(run, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_first(
    number: int, code: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = kill_resume.start(run, data, workers=0)
    kill_resume.wait_for(process, run, "step-*")
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    last = output.splitlines()[-1]
    assert last.startswith("error: stopped; saved step-")
    assert last.endswith("go on with --resume")
    assert "Traceback" not in output
    kill_resume.finish(kill_resume.start(run, None, workers=0))
    assert_same(run, whole)


def test_resuming_what_is_finished_is_harmless(whole: Path) -> None:
    before = kill_resume.sha256_of_weights(whole), kill_resume.epochs_of(whole)
    process = kill_resume.start(whole, None, workers=0)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert json.loads(output.splitlines()[-1])["run"] == str(whole)
    assert (kill_resume.sha256_of_weights(whole), kill_resume.epochs_of(whole)) == before


@pytest.mark.campaign
def test_twenty_kills_of_twenty() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
