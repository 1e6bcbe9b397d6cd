"""Carrying out a study, with a made-up one whose runs cost nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vitrail.errors import ConfigError, UserError
from vitrail.studies import STUDIES
from vitrail.studies.claims import Claim, above
from vitrail.studies.data import Whole
from vitrail.studies.run import study
from vitrail.studies.study import Arm, Job, Measure, Plan, Study
from vitrail.studies.worker import from_text, to_text

VALUES = {"plain": 0.50, "better": 0.70}


class Counted:
    """Runs that take no time; how many there were is counted."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.fail_at = -1

    def __call__(self, job: Job, plan: Plan) -> dict[str, float]:
        if len(self.runs) == self.fail_at:
            raise KeyboardInterrupt
        self.runs.append((job.arm, job.seed))
        value = VALUES[plan.arm(job.arm).series or job.arm] + 0.01 * job.seed
        return {"top1": value, "seconds": 3.0}


def made_up(run: Callable[[Job, Plan], dict[str, float]], *, lines: bool = False) -> Study:
    arms = (Arm("plain"), Arm("better", ("model.drop_path=0.1",)))
    if lines:
        arms = tuple(
            Arm(f"{series}-{x}", (f"model.drop_path=0.{x}",), "panel", series, x)
            for series in VALUES
            for x in (2, 4)
        )
    high, low = (arms[1], arms[0]) if not lines else (arms[2], arms[0])
    return Study(
        name="made-up",
        title="A study",
        question="Is it better?",
        published="It is.",
        measures=(Measure("top1", "top-1"), Measure("seconds", "s", percent=False, plotted=False)),
        plans={
            "small": Plan(
                arms=arms,
                claims=(Claim("it is better", "yes", (above(high.name, low.name),)),),
                data=Whole("digits"),
                budget="nothing",
            )
        },
        run=run,
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    runs = Counted()
    monkeypatch.setitem(STUDIES, "made-up", made_up(runs))
    return runs


def test_arms_times_seeds_give_rows_verdict_and_page(tmp_path: Path, counted: Counted) -> None:
    said: list[str] = []
    result = study(
        "made-up",
        out=tmp_path,
        processes=0,
        command="vitrail study made-up",
        listener=lambda event: said.append(event.text),
    )
    assert len(counted.runs) == 6
    assert result.verdict == "agrees"
    better = result.rows[1]
    assert better["arm"] == "better"
    assert better["measures"]["top1"]["values"] == pytest.approx([0.70, 0.71, 0.72])
    assert better["measures"]["top1"]["mean"] == pytest.approx(0.71)
    assert better["measures"]["top1"]["std"] == pytest.approx(0.01)
    assert better["command"] == (
        "vitrail train digits --recipe small-images --set model.drop_path=0.1 --set seed=0"
    )
    assert said[-1].startswith("6/6 better, seed 2: top1 0.72")
    page = result.page.read_text(encoding="utf-8")
    assert "Verdict against what was published: **agrees**" in page
    assert "| better | 71.00 ± 1.00 | 3 |" in page
    assert "`vitrail study made-up`" in page
    assert (tmp_path / "made-up.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((tmp_path / "made-up.json").read_text(encoding="utf-8"))
    assert table["rows"] == result.rows
    assert not (tmp_path / "running.pid").exists()


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, counted: Counted) -> None:
    counted.fail_at = 4
    with pytest.raises(KeyboardInterrupt):
        study("made-up", out=tmp_path, processes=0)
    counted.fail_at = -1
    said: list[str] = []
    study("made-up", out=tmp_path, processes=0, listener=lambda event: said.append(event.text))
    assert len(counted.runs) == 6
    assert said[0] == "4 of 6 runs are done already"
    study("made-up", out=tmp_path, processes=0, seeds=4)
    assert counted.runs[6:] == [("plain", 3), ("better", 3)]


def test_a_result_of_another_recipe_or_a_damaged_one_is_made_again(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    study("made-up", out=tmp_path, processes=0)
    (tmp_path / "runs" / "plain-0.json").write_text("{", encoding="utf-8")
    old = STUDIES["made-up"]
    plan = old.plans["small"]
    changed = (plan.arms[0], replace(plan.arms[1], overrides=("model.drop_path=0.2",)))
    plans = {"small": replace(plan, arms=changed)}
    monkeypatch.setitem(STUDIES, "made-up", replace(old, plans=plans))
    study("made-up", out=tmp_path, processes=0)
    assert sorted(counted.runs[6:]) == [*(("better", seed) for seed in range(3)), ("plain", 0)]


def test_a_study_against_a_length_has_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUDIES, "made-up", made_up(Counted(), lines=True))
    result = study("made-up", out=tmp_path, processes=0)
    page = result.page.read_text(encoding="utf-8")
    assert "### panel: top-1" in page
    assert "| top-1, % | 2 | 4 |" in page
    assert "| better | 71.00 ± 1.00 | 71.00 ± 1.00 |" in page


def test_too_few_runs_resolve_nothing(tmp_path: Path, counted: Counted) -> None:
    result = study("made-up", out=tmp_path, processes=0, seeds=1)
    assert result.verdict == "not resolved"
    assert result.rows[0]["measures"]["top1"]["std"] is None


def test_an_unknown_study() -> None:
    with pytest.raises(ConfigError, match="unknown study 'postions'; did you mean 'positions'"):
        study("postions")


def test_two_studies_in_one_folder(tmp_path: Path, counted: Counted) -> None:
    (tmp_path / "running.pid").write_text(str(os.getppid()), encoding="utf-8")
    with pytest.raises(UserError, match="is carrying out a study there; give another --out"):
        study("made-up", out=tmp_path, processes=0)
    (tmp_path / "running.pid").write_text("4194999", encoding="utf-8")
    study("made-up", out=tmp_path, processes=0)


def test_a_job_travels_as_text(tmp_path: Path) -> None:
    job = Job("made-up", "small", "plain", 1, "digits", tmp_path)
    assert from_text(to_text(job)) == job


@pytest.fixture
def one_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study `tokens` with its first arm alone; processes see the whole study."""
    tokens = STUDIES["tokens"]
    plan = tokens.plans["smoke"]
    plans = {"smoke": replace(plan, arms=plan.arms[:1], claims=())}
    monkeypatch.setitem(STUDIES, "tokens", replace(tokens, plans=plans))


@pytest.mark.usefixtures("one_arm")
def test_runs_in_processes_of_their_own(tmp_path: Path) -> None:
    result = study("tokens", scale="smoke", out=tmp_path, seeds=1, processes=2)
    assert 0 <= result.rows[0]["measures"]["top1"]["mean"] <= 1
    assert (tmp_path / "runs" / "patches-0" / "metrics.jsonl").is_file()


@pytest.mark.usefixtures("one_arm")
def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"patches, seed 0: no.*no such file.*patches-0\.log"):
        study("tokens", scale="smoke", out=tmp_path, seeds=1, processes=1, data="no/such")
