"""The loop: it learns, and an interruption leaves no trace in the result."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pictures import in_memory
from tiny import STEMS, ListDataset, photo, tiny_config
from vitrail.config import build, override
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import BadSampleError, ConfigError, ModelFileError, NonFiniteLossError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.train.checkpoint import load_checkpoint
from vitrail.train.interrupt import InterruptedRunError
from vitrail.train.log import read_metrics
from vitrail.train.loop import Trainer, selection_metric
from vitrail.train.objective import class_weights
from vitrail.train.progress import Progress
from vitrail.train.recipe import Recipe

BASE = ("schedule.epochs=2", "data.batch_size=4", "optim.lr=1e-3", 'data.workers={kind="serial"}')
EVERYTHING = (
    "ema=0.9",
    "class_weights=balanced",
    "optim.clip_grad=1.0",
    "optim.layer_decay=0.8",
    "optim.accumulate=2",
    "mix={mixup=0.8, cutmix=1.0, label_smoothing=0.1}",
    "data.repeats=3",
    "augment={hflip=0.5, erasing=0.5}",
    'augment.geometry={kind="random_resized_crop"}',
)


class StopError(Exception):
    """In the place of `kill -9`: nothing in the product catches it."""


def make_recipe(*changes: str) -> Recipe:
    return build(Recipe, override({}, [*BASE, *changes]), source="test")


def make_model(data: ListDataset, drop_path: float = 0.0, stem: int = 0) -> Model:
    torch.manual_seed(0)
    backbone = tiny_config(image_size=(8, 8), drop_path=drop_path, stem=STEMS[stem])
    return Model(
        ModelConfig(
            backbone=backbone,
            task=ClassifyConfig(classes=data.classes, multilabel=data.multilabel),
            preprocess=Preprocess(resize=CenterCrop(size=(8, 8), crop_pct=1.0)),
        )
    )


def make_trainer(
    run: Path,
    *changes: str,
    train: ListDataset | None = None,
    val: ListDataset | None = None,
    listener: Callable[[Progress], None] = lambda _: None,
    drop_path: float = 0.0,
    stem: int = 0,
) -> Trainer:
    train = train or in_memory()
    model = make_model(train, drop_path, stem)
    val = val or in_memory(9, seed=1)
    return Trainer(model, train, val, make_recipe(*changes), run, listener)


def stop_after(count: int) -> Callable[[Progress], None]:
    """A listener that ends training at its `count`-th call, counted from 1."""
    seen = [0]

    def listen(_: Progress) -> None:
        seen[0] += 1
        if seen[0] == count:
            raise StopError

    return listen


def weights(trainer: Trainer) -> str:
    """SHA-256 of weights and buffers, and of the average."""
    states = [trainer.model.state_dict(), trainer.ema.state if trainer.ema else {}]
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def epoch_rows(run: Path) -> list[dict[str, Any]]:
    rows = read_metrics(run / "metrics.jsonl")
    return [
        {k: v for k, v in row.items() if k not in {"seconds", "images_per_second"}} for row in rows
    ]


def test_it_learns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "schedule.epochs=12", "optim.lr=3e-3")
    position = trainer.fit()
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "epoch"]
    assert [row["epoch"] for row in rows] == list(range(12))
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert rows[-1]["val"]["top1"] >= 0.8
    assert position.finished
    assert position.step == 12 * 6
    assert position.best == max(row["val"]["top1"] for row in rows)
    assert rows[position.best_epoch]["best"]
    assert trainer.best_file.is_file()
    assert list((tmp_path / "tensorboard").iterdir())


CASES = [
    ('{kind="serial"}', (), 0.0, 1, (1, 2, 6, 7, 12)),
    ('{kind="serial"}', ("ema=0.9",), 0.5, 2, (1, 4, 7)),
    ('{kind="serial"}', EVERYTHING, 0.5, 1, (3, 4, 6)),
    ('{kind="threads", count=2}', EVERYTHING, 0.5, 2, (5,)),
    ('{kind="processes", count=2}', (), 0.0, 1, (8,)),
    ('{kind="processes", count=2}', EVERYTHING, 0.5, 1, (2, 5)),
]


@pytest.mark.parametrize(("workers", "changes", "drop_path", "every", "stops"), CASES)
def test_an_interruption_leaves_no_trace(
    workers: str,
    changes: Sequence[str],
    drop_path: float,
    every: int,
    stops: Sequence[int],
    tmp_path: Path,
) -> None:
    changes = (*changes, f"run.checkpoint_steps={every}", "run.log_steps=1")
    whole = make_trainer(tmp_path / "whole", *changes, drop_path=drop_path, stem=1)
    whole.fit()
    workers_too = (*changes, f"data.workers={workers}")
    for stop in stops:
        run = tmp_path / str(stop)
        cut = make_trainer(
            run, *workers_too, drop_path=drop_path, stem=1, listener=stop_after(stop)
        )
        with pytest.raises(StopError):
            cut.fit()
        resumed = make_trainer(run, *workers_too, drop_path=drop_path, stem=1)
        assert resumed.restore() == (stop > every)
        assert resumed.position.step < stop, "the step that was cut off is done again"
        resumed.fit()
        assert weights(resumed) == weights(whole)
        best = [load_file(trainer.best_file) for trainer in (resumed, whole)]
        assert best[0].keys() == best[1].keys()
        assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
        assert epoch_rows(run) == epoch_rows(tmp_path / "whole")


def test_a_kill_in_validation_writes_no_epoch_twice(tmp_path: Path) -> None:
    """The last checkpoint of an epoch is made before its row is written."""
    changes = ("run.checkpoint_steps=6",)  # at the end of each epoch, before validation
    whole = make_trainer(tmp_path / "whole", *changes)
    whole.fit()
    cut = make_trainer(tmp_path / "cut", *changes, listener=stop_after(7))
    with pytest.raises(StopError):
        cut.fit()
    kept = load_checkpoint(tmp_path / "cut" / "checkpoints")
    assert kept is not None
    again = make_trainer(tmp_path / "cut", *changes)
    again.restore()
    again.fit()
    assert epoch_rows(tmp_path / "cut") == epoch_rows(tmp_path / "whole")
    assert weights(again) == weights(whole)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = make_trainer(tmp_path)
    first.fit()
    rows = epoch_rows(tmp_path)
    second = make_trainer(tmp_path)
    assert second.restore()
    position = second.fit()
    assert position.finished
    assert weights(second) == weights(first)
    assert epoch_rows(tmp_path) == rows


def test_a_signal_saves_first(tmp_path: Path) -> None:
    def listen(progress: Progress) -> None:
        if progress.epoch == 0 and progress.batch == 3:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(tmp_path, listener=listen)
    with pytest.raises(InterruptedRunError, match="stopped; saved step-00000003") as caught:
        trainer.fit()
    assert caught.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    resumed = make_trainer(tmp_path)
    assert resumed.restore()
    assert (resumed.position.step, resumed.position.batch) == (3, 3)
    resumed.fit()
    whole = make_trainer(tmp_path / "whole")
    whole.fit()
    assert weights(resumed) == weights(whole)


def test_a_signal_in_validation_saves_first(tmp_path: Path) -> None:
    class Telling(ListDataset):
        told = False

        def read(self, index: int) -> Any:
            if not self.told:
                self.told = True  # a second one would end the process
                signal.raise_signal(signal.SIGINT)
            return super().read(index)

    plain = in_memory(9, seed=1)
    telling = Telling(plain.images, plain.targets, plain.classes)
    trainer = make_trainer(tmp_path, val=telling)
    with pytest.raises(InterruptedRunError) as caught:
        trainer.fit()
    assert caught.value.signal_number == signal.SIGINT
    resumed = make_trainer(tmp_path)
    resumed.restore()
    assert (resumed.position.epoch, resumed.position.batch) == (0, 6)
    resumed.fit()
    whole = make_trainer(tmp_path / "whole")
    whole.fit()
    assert weights(resumed) == weights(whole)
    assert epoch_rows(tmp_path) == epoch_rows(tmp_path / "whole")


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    with pytest.raises(ModelFileError, match=r"another recipe than config\.toml"):
        make_trainer(tmp_path, stem=1).restore()
    with pytest.raises(ModelFileError, match=r"another recipe than config\.toml"):
        make_trainer(tmp_path, "ema=0.9").restore()


def test_early_stopping_and_the_best_weights(tmp_path: Path) -> None:
    """The loss of useless weights falls at once, then no more: training with lr near 0."""
    changes = ("schedule.epochs=9", "optim.lr=1e-12", "stop.metric=nll", "stop.patience=2")
    data = in_memory(9, seed=1)
    trainer = make_trainer(tmp_path, *changes, val=data)
    position = trainer.fit()
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "epoch"]
    values = [row["val"]["nll"] for row in rows]
    assert position.finished
    best = max(i for i, value in enumerate(values) if value == min(values))
    assert position.best_epoch == best
    assert len(rows) == 9 or len(rows) == best + 3


def test_patience_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.train import loop

    values = iter([0.5, 0.7, 0.6, 0.6, 0.6, 0.9])
    real = loop.evaluate

    def scripted(*args: Any, **kwargs: Any) -> Any:
        evaluation = real(*args, **kwargs)
        evaluation.metrics["top1"] = next(values)
        return evaluation

    monkeypatch.setattr(loop, "evaluate", scripted)
    trainer = make_trainer(tmp_path, "schedule.epochs=6", "stop.patience=2")
    position = trainer.fit()
    assert position.best_epoch == 1
    assert position.best == 0.7
    assert position.epoch == 4, "two epochs without a better one"


def test_a_metric_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stop.metric = 'map' is not measured.*take one of top1"):
        make_trainer(tmp_path, "stop.metric=map")
    with pytest.raises(ConfigError, match="'top5' is not measured"):
        make_trainer(tmp_path, "stop.metric=top5")
    several = in_memory()
    several.multilabel = True
    task = make_trainer(tmp_path).model.task
    assert selection_metric(task, several, make_recipe()) == "map"
    with pytest.raises(ConfigError, match="take one of map, exact_match"):
        selection_metric(task, several, make_recipe("stop.metric=top1"))


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy", "f1", "nll", "ece"])
def test_each_metric_can_decide(metric: str, tmp_path: Path) -> None:
    position = make_trainer(tmp_path, f"stop.metric={metric}", "schedule.epochs=1").fit()
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert position.best == row["val"][metric]


def test_class_weights_have_a_mean_of_one_over_the_samples() -> None:
    data = in_memory(12)
    data.targets = [0] * 8 + [1] * 4
    balanced = class_weights(data, make_recipe("class_weights=balanced"))
    torch.testing.assert_close(balanced, torch.tensor([0.75, 1.5, 0.0]))
    torch.testing.assert_close(class_weights(data, make_recipe()), torch.ones(3))


def test_a_picture_without_labels_teaches_too(tmp_path: Path) -> None:
    """In multi-label data no label at all is a statement: none of the classes is there."""
    data = in_memory(8)
    data.multilabel = True
    data.targets = [()] * 8
    val = in_memory(9, seed=1)
    val.multilabel = True
    val.targets = [(i % 3,) for i in range(9)]
    trainer = make_trainer(tmp_path, train=data, val=val)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.fit()
    assert not torch.equal(trainer.model.task.head.bias, before["task.head.bias"])
    assert (trainer.model.task.head.bias < 0).all(), "towards 'not there'"


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Also at the end of an epoch, where fewer are left: 6 batches of 4 by four are 16 and 8."""
    small = make_trainer(tmp_path / "a", "optim.accumulate=4", "schedule.epochs=1")
    norms: list[float] = []

    def spy(trainer: Trainer) -> None:
        step = trainer.optimizer.step

        def counted(*args: Any) -> Any:
            grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
            norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
            return step(*args)

        trainer.optimizer.step = counted

    spy(small)
    small.fit()
    assert small.position.step == 2
    large = make_trainer(tmp_path / "b", "data.batch_size=16", "schedule.epochs=1")
    spy(large)
    large.fit()
    assert norms[0] == pytest.approx(norms[2], rel=1e-4)
    assert 0.3 < norms[1] / norms[0] < 3


