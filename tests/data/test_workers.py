"""Running jobs: order, bounds, errors, shutdown, and the choice of workers."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest
from pydantic import TypeAdapter, ValidationError

import vitrail.data.workers as module
from vitrail.data.workers import PREFETCH, Auto, Processes, Serial, Threads, Workers, choose, run

EVERY = (Serial(), Threads(1), Threads(3), Processes(2))


def names() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("vitrail-loader")]


def triple(job: int, stop: threading.Event) -> int:
    assert not stop.is_set()
    if job == 13:
        raise KeyError("thirteen")
    return 3 * job


@pytest.mark.parametrize("workers", EVERY, ids=repr)
def test_results_come_in_order_and_nobody_stays(workers: Serial | Threads | Processes) -> None:
    assert list(run(triple, range(12), workers)) == [3 * job for job in range(12)]
    assert list(run(triple, [], workers)) == []
    assert names() == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", EVERY, ids=repr)
def test_an_error_reaches_the_caller(workers: Serial | Threads | Processes) -> None:
    results = run(triple, range(12, 40), workers)
    assert next(results) == 36
    with pytest.raises(KeyError, match="thirteen"):
        next(results)
    assert names() == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", EVERY, ids=repr)
def test_closing_early_ends_the_workers(workers: Serial | Threads | Processes) -> None:
    results = run(triple, [1] * 1000, workers)
    assert next(results) == 3
    results.close()
    assert names() == []
    assert multiprocessing.active_children() == []


def test_closing_tells_a_job_that_runs() -> None:
    def wait(job: int, stop: threading.Event) -> int:
        if job:
            assert stop.wait(30)
        return job

    results = run(wait, range(10), Threads(2))
    assert next(results) == 0
    results.close()
    assert names() == []


def test_prefetch_is_bounded() -> None:
    started: list[int] = []

    def note(job: int, stop: threading.Event) -> int:
        started.append(job)
        return job

    results = run(note, range(100), Threads(2))
    next(results)
    time.sleep(0.05)
    assert len(started) <= PREFETCH * 2 + 1
    results.close()


@pytest.mark.parametrize(
    ("cost", "gain", "wanted"),
    [
        (20e-6, 1.9, Serial()),
        (1e-3, 1.8, Threads(4)),
        (20e-3, 1.8, Threads(4)),
        (20e-3, 1.1, Processes(4)),
        (0.5e-3, 1.1, Threads(1)),
    ],
)
def test_auto_chooses_by_cost_and_gain(
    cost: float, gain: float, wanted: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_time", lambda prepare, indices: cost * len(indices))
    monkeypatch.setattr(
        module, "_time_pair", lambda pool, prepare, indices: cost * len(indices) / gain
    )
    choice = choose(lambda index: index, 100, cores=4)
    assert choice.workers == wanted
    assert "ms a sample" in choice.why


def test_auto_measures_real_samples() -> None:
    seen: set[int] = set()
    choice = choose(lambda index: time.sleep(1e-3 * (not seen.add(index))), 1000, cores=2)
    assert isinstance(choice.workers, Serial | Threads | Processes)
    assert max(seen) > 800
    for cores, count in ((1, 100), (2, 0), (2, 1)):
        assert choose(seen.add, count, cores).workers == Serial()


def test_round_trip() -> None:
    adapter: TypeAdapter[Workers] = TypeAdapter(Workers)
    for workers in (*EVERY, Auto()):
        assert adapter.validate_json(adapter.dump_json(workers)) == workers
    for wrong in ({"kind": "threads", "count": 0}, {"kind": "serial", "count": 2}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
