"""Carrying out a study: arms times seeds, each run in a process of its own, then the page.

A run that is done is kept as a JSON file; a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from vitrail.config import nearest
from vitrail.errors import ConfigError, UserError
from vitrail.machine import read_text, usable_cores, usable_memory
from vitrail.studies import STUDIES
from vitrail.studies.claims import Finding, Verdict, judge, overall
from vitrail.studies.page import Page, markdown, plot
from vitrail.studies.study import Job, Plan, Scale, Study
from vitrail.studies.data import described
from vitrail.studies.worker import carry_out, read_result, to_text
from vitrail.train.run import Said
from vitrail.weights.modelfile import versions, write_atomically

LOOK_SECONDS = 0.1
"""How often finished processes are looked for."""


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study found.

    Attributes:
        name: Of the study.
        rows: One a arm: `arm`, `panel`, `series`, `x`, `overrides`, `command` and `measures`,
            where each measure has `mean`, `std` (None for a single seed) and `values`.
        findings: What the runs say about each claim.
        verdict: All findings in one word.
        page: The page in Markdown; table and plot lie beside it.
    """

    name: str
    rows: list[dict[str, Any]]
    findings: list[Finding]
    verdict: Verdict
    page: Path


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
    folder = (out or Path("runs") / f"study-{name}-{scale}").absolute()
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
        return _conclude(made, plan, jobs, command=command)


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
    for done, job in enumerate(_finished(waiting, plan, processes), start=1):
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


def _finished(jobs: list[Job], plan: Plan, processes: int) -> Iterator[Job]:
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
def _alone(folder: Path) -> Iterator[None]:
    """Two studies at once in one folder would write over each other's runs."""
    lock = folder / "running.pid"
    other = read_text(lock).strip()
    if other.isdecimal() and int(other) != os.getpid() and _alive(int(other)):
        raise UserError(f"{folder}: process {other} is carrying out a study there; give another --out")
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


def _conclude(made: Study, plan: Plan, jobs: Sequence[Job], *, command: str) -> StudyResult:
    """Table, plot, verdict and page from the results of all runs."""
    results = {(job.arm, job.seed): _read(job) for job in jobs}
    seeds = sorted({job.seed for job in jobs})
    values = {
        arm.name: {
            key: [float(results[arm.name, seed]["measures"][key]) for seed in seeds]
            for key in results[arm.name, seeds[0]]["measures"]
        }
        for arm in plan.arms
    }
    findings = [judge(claim, values) for claim in plan.claims]
    first = jobs[0]
    commands = {job.arm: job.command(plan) for job in jobs if job.seed == seeds[0]}
    page = Page(
        study=made,
        plan=plan,
        values=values,
        findings=findings,
        commands=commands,
        facts={
            "command": command or f"study('{made.name}', scale='{first.scale}')",
            "machine": _machine(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "versions": ", ".join(f"{key} {value}" for key, value in versions().items()),
            "data": "; ".join(_data(jobs)),
            "seeds": ", ".join(map(str, seeds)),
            "budget": plan.budget,
            "time": _time(results.values()),
        },
    )
    rows = [
        {
            "arm": arm.name,
            "panel": arm.panel,
            "series": arm.series,
            "x": arm.x,
            "overrides": list(arm.overrides),
            "command": commands[arm.name],
            "measures": {
                key: {
                    "mean": mean(found),
                    "std": stdev(found) if len(found) > 1 else None,
                    "values": found,
                }
                for key, found in values[arm.name].items()
            },
        }
        for arm in plan.arms
    ]
    verdict = overall(finding.verdict for finding in findings)
    path = first.folder / f"{made.name}.md"
    table = {
        "name": made.name,
        "scale": first.scale,
        "verdict": verdict,
        "claims": [
            {"claim": f.claim.text, "published": f.claim.published}
            | {"verdict": f.verdict, "reason": f.reason}
            for f in findings
        ],
        "rows": rows,
        **page.facts,
    }
    write_atomically(
        path.with_suffix(".json"), (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()
    )
    write_atomically(path.with_suffix(".png"), plot(page))
    write_atomically(path, markdown(page, verdict).encode())
    return StudyResult(made.name, rows, findings, verdict, path)


def _read(job: Job) -> dict[str, Any]:
    result = read_result(job)
    assert result is not None, "every run was just made"
    return result


def _machine() -> str:
    lines = read_text(Path("/proc/cpuinfo")).splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    memory = usable_memory()[0] / 2**30
    text = f"{name}, {usable_cores():g} usable cores, {memory:.0f} GiB, {platform.system()}"
    if torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


def _data(jobs: Sequence[Job]) -> list[str]:
    places = dict.fromkeys(job.data for job in jobs)
    return [described(Path(place)) or place for place in places]


def _time(results: Any) -> str:
    seconds = [result["cpu_seconds"] for result in results]
    return (
        f"{len(seconds)} runs of {mean(seconds):.0f} CPU seconds on average, "
        f"{sum(seconds) / 60:.0f} CPU minutes in all"
    )