def test_frozen_layers_rest(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "optim.freeze=2", drop_path=0.5, stem=1)
    assert any(isinstance(m, nn.BatchNorm2d) for m in trainer.model.modules())
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.fit()
    for name, tensor in trainer.model.state_dict().items():
        rests = name.startswith(("backbone.patch_embed.", "backbone.blocks.0."))
        if rests:
            assert torch.equal(tensor, before[name]), name
    changed = trainer.model.state_dict()["backbone.blocks.1.mlp.fc1.weight"]
    assert not torch.equal(changed, before["backbone.blocks.1.mlp.fc1.weight"])


def test_repeated_augmentation_shows_each_pick_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "data.repeats=3", "augment.hflip=0.5")
    ids = [name for batch in trainer.loader.epoch(0) for name in batch.ids]
    assert len(ids) == 24
    assert all(len(set(ids[i : i + 3])) == 1 for i in range(0, 24, 3))
    assert len(set(ids)) == 8


def test_a_loss_that_explodes_names_samples_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "optim.lr=1e30", "schedule.warmup=0", "run.checkpoint_steps=1")
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit()
    text = str(caught.value)
    assert "not finite in epoch 1, batch" in text
    assert "lower optim.lr" in text
    assert "\n" not in text
    kept = load_checkpoint(trainer.folder)
    if kept is not None:
        assert all(torch.isfinite(t).all() for t in kept.tensors.values())
        assert str(kept.path) in text


