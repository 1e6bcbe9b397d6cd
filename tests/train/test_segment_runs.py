"""Whole runs on masks: what goes in survives, what comes out is in the data's own terms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mask_runs import OBJECTS, QUICK, SEMANTIC, remask, write_masks
from segmenter import READOUTS, SIZE, SegmentList, segments, tiny_segmenter
from tiny import photo, tiny_config
from vitrail.backbones.vit import PatchStemConfig
from vitrail.data.dataset import Source
from vitrail.data.open import open_labelled
from vitrail.data.tiles import Tiles
from vitrail.errors import ConfigError, DataError, UserError
from vitrail.evaluate import evaluate
from vitrail.metrics.segmentation import SegmentationMetrics
from vitrail.model import Model
from vitrail.predict import predict
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.segmenters import MatchedReadout
from vitrail.train import objective
from vitrail.train import run as run_module
from vitrail.train.carry import carry
from vitrail.train.loop import selection_metric
from vitrail.train.objective import pixel_weights
from vitrail.train.recipe import Recipe, load_recipe
from vitrail.train.run import Progress, TrainResult, train
from vitrail.train.start import run_model_config
from vitrail.types import Batch, Segmentation, Segments
from vitrail.weights.modelfile import load_model
from vitrail.weights.origin import Origin


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(run: Path, **_: object) -> Path:
        return run / "report.html"

    monkeypatch.setattr(run_module, "write_report", empty)


def quick(data: Path, out: Path, *changes: str, **options: Any) -> TrainResult:
    return train(str(data), overrides=(*QUICK, *SEMANTIC, *changes), out=out, **options)


def test_a_run_on_masks(tmp_path: Path) -> None:
    """One class and a background: model, report and figures that the file gives again."""
    data = write_masks(tmp_path / "data")
    remask(data, 3, np.zeros((9, 9), dtype=np.uint8))
    result = quick(data, tmp_path / "run", "data.views=3")
    assert result.task == "segment"
    assert {"f1", "dice", "miou", "cldice"} <= result.metrics.keys()
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    with (tmp_path / "run" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["id"]).name for row in rows] == ["03.png"], "once, in however many views"
    model, provenance = load_model(result.model)
    task = model.config.task
    assert isinstance(task, SegmentConfig)
    assert task.classes == ("foreground",)
    assert task.binary
    assert isinstance(model.config.preprocess.resize, Tiles)
    assert provenance.metrics == result.metrics
    val = evaluate(model, open_labelled(str(data), split="val")).result
    assert isinstance(val, SegmentationMetrics)
    assert val.threshold is not None
    assert task.threshold == pytest.approx(val.threshold, abs=1e-3)
    test = open_labelled(str(data), split="test")
    found = evaluate(model, test)
    assert found.metrics == result.metrics
    told = {Path(row.path).name: row.prediction for row in predict(model, test)}
    for row in found.rows:
        assert isinstance(row.prediction, Segmentation)
        assert row.prediction == told[Path(row.path).name]
        assert row.prediction.size == (40, 48)


@pytest.mark.usefixtures("no_report")
def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data")
    more = ("run.checkpoint_steps=1", "data.views=2", "segment.augment.hflip=0.5")
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


@pytest.mark.usefixtures("no_report")
def test_several_classes_with_weights(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", classes=2)
    result = quick(data, tmp_path / "run", "class_weights=balanced", "schedule.epochs=1")
    model, _ = load_model(result.model)
    assert model.config.task.classes == ("class 1", "class 2")
    info = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert info["selection_metric"] == "miou"
    assert "threshold" not in info


@pytest.mark.usefixtures("no_report")
def test_a_run_on_objects(tmp_path: Path) -> None:
    data = write_objects(tmp_path / "data")
    result = train(str(data), task="segment", overrides=(*QUICK, *OBJECTS), out=tmp_path / "run")
    assert {"mask_map", "mask_map50", "dice", "pq"} <= result.metrics.keys()
    model, _ = load_model(result.model)
    assert isinstance(model.config.task, SegmentConfig)
    assert model.config.task.answer == "instance"
    test = open_labelled(str(data), split="test", task="segment")
    assert evaluate(model, test).metrics == result.metrics


@pytest.mark.usefixtures("no_report")
def test_a_head_that_tells_pixels_learns_from_objects(tmp_path: Path) -> None:
    """It answers with classes, and is judged as such; so does one that goes on from its weights."""
    data = write_objects(tmp_path / "data")
    plain = ('segment.readout={kind="linear"}', "schedule.epochs=1")
    result = train(str(data), task="segment", overrides=(*QUICK, *plain), out=tmp_path / "run")
    model, _ = load_model(result.model)
    assert isinstance(model.config.task, SegmentConfig)
    assert model.config.task.answer == "semantic"
    assert "miou" in result.metrics
    again = train(
        str(data),
        task="segment",
        weights=str(result.model),
        overrides=("schedule.epochs=1", "data.batch_size=4", 'data.workers={kind="serial"}'),
        out=tmp_path / "again",
    )
    assert "miou" in again.metrics


def write_objects(folder: Path) -> Path:
    """The same images with the outline of each square, as YOLO polygons."""
    write_masks(folder)
    (folder / "labels").mkdir()
    for file in sorted((folder / "masks").iterdir()):
        with Image.open(file) as image:
            rows, columns = np.nonzero(np.array(image))
        left, right = columns.min() / 48, (columns.max() + 1) / 48
        top, bottom = rows.min() / 40, (rows.max() + 1) / 40
        corners = [left, top, right, top, right, bottom, left, bottom]
        line = " ".join(["0", *(f"{c:.6f}" for c in corners)])
        (folder / "labels" / f"{file.stem}.txt").write_text(line + "\n", encoding="utf-8")
        file.unlink()
    (folder / "masks").rmdir()
    (folder / "data.yaml").write_text("names: [square]\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("mix.mixup=0.2", "not masks"),
        ("augment.hflip=0.5", "knows nothing of masks"),
        ("transcribe.width=8", "the data has masks"),
        ("detect.readout.width=16", "the data has masks"),
        ("stop.metric=top1", "is not measured on this data"),
        ("stop.metric=mask_map", "take one of f1"),
        ('segment.readout={kind="lienar"}', "linear"),
    ],
)
def test_what_masks_cannot_have_is_refused(tmp_path: Path, change: str, why: str) -> None:
    data = write_masks(tmp_path / "data", count=8)
    options = (*QUICK, change) if "lienar" in change else (*QUICK, *SEMANTIC, change)
    with pytest.raises(ConfigError, match=why):
        train(str(data), overrides=options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_task_is_refused(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", count=8)
    with pytest.raises(UserError, match="--task detect"):
        train(str(data), overrides=QUICK, out=tmp_path / "run", task="detect")


def test_no_foreground_in_the_whole_set_is_named(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", count=8)
    for index in range(8):
        remask(data, index, np.zeros((40, 48), dtype=np.uint8))
    with pytest.raises(DataError, match="every mask is empty: no value but 0 in 8 files"):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_but_void_in_the_whole_set_is_named(tmp_path: Path) -> None:
    """255 beside other values nobody judges; here there is no other."""
    data = write_masks(tmp_path / "data", classes=2, count=8)
    (data / "classes.txt").write_text("background\nsquare\nother\n", encoding="utf-8")
    for index in range(8):
        remask(data, index, np.full((40, 48), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="empty or void: no pixel of square, other in 8 files"):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_report")
def test_images_that_nobody_judges_do_not_spoil_a_run(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", classes=2)
    for index in range(0, 20, 4):
        remask(data, index, np.full((40, 48), 255, dtype=np.uint8))
    result = quick(data, tmp_path / "run", "schedule.epochs=1", "segment.augment.rare=1.0")
    assert all(np.isfinite(value) for value in result.metrics.values())


def source_of(part: SegmentList) -> Source:
    return Source(
        "data", "a list", "made here", dict.fromkeys(("train", "val", "test"), part), (), "0"
    )


def some(kind: Any, *, background: bool = True) -> SegmentList:
    targets = [segments("111.", "..22"), segments("1...", "....")]
    return SegmentList([photo(0), photo(1)], targets, kind=kind, background=background)


@pytest.mark.parametrize(
    ("recipe", "kind", "answer", "metric"),
    [
        ("segment", "semantic", "semantic", "miou"),
        ("segment", "instance", "semantic", "miou"),
        ("segment", "panoptic", "semantic", "miou"),
        ("segment-objects", "instance", "instance", "mask_map"),
        ("segment-objects", "panoptic", "panoptic", "pq"),
        ("segment-objects", "semantic", "semantic", "miou"),
    ],
)
def test_the_answer_and_its_metric_follow_from_head_and_data(
    recipe: str, kind: str, answer: str, metric: str
) -> None:
    train_part = some(kind)
    wanted = load_recipe(recipe)
    config = run_model_config(wanted, source_of(train_part))
    assert isinstance(config.task, SegmentConfig)
    assert config.task.answer == answer
    task = Segment(config.task, (8,), (8,))
    assert selection_metric(task, train_part, wanted) == metric


def origin_of(model: Model) -> Origin:
    return Origin(
        source="file",
        name="x",
        backbone=model.config.backbone,
        task=model.config.task,
        preprocess=model.config.preprocess,
        state=dict(model.state_dict()),
        licence="",
        sha256="",
    )


def test_a_head_of_weights_keeps_its_form() -> None:
    origin = origin_of(tiny_segmenter("class queries", classes=("ant",)))
    config = run_model_config(load_recipe("segment-fine-tune"), source_of(some("instance")), origin)
    assert isinstance(config.task, SegmentConfig)
    assert config.task.readout == READOUTS["class queries"]
    assert (config.task.classes, config.task.answer) == (("ant", "bee"), "semantic")
    with pytest.raises(ConfigError, match=r"segment\.readout: the weights are those of a segm"):
        run_model_config(
            load_recipe("segment-fine-tune", ['segment.readout={kind="linear"}']),
            source_of(some("semantic")),
            origin,
        )


def test_weights_of_pixels_by_hand() -> None:
    """Inverse square roots of the shares, with a mean of 1 over the pixels."""
    task = tiny_segmenter("linear").task
    assert isinstance(task, Segment)
    found = pixel_weights(some("semantic"), task)
    shares = torch.tensor([10, 4, 2]) / 16
    expected = shares.rsqrt() / (shares.sqrt()).sum()
    torch.testing.assert_close(found, expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "COUNTED", 1)
        few = pixel_weights(some("semantic"), task)
    assert (few > 0).all(), "a class that was not counted must not be left out"
    without = tiny_segmenter("linear", background=False).task
    assert isinstance(without, Segment)
    assert pixel_weights(some("semantic", background=False), without).shape == (2,)
    matched = tiny_segmenter("matched queries").task
    assert isinstance(matched, Segment)
    with pytest.raises(ConfigError, match="class_weights: queries are matched"):
        pixel_weights(some("semantic"), matched)


def test_sizes_and_numbers_of_objects_are_taken_beside_weights() -> None:
    old = tiny_segmenter("matched queries", answer="instance", min_area=3)
    changes = ("segment.max_regions=7", "segment.min_area=9")
    for overrides, expected in ((changes, (9, 7)), (changes[:1], (3, 7)), ((), (3, 100))):
        recipe = load_recipe("segment-fine-tune", overrides=overrides)
        config = run_model_config(recipe, source_of(some("instance")), origin_of(old))
        assert isinstance(config.task, SegmentConfig)
        assert (config.task.min_area, config.task.max_regions) == expected


@pytest.mark.parametrize("head", READOUTS)
def test_classes_that_a_file_knows_keep_their_rows(head: str) -> None:
    """With the same images and weights they give the same logits, wherever they stand now."""
    old = tiny_segmenter(head, classes=("ant", "bee", "cat"))
    config = old.config.task.model_copy(update={"classes": ("cat", "emu", "ant")})
    new = Model(old.config.model_copy(update={"task": config}))
    rows = carry(origin_of(old), new)
    assert rows[-1].done == "taken; of 3 classes 2 by name, 1 new"
    images = torch.stack([photo(0, *SIZE)])
    with torch.no_grad():
        was, now = old(images).logits, new.eval()(images).logits
    axis = 2 if isinstance(config.readout, MatchedReadout) else 1
    if head == "segmenter":  # whose last norm runs over the classes
        assert torch.equal(old.task.segmenter.queries[:, 2], new.task.segmenter.queries[:, 0])
        return
    if head == "matched queries":  # which are chosen by their surest class
        was, now = old.task.segmenter.detector.classify, new.task.segmenter.detector.classify
        was, now, axis = was.weight, now.weight, 0
    torch.testing.assert_close(now.select(axis, 0), was.select(axis, 2))
    torch.testing.assert_close(now.select(axis, 2), was.select(axis, 0))
    if head == "eomt":
        torch.testing.assert_close(now[..., 3], was[..., 3], msg="no segment")


def test_a_head_for_patches_of_another_size_is_new() -> None:
    old = tiny_segmenter("linear pixels")
    backbone = tiny_config(image_size=SIZE, stem=PatchStemConfig(patch_size=8))
    rows = carry(origin_of(old), Model(old.config.model_copy(update={"backbone": backbone})))
    assert rows[-1].done == "new: the head is made for patches of another size"


@pytest.mark.parametrize("readout", ["matched queries", "eomt"])
def test_masks_are_judged_in_full_precision(readout: str) -> None:
    """Under autocast a product of float32 numbers would be one of 8 bits, a mask's loss with it."""
    model = tiny_segmenter(readout, answer="instance").train()
    squares = torch.zeros((2, 1, *SIZE), dtype=torch.int16)
    squares[0, 0, 4:20, 6:30], squares[1, 0, 9:28, 2:20] = 1, 2
    targets = (Segments(squares[0], (0,)), Segments(squares[1], (1, 0)))
    images = torch.stack([photo(seed, *SIZE) for seed in range(2)])
    data = SegmentList(list(images), targets, kind="instance")
    assert isinstance(model.task, Segment)
    judge = objective.SegmentObjective(model, model.task, data, Recipe())
    output = model(images)
    judge.forward = lambda *_: output
    batch, rng = Batch(("a", "b"), images, targets), np.random.default_rng(0)
    wanted, _ = judge(images, batch, rng)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = judge(images, batch, rng)
    assert torch.equal(found, wanted)
