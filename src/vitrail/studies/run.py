"""Carrying out a study: arms times seeds, each run in a process of its own, then the page.

A run that is done is kept as a JSON file; a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from vitrail.config import nearest
from vitrail.errors import ConfigError, UserError
from vitrail.machine import read_text, usable_cores
from vitrail.studies import STUDIES
from vitrail.studies.result import StudyResult, conclude
from vitrail.studies.study import Job, Plan, Scale
from vitrail.studies.worker import carry_out, read_result, to_text
from vitrail.train.run import Said

LOOK_SECONDS = 0.1
"""How often finished processes are looked for."""


def study(
    name: str,
    *,
    scale: Scale = "small",
    out: Path | None = None,
    seeds: int | None = None,
    data: str | None = None,
    processes: int | None = None,
    command: str = "",
    listener: Callable[[Said], None] = lambda _: None,
) -> StudyResult:
    """Carry out a study, or what is left of it.

    Args:
        name: One of `STUDIES`.
        scale: `small` takes minutes on two cores; `full` needs large data.
        out: Folder of the runs and the page; by default `runs/study-NAME-SCALE`.
        seeds: Runs of each arm, with the seeds from 0 on; by default the plan's, at least 3. A
            verdict needs two.
        data: Other data than the plan's.
        processes: Runs at a time; by default one a usable core with one thread each, or one on a
            GPU. 0 makes them one by one in this process.
        command: The command line, for the page.
        listener: Told what is going on.

    Raises:
        ConfigError: no such study, or data that must be named are not.
        DataError: the data are not here; the message says what to put where.
        UserError: a run failed; the message names it.
    """
    if name not in STUDIES:
        raise ConfigError(
            f"unknown study '{name}'{nearest(name, STUDIES)}; studies: {', '.join(STUDIES)}"
        )
    made = STUDIES[name]
    plan = made.plans[scale]
    folder = out or Path("runs") / f"study-{name}-{scale}"
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        sources = {arm.data or plan.data for arm in plan.arms}
        places = {source: source.prepare(folder / "data", data) for source in sources}
        jobs = [
            Job(name, scale, arm.name, seed, places[arm.data or plan.data], folder)
            for seed in range(seeds or plan.seeds)
            for arm in plan.arms
        ]
        _make_runs(jobs, plan, _processes() if processes is None else processes, listener)
        return conclude(made, plan, jobs, command=command)


def _processes() -> int:
    """One run on a GPU, where runs would only wait for each other; else one a core."""
    return 1 if torch.cuda.is_available() else max(1, int(usable_cores()))


def _make_runs(
    jobs: Sequence[Job], plan: Plan, processes: int, listener: Callable[[Said], None]
) -> None:
    waiting = [job for job in jobs if read_result(job) is None]
    if len(waiting) < len(jobs):
        listener(Said(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done already"))
    total, start = len(waiting), time.monotonic()
    with closing(_finished(waiting, plan, processes)) as finished:
        for done, job in enumerate(finished, start=1):
            result = read_result(job)
            if result is None:
                raise UserError(f"{job.arm}, seed {job.seed}: left no result; see {job.log}")
            left = (time.monotonic() - start) / done * (total - done) / 60
            first, value = next(iter(result["measures"].items()))
            listener(
                Said(
                    f"{done}/{total} {job.arm}, seed {job.seed}: {first} {value:.4g} "
                    f"in {result['seconds']:.0f} s; about {left:.0f} min left"
                )
            )


def _finished(jobs: list[Job], plan: Plan, processes: int) -> Generator[Job]:
    """Make runs, several at a time, and give each once it is done."""
    if not processes:
        for job in jobs:
            carry_out(job)
            yield job
        return
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            unfinished = {(job.arm, job.seed) for job in (*waiting, *running)}
            for job in list(waiting):
                free = (plan.arm(job.arm).needs, job.seed) not in unfinished
                if free and len(running) < processes:
                    waiting.remove(job)
                    running[job] = _start(job, single_thread=not torch.cuda.is_available())
            time.sleep(LOOK_SECONDS)
            for job, process in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    _insist_success(job, process.returncode)
                    yield job
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(job: Job, *, single_thread: bool) -> subprocess.Popen[bytes]:
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if single_thread else {}
    with job.log.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 our own module
            [sys.executable, "-m", "vitrail.studies.worker", to_text(job)],
            env=os.environ | threads,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _insist_success(job: Job, code: int) -> None:
    if code == 0:
        return
    lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("error: ") if lines else f"ended with code {code}"
    raise UserError(f"{job.arm}, seed {job.seed}: {last} (all it said: {job.log})")


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Two studies at once in one folder would write over each other's runs."""
    lock = folder / "running.pid"
    other = read_text(lock).strip()
    if other.isdecimal() and int(other) != os.getpid() and _alive(int(other)):
        raise UserError(
            f"{folder}: process {other} is carrying out a study there; give another --out"
        )
    lock.write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