def test_a_poisoned_sample_is_named(tmp_path: Path) -> None:
    """The model meets one image that breaks it; its neighbours are not accused."""
    data = in_memory()
    data.images = [
        *data.images[:10],
        torch.full((3, 8, 8), 255, dtype=torch.uint8),
        *data.images[11:],
    ]
    trainer = make_trainer(tmp_path, "run.checkpoint_steps=1", train=data)
    forward = trainer.model.task.loss

    def poisoned(output: Any, targets: Any) -> Any:
        losses = forward(output, targets)
        place = shown.index("10.png") if "10.png" in shown else None
        return losses if place is None else losses.index_fill(0, torch.tensor(place), torch.nan)

    shown: list[str] = []
    backward = trainer._backward

    def watched(batch: Any) -> None:
        shown[:] = batch.ids
        backward(batch)

    trainer._backward = watched
    trainer.model.task.loss = poisoned
    with pytest.raises(NonFiniteLossError, match=r"for 1 samples: 10\.png"):
        trainer.fit()
    at = trainer.position.batch
    kept = load_checkpoint(trainer.folder)
    assert (kept is not None and kept.position.batch == at) or at == 0


def test_resumed_it_still_names_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        make_trainer(tmp_path, "run.checkpoint_steps=1", listener=stop_after(3)).fit()
    trainer = make_trainer(tmp_path)
    trainer.restore()
    trainer.model.task.head.weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match=r"step-00000002\S* is kept"):
        trainer.fit()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.task.head.weight.data[0, 0] = torch.inf
    with pytest.raises(NonFiniteLossError, match=r"'task\.head\.weight' is not finite"):
        trainer._save()
    assert load_checkpoint(trainer.folder) is None


