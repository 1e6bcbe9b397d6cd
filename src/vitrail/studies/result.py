"""From the results of all runs to rows, verdict and page."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from vitrail.machine import read_text, usable_cores, usable_memory
from vitrail.studies.claims import Figures, Finding, Verdict, judge, overall
from vitrail.studies.data import described
from vitrail.studies.page import Page, markdown, plot
from vitrail.studies.study import Arm, Job, Plan, Study
from vitrail.studies.worker import read_result
from vitrail.weights.modelfile import versions, write_atomically


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study found.

    Attributes:
        name: Of the study.
        rows: One an arm: `arm`, `panel`, `series`, `x`, `overrides`, `command` (with seed 0) and
            `measures`, where each measure has `mean`, `std` (None for a single seed) and `values`.
        findings: What the runs say about each claim.
        verdict: All findings in one word.
        page: The page in Markdown; table (.json) and plot (.png) lie beside it.
    """

    name: str
    rows: list[dict[str, Any]]
    findings: list[Finding]
    verdict: Verdict
    page: Path


def conclude(study: Study, plan: Plan, jobs: Sequence[Job], *, command: str) -> StudyResult:
    """Judge the claims and write table, plot and page; every run has been made."""
    results = {(job.arm, job.seed): _read(job) for job in jobs}
    values = _values(plan, results)
    commands = {job.arm: job.command(plan) for job in jobs if job.seed == jobs[0].seed}
    page = Page(
        study=study,
        plan=plan,
        values=values,
        findings=[judge(claim, values) for claim in plan.claims],
        commands=commands,
        facts=_facts(plan, jobs, list(results.values()), command),
        appendix="" if study.appendix is None else study.appendix(jobs, plan),
    )
    rows = [_row(arm, values[arm.name], commands[arm.name]) for arm in plan.arms]
    verdict = overall(finding.verdict for finding in page.findings)
    path = jobs[0].folder / f"{study.name}.md"
    table = {
        "name": study.name,
        "scale": jobs[0].scale,
        "verdict": verdict,
        "claims": [_claim(finding) for finding in page.findings],
        "rows": rows,
        **page.facts,
    }
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), text.encode())
    write_atomically(path.with_suffix(".png"), plot(page))
    write_atomically(path, markdown(page, verdict).encode())
    return StudyResult(study.name, rows, list(page.findings), verdict, path)


def _read(job: Job) -> dict[str, Any]:
    result = read_result(job)
    assert result is not None, f"{job.result} was just made"
    return result


def _values(plan: Plan, results: Mapping[tuple[str, int], dict[str, Any]]) -> Figures:
    """Figures over the seeds in rising order, by arm and measure."""
    seeds = sorted({seed for _, seed in results})
    return {
        arm.name: {
            key: [float(results[arm.name, seed]["measures"][key]) for seed in seeds]
            for key in results[arm.name, seeds[0]]["measures"]
        }
        for arm in plan.arms
    }


def _row(arm: Arm, values: Mapping[str, Sequence[float]], command: str) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "panel": arm.panel,
        "series": arm.series,
        "x": arm.x,
        "overrides": list(arm.overrides),
        "command": command,
        "measures": {
            key: {
                "mean": mean(found),
                "std": stdev(found) if len(found) > 1 else None,
                "values": list(found),
            }
            for key, found in values.items()
        },
    }


def _claim(finding: Finding) -> dict[str, str]:
    return {
        "claim": finding.claim.text,
        "published": finding.claim.published,
        "verdict": finding.verdict,
        "reason": finding.reason,
    }


def _facts(
    plan: Plan, jobs: Sequence[Job], results: Sequence[dict[str, Any]], command: str
) -> dict[str, str]:
    """What must be known to repeat and to judge the figures."""
    places = dict.fromkeys(job.data for job in jobs)
    seconds = [result["cpu_seconds"] for result in results]
    return {
        "command": command or f"study('{jobs[0].study}', scale='{jobs[0].scale}')",
        "machine": _machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": ", ".join(f"{key} {value}" for key, value in versions().items()),
        "data": "; ".join(described(Path(place)) or place for place in places),
        "budget": plan.budget,
        "seeds": ", ".join(str(seed) for seed in sorted({job.seed for job in jobs})),
        "time": f"{len(seconds)} runs of {mean(seconds):.0f} CPU seconds on average, "
        f"{sum(seconds) / 60:.0f} CPU minutes in all",
    }


def _machine() -> str:
    lines = read_text(Path("/proc/cpuinfo")).splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    memory = usable_memory()[0] / 2**30
    text = f"{name}, {usable_cores():g} usable cores, {memory:.0f} GiB, {platform.system()}"
    if torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text
