"""Whole runs on boxes: what goes in survives, what comes out is in the data's own terms."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from box_runs import QUICK, write_boxes
from tiny import BoxSet
from vitrail.data.dataset import Source
from vitrail.data.open import open_labelled
from vitrail.data.preprocess import Fit, Preprocess, Squash
from vitrail.errors import ConfigError, DataError, UserError
from vitrail.evaluate import evaluate
from vitrail.metrics.detection import DetectionMetrics
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detect import Detect, DetectConfig
from vitrail.train import run as run_module
from vitrail.train.carry import carry
from vitrail.train.recipe import load_recipe
from vitrail.train.run import Progress, TrainResult, train
from vitrail.train.start import run_model_config
from vitrail.types import Box, Boxes, Detection
from vitrail.weights.modelfile import load_model
from vitrail.weights.origin import Origin

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(run: Path, **_: object) -> Path:
        return run / "report.html"

    monkeypatch.setattr(run_module, "write_report", empty)


def quick(data: Path, out: Path, *changes: str, **options: Any) -> TrainResult:
    return train(str(data), overrides=(*QUICK, *changes), out=out, **options)


def test_a_run_on_boxes(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data", "03.png,9,9,9,12,red", "05.png,nan,1,5,5,red")
    result = quick(data, tmp_path / "run")
    assert result.task == "detect"
    assert {"map", "map50", "map75"} <= result.metrics.keys()
    with (tmp_path / "run" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        assert {Path(row["id"]).name for row in csv.DictReader(file)} == {"03.png", "05.png"}
    model, provenance = load_model(result.model)
    assert set(model.config.task.classes) == {"red", "green"}
    assert provenance.metrics == result.metrics
    assert isinstance(model.config.task, DetectConfig)
    val = evaluate(model, open_labelled(str(data), split="val")).result
    assert isinstance(val, DetectionMetrics)
    assert model.config.task.threshold == pytest.approx(val.threshold, abs=1e-3)
    test = open_labelled(str(data), split="test")
    found = evaluate(model, test)
    assert found.metrics == result.metrics, "the file gives the same figures"
    row = found.rows[0].prediction
    assert isinstance(row, Detection)
    assert all(0 <= x <= 48 and 0 <= y <= 40 for box in row.boxes for x, y in (box[:2], box[2:]))


def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data")
    more = (
        "run.checkpoint_steps=1",
        "detect.augment.mosaic=0.5",
        "detect.readout.queries.groups=2",
    )
    whole = quick(data, tmp_path / "whole", *more)

    def stop(event: object) -> None:
        if isinstance(event, Progress) and (event.epoch, event.batch) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "cut", *more, listener=stop)
    resumed = train(out=tmp_path / "cut", resume=True)
    assert resumed.metrics == whole.metrics
    a, b = load_file(whole.model), load_file(resumed.model)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_images_of_many_shapes_are_filled_up(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data")
    for index in range(0, 20, 3):
        with Image.open(data.parent / f"{index:02}.png") as image:
            image.resize((48, 80)).save(data.parent / f"{index:02}.png")
    result = quick(data, tmp_path / "run", "model.resize=fit")
    model, _ = load_model(result.model)
    assert isinstance(model.config.preprocess.resize, Fit)
    assert evaluate(model, open_labelled(str(data), split="test")).metrics == result.metrics


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("mix.mixup=0.2", "mixes classes, not boxes"),
        ("augment.hflip=0.5", "knows nothing of boxes"),
        ("class_weights=balanced", "works for classes"),
        ("transcribe.width=8", "no texts"),
        ("stop.metric=top1", "is not measured on this data"),
    ],
)
def test_what_boxes_cannot_have_is_refused(tmp_path: Path, change: str, why: str) -> None:
    data = write_boxes(tmp_path / "data")
    with pytest.raises(ConfigError, match=why):
        quick(data, tmp_path / "run", change)
    assert not (tmp_path / "run").exists()


def test_another_task_is_refused(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data")
    with pytest.raises(UserError, match="labelled with boxes, which fits --task detect"):
        quick(data, tmp_path / "run", task="classify")


def test_no_boxes_at_all(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data")
    data.write_text("path,x1,y1,x2,y2,label\n00.png,,,,,\n01.png,,,,,\n", encoding="utf-8")
    with pytest.raises(DataError):
        quick(data, tmp_path / "run")


def source_of(classes: tuple[str, ...], ids: tuple[int, ...] | None = None) -> Source:
    part = BoxSet(classes, [Boxes((Box((2, 2, 9, 9), 0),), (32, 48))] * 4)
    part.category_ids = ids
    return Source(
        "data", "a list", "made here", dict.fromkeys(("train", "val", "test"), part), (), "0"
    )


def origin_of(model: Model) -> Origin:
    config = model.config
    return Origin(
        source="file",
        name="x",
        backbone=config.backbone,
        task=config.task,
        preprocess=config.preprocess,
        state=dict(model.state_dict()),
        licence="",
        sha256="",
    )


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_classes_that_a_file_knows_keep_their_rows(scoring: str) -> None:
    recipe = load_recipe("detect", QUICK)
    torch.manual_seed(0)
    first = run_model_config(recipe, source_of(("cat", "dog", "owl"), (3, 7, 9)))
    assert isinstance(first.task, DetectConfig)
    assert first.task.category_ids == (3, 7, 9)
    task = first.task.model_copy(update={"scoring": scoring})
    old = Model(first.model_copy(update={"task": task}))
    tuning = load_recipe("detect-fine-tune", [c for c in QUICK if "readout" not in c])
    new_config = run_model_config(tuning, source_of(("owl", "emu")), origin_of(old))
    assert isinstance(new_config.task, DetectConfig)
    assert new_config.task.scoring == scoring
    assert new_config.task.category_ids is None
    torch.manual_seed(1)
    new = Model(new_config)
    fresh = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    table = carry(origin_of(old), new)
    assert table[-1].done == "taken; of 2 classes 1 by name, 1 new"
    assert isinstance(old.task, Detect)
    before, after = old.state_dict(), new.state_dict()
    rows = [name for name in after if after[name].shape != before[name].shape]
    assert len(rows) == 4, "weight and bias of the classifier, and of the proposer's"
    for name in rows:
        assert torch.equal(after[name][0], before[name][2]), "owl"
        assert torch.equal(after[name][1], fresh[name][1]), "emu is new"
        if scoring == "softmax":
            assert torch.equal(after[name][-1], before[name][-1]), "no object"
    assert all(torch.equal(after[n], before[n]) for n in after if n not in rows)


def test_the_size_follows_from_weights_or_the_recipe() -> None:
    recipe, source = load_recipe("detect", QUICK), source_of(("cat",))
    config = run_model_config(recipe, source)
    assert config.preprocess.resize == Squash(size=(32, 32))
    fit = config.model_copy(
        update={"preprocess": Preprocess(resize=Fit(short=800, long=1333, multiple=1))}
    )
    origin = origin_of(Model(ModelConfig(**dict(fit))))
    own = [c for c in QUICK if "image_size" not in c and "readout" not in c]
    without = load_recipe("detect-fine-tune", own)
    kept = run_model_config(without, source, origin).preprocess.resize
    assert kept == Fit(short=800, long=1333, multiple=32)


def test_weights_of_a_detector_go_on(tmp_path: Path) -> None:
    """New data with one class more; batch norms keep the statistics that they came with."""
    data = write_boxes(tmp_path / "data")
    first = quick(data, tmp_path / "first")
    with data.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}.png,1,1,9,9,blue\n" for name in ("02", "04", "06"))
    said: list[str] = []
    more = ("schedule.epochs=1", "data.batch_size=4", 'data.workers={kind="serial"}')
    second = train(
        str(data),
        weights=str(first.model),
        overrides=more,
        out=tmp_path / "second",
        listener=lambda event: said.append(str(event)),
    )
    assert any("of 3 classes 2 by name, 1 new" in text for text in said)
    before, after = load_file(first.model), load_file(second.model)
    kept = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    moved = [n for n in before if n not in kept and not torch.equal(before[n], after[n])]
    assert moved


def test_a_readout_beside_the_weights_of_a_detector_is_refused(tmp_path: Path) -> None:
    """They bring their own; what a person asks for is never passed over in silence."""
    data = write_boxes(tmp_path / "data")
    first = quick(data, tmp_path / "first", "schedule.epochs=1")
    with pytest.raises(ConfigError, match=r"detect\.readout: the weights are those of a detector"):
        train(
            str(data),
            weights=str(first.model),
            overrides=("detect.readout={depth=2}",),
            out=tmp_path / "second",
        )
    assert not (tmp_path / "second").exists()