@pytest.mark.parametrize("workers", ['{kind="serial"}', '{kind="processes", count=2}'])
def test_bad_samples_are_listed_and_strict_is_an_error(workers: str, tmp_path: Path) -> None:
    data = in_memory(bad=[3, 5])
    changes = (f"data.workers={workers}", "schedule.epochs=1")
    position = make_trainer(tmp_path, *changes, train=data).fit()
    assert position.skipped == {"3.png": "truncated file", "5.png": "truncated file"}
    with pytest.raises(BadSampleError, match=r"[35]\.png: truncated file"):
        make_trainer(tmp_path / "strict", *changes, "data.strict=true", train=data).fit()


def test_a_batch_of_bad_samples_only_is_passed_over(tmp_path: Path) -> None:
    data = in_memory(8, bad=range(1, 8))
    position = make_trainer(tmp_path, "data.batch_size=2", train=data).fit()
    assert position.finished
    assert len(position.skipped) == 7


def test_a_batch_is_never_larger_than_the_data(tmp_path: Path) -> None:
    position = make_trainer(tmp_path, "data.batch_size=512", train=in_memory(5)).fit()
    assert position.step == 2


def test_progress_is_told_after_each_step(tmp_path: Path) -> None:
    seen: list[Progress] = []
    make_trainer(tmp_path, listener=seen.append).fit()
    assert [(p.epoch, p.batch) for p in seen] == [(e, b) for e in (0, 1) for b in range(1, 7)]
    assert all(p.batches == 6 and p.epochs == 2 and p.metric == "top1" for p in seen)
    assert seen[0].value is None
    assert seen[-1].value is not None
    assert seen[-1].seconds_left == 0
    assert seen[-1].images_per_second > 0


def test_small_images_of_other_sizes_are_brought_to_the_models(tmp_path: Path) -> None:
    data = in_memory(8)
    data.images = [photo(i, 5 + i, 9) for i in range(8)]
    assert make_trainer(tmp_path, train=data).fit().finished


def test_rows_are_json(tmp_path: Path) -> None:
    make_trainer(tmp_path, "run.log_steps=1").fit()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["kind"] for row in rows] == (["step"] * 6 + ["epoch"]) * 2
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 13))


def test_bfloat16_computes_low_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    low, full = (
        make_trainer(tmp_path / name, f"run.precision={name}") for name in ("bfloat16", "float32")
    )
    low.fit()
    full.fit()
    assert {p.dtype for p in low.model.parameters()} == {torch.float32}
    assert weights(low) != weights(full)
    losses = [epoch_rows(run.run)[-1]["train_loss"] for run in (low, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
