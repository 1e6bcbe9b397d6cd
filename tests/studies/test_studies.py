"""Every study: its arms can be built at every scale, differ as they say, and run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from click.testing import CliRunner

from tiny import ListDataset
from vitrail.cli import cli
from vitrail.data.dataset import Source
from vitrail.model import Model
from vitrail.studies import STUDIES
from vitrail.studies.positions import shuffle
from vitrail.studies.study import Job, Scale
from vitrail.studies.worker import carry_out, read_result
from vitrail.train import run
from vitrail.train.recipe import load_recipe
from vitrail.train.run import run_model_config

EVERY = [(name, scale) for name in STUDIES for scale in get_args(Scale)]


def source() -> Source:
    part = ListDataset([None], [0], [f"class {i}" for i in range(10)])
    splits: dict[str, Any] = {"train": part, "val": part, "test": part}
    return Source("s", "list", "", splits, (), "")


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_arm_is_a_model_of_its_own(name: str, scale: Scale) -> None:
    plan = STUDIES[name].plans[scale]
    seen: set[str] = set()
    for arm in plan.arms:
        job = Job(name, scale, arm.name, 0, "digits", Path("out"))
        recipe = load_recipe(plan.recipe, job.overrides(plan))
        assert recipe.seed == 0
        with torch.device("meta"):
            Model(run_model_config(recipe, source()))
        seen.add(recipe.model_dump_json())
        assert "--recipe" in job.command(plan)
    assert len(seen) == len(plan.arms), "two arms are the same"


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_claim_is_about_arms_that_there_are(name: str, scale: Scale) -> None:
    plan = STUDIES[name].plans[scale]
    names = [arm.name for arm in plan.arms]
    assert len(set(names)) == len(names)
    assert all(arm.needs in ("", *names) for arm in plan.arms)
    measures = {measure.name for measure in STUDIES[name].measures}
    for claim in plan.claims:
        assert claim.parts
        assert claim.published
        for part in claim.parts:
            assert {term.arm for term in part.terms} <= set(names)
            assert {term.measure for term in part.terms} <= measures


@pytest.mark.parametrize("name", STUDIES)
def test_arms_share_their_budget(name: str) -> None:
    """What an arm changes is its model, its teacher, its head or its task, never the training.

    A teacher may be trained for longer: it is no part of the comparison.
    """
    for plan in STUDIES[name].plans.values():
        teachers = {arm.needs for arm in plan.arms}
        for arm in plan.arms:
            if arm.name in teachers:
                continue
            keys = {override.partition(".")[0] for override in arm.overrides}
            assert keys <= {"model", "distill", "segment", "augment", "mix"}
            if arm.series == "":
                assert keys <= {"model", "distill", "segment"}


def carried_out(tmp_path: Path, name: str, arm: str) -> dict[str, float]:
    plan = STUDIES[name].plans["smoke"]
    (tmp_path / "runs").mkdir(exist_ok=True)
    data = (plan.arm(arm).data or plan.data).prepare(tmp_path / "data", None)
    job = Job(name, "smoke", arm, 0, data, tmp_path)
    carry_out(job)
    result = read_result(job)
    assert result is not None
    assert not list((job.run / "checkpoints").glob("step-*"))
    return result["measures"]


def test_positions_run(tmp_path: Path) -> None:
    none = carried_out(tmp_path, "positions", "none")
    assert none["logit_change"] < 1e-5
    assert none["shuffled"] == none["same_shuffle"] == none["top1"]


def test_sequence_runs(tmp_path: Path) -> None:
    short = carried_out(tmp_path, "sequence", "recall-lstm-2")
    long = carried_out(tmp_path, "sequence", "recall-lstm-5")
    assert long["chain"] > short["chain"]
    assert short["steps"] > 0


def test_distillation_runs(tmp_path: Path) -> None:
    assert "class_head" not in carried_out(tmp_path, "distillation", "teacher")
    token = carried_out(tmp_path, "distillation", "token")
    assert 0 <= token["class_head"] <= 1
    assert 0 <= token["distillation_head"] <= 1


def test_windows_run(tmp_path: Path) -> None:
    measures = carried_out(tmp_path, "windows", "absolute")
    assert measures.keys() == {"top1", "seconds", "params"}


def test_a_run_of_tokens_is_repeated_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = carried_out(tmp_path, "tokens", "t2t_performer")
    plan = STUDIES["tokens"].plans["smoke"]
    job = Job("tokens", "smoke", "t2t_performer", 0, "digits", tmp_path)
    words = shlex.split(job.command(plan))
    monkeypatch.setattr(run, "write_report", lambda out, **_: out / "report.html")
    result = CliRunner().invoke(cli, [*words[1:], "--out", str(tmp_path / "again"), "--json"])
    assert result.exception is None, repr(result.exception)
    assert json.loads(result.stdout)["metrics"]["top1"] == measures["top1"]


def test_shuffle_moves_whole_patches() -> None:
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).reshape(2, 3, 4, 6)
    orders = torch.tensor([[5, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]])
    moved = shuffle(images, orders, 2)
    assert torch.equal(moved[1], images[1])
    assert torch.equal(moved[0, :, :2, :2], images[0, :, 2:, 4:])
    assert torch.equal(moved[0, :, :2, 2:4], images[0, :, :2, :2])
    back = shuffle(moved, orders.argsort(dim=1), 2)
    assert torch.equal(back, images)
