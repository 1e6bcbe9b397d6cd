"""Whole runs on generated images: in goes data, out comes a model that predicts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pictures import QUICK, write_folder, write_multilabel, write_zip
from vitrail.data.open import open_images, open_labelled
from vitrail.errors import ConfigError, UserError
from vitrail.evaluate import evaluate
from vitrail.predict import predict
from vitrail.train import run as run_module
from vitrail.train.run import Said, TrainResult, train
from vitrail.weights.modelfile import load_model

FILES = (
    *("checkpoints", "config.toml", "evaluation.json", "metrics.jsonl", "model.safetensors"),
    *("quarantine.csv", "report.html", "run.json", "tensorboard", "test-predictions.jsonl"),
)


def empty_report(run: Path, **_: object) -> Path:
    """In the place of the real one, whose plots take seconds."""
    (run / "report.html").write_text("", encoding="utf-8")
    return run / "report.html"


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "write_report", empty_report)


def quick(data: Path, out: Path, *changes: str, **options: Any) -> TrainResult:
    return train(str(data), overrides=(*QUICK, *changes), out=out, **options)


def test_a_folder(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", bad=("red/bad.png", "blue/bad.png"))
    said: list[str] = []
    result = quick(
        data,
        tmp_path / "run",
        command="vitrail train data",
        listener=lambda event: said.append(event.text) if isinstance(event, Said) else None,
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(FILES)
    assert said[0].startswith(f"data: {data}: folder of classes")
    assert said[1].startswith("recipe: small-images (images are about 8 pixels large")
    with (tmp_path / "run" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == {"red/bad.png", "blue/bad.png"}
    assert result.quarantined == 2
    model, provenance = load_model(result.model)
    assert model.config.task.classes == ("blue", "green", "red")
    assert provenance.metrics == result.metrics
    info = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert info["command"] == "vitrail train data"
    assert info["best_epoch"] == result.best_epoch
    test = open_labelled(str(data), split="test")
    assert evaluate(model, test).metrics == result.metrics, "the file gives the same figures"


@pytest.mark.usefixtures("no_report")
def test_a_zip_in_place(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data.zip")
    result = quick(archive, tmp_path / "run")
    assert 0 <= result.metrics["top1"] <= 1
    model, _ = load_model(result.model)
    rows = list(predict(model, open_images([str(archive)])))
    assert len(rows) == 36
    assert all(row.prediction is not None for row in rows)


@pytest.mark.usefixtures("no_report")
def test_several_labels_an_image(tmp_path: Path) -> None:
    table = write_multilabel(tmp_path / "data")
    result = quick(table, tmp_path / "run", "class_weights=balanced", "mix.mixup=0.2")
    assert {"map", "exact_match", "f1"} <= result.metrics.keys()
    model, _ = load_model(result.model)
    assert model.config.task.multilabel
    evaluation = evaluate(model, open_labelled(str(table)))
    assert evaluation.count == 48
    row = next(iter(predict(model, open_images([str(table.parent / "01.png")]))))
    assert row.prediction is not None
    assert set(row.prediction.scores) == {"blue", "green", "red"}
    wanted = [name for name, score in row.prediction.scores.items() if score >= 0.5]
    assert row.prediction.label == ";".join(wanted)


@pytest.mark.usefixtures("no_report")
def test_resuming_a_finished_run_is_harmless(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", bad=[f"red/bad{i}.png" for i in range(36)])
    first = quick(data, tmp_path / "run")
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("quarantine.csv",)}
    kept["metrics.jsonl"] = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    weights = load_file(first.model)
    again = train(out=tmp_path / "run", resume=True)
    assert again.metrics == first.metrics
    assert (again.best_epoch, again.quarantined) == (first.best_epoch, first.quarantined)
    assert first.quarantined == 36
    assert {row.split(b",")[0] for row in kept["quarantine.csv"].splitlines()[1:]} == {
        b"train",
        b"val",
        b"test",
    }
    for name, content in kept.items():
        assert (tmp_path / "run" / name).read_bytes() == content, name
    same = load_file(again.model)
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (("model.name=vit_nano_conv2_9",), "unknown model 'vit_nano_conv2_9'; did you mean"),
        (("stop.metric=map",), "stop.metric = 'map' is not measured"),
        (("run.device=toaster",), "device 'toaster' is not usable here"),
        (("optim.leraning=1",), "unknown key 'optim.leraning'"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    changes: tuple[str, ...], wanted: str, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data")
    with pytest.raises(ConfigError) as caught:
        quick(data, tmp_path / "run", *changes)
    assert wanted in str(caught.value)
    assert not (tmp_path / "run").exists(), "so that the next try is not told it exists"


@pytest.mark.usefixtures("no_report")
def test_a_run_is_never_overwritten_and_its_recipe_never_changed(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    quick(data, tmp_path / "run", "schedule.epochs=1")
    with pytest.raises(UserError, match="holds a run already; go on with --resume"):
        quick(data, tmp_path / "run")
    with pytest.raises(UserError, match="leave the options away"):
        train(out=tmp_path / "run", resume=True, overrides=["optim.lr=1"])
    (data / "red" / "00.png").unlink()
    with pytest.raises(UserError, match="the data has changed since the run began"):
        train(out=tmp_path / "run", resume=True)
    (tmp_path / "run" / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        train(out=tmp_path / "run", resume=True)


def test_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run to resume below runs/"):
        train(resume=True)
    with pytest.raises(UserError, match="nowhere: no run to resume there"):
        train(resume=True, out=Path("nowhere"))


@pytest.mark.usefixtures("no_report")
def test_the_last_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data")
    result = train(str(data), overrides=(*QUICK, "schedule.epochs=1"))
    assert result.run.parent == Path("runs")
    assert result.run.name.startswith("data-")
    assert train(resume=True).run == result.run


@pytest.mark.usefixtures("no_report")
def test_seeds_are_everything(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    short = ("schedule.epochs=1", "augment.hflip=0.5")
    runs = [
        load_file(quick(data, tmp_path / str(i), *short, f"seed={seed}").model)
        for i, seed in enumerate((0, 0, 1))
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])
