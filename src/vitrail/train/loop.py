"""The training loop: one pass a step, the same bits whether or not it was ever interrupted.

All randomness is a function of (seed, epoch, batch): the order and augmentation of the data, the
mixing, and torch's generator, which is seeded anew for each batch. The state of a run is therefore
its tensors and a few integers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.data.augment import Augment
from vitrail.data.box_augment import BoxAugment
from vitrail.data.buckets import buckets_of
from vitrail.data.dataset import Dataset, Subset
from vitrail.data.loader import Loader, Transform, on_image
from vitrail.data.mask_augment import MaskAugment
from vitrail.data.order import Bucketed, Order, Shuffled, sample_rng
from vitrail.data.preprocess import Fit
from vitrail.data.workers import workers_for
from vitrail.errors import ConfigError, ModelFileError, NonFiniteLossError
from vitrail.evaluate import Evaluation, evaluate
from vitrail.model import Model
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.task import Task
from vitrail.train.checkpoint import Position, load_checkpoint, save_checkpoint
from vitrail.train.ema import Ema
from vitrail.train.interrupt import Interrupt, InterruptedRunError
from vitrail.train.log import MetricsLog
from vitrail.train.lora import merged
from vitrail.train.objective import build_objective
from vitrail.train.optim import build_optimizer, learning_rate, prepare
from vitrail.train.progress import Clock, Progress
from vitrail.train.recipe import DetectRecipe, Recipe, SegmentRecipe
from vitrail.types import Batch
from vitrail.weights.modelfile import Provenance, save_model

LOWER_IS_BETTER = ("nll", "ece", "cer")
_MIXING, _DROPPING = 1 << 32, 1 << 33
"""In the place of a repeat count: streams of random numbers of a whole batch."""


class Trainer:
    """One run of a model on the training part, watched on the validation part.

    Args:
        model: With the weights to start from, on the device it trains on.
        train: Training part.
        val: Validation part.
        recipe: Everything else; epochs must be set.
        run: Run folder, where checkpoints and logs go.
        listener: Told the progress after each batch.
    """

    def __init__(
        self,
        model: Model,
        train: Dataset,
        val: Dataset,
        recipe: Recipe,
        run: Path,
        listener: Callable[[Progress], None],
    ) -> None:
        assert recipe.schedule.epochs is not None
        self.model, self.val, self.recipe, self.run = model, val, recipe, run
        self.listener = listener
        self.epochs = recipe.schedule.epochs
        self.metric = selection_metric(model.task, train, recipe)
        self.frozen = [*prepare(model, recipe.optim), *_resting(train, model, recipe)]
        self.optimizer = build_optimizer(model, recipe.optim)
        self.ema = Ema(model, recipe.ema) if recipe.ema else None
        apart = self.ema is not None or recipe.optim.method == "lora"
        self.shadow = _twin(model) if apart else model
        self.loader = _training_loader(train, model, recipe)
        self.objective = build_objective(model, train, recipe)
        self.position = Position()
        self.last_value: float | None = None
        self.last_checkpoint: Path | None = None
        self.note: str | None = None
        self._clock = Clock()

    @property
    def best_file(self) -> Path:
        """The best weights so far, as a model file."""
        return self.folder / "best.safetensors"

    @property
    def folder(self) -> Path:
        """Where checkpoints lie."""
        return self.run / "checkpoints"

    def restore(self) -> bool:
        """Go back to the newest whole checkpoint; False where there is none.

        Raises:
            ModelFileError: all are damaged, or it is one of another recipe.
        """
        found = load_checkpoint(self.folder)
        if found is None:
            return False
        try:
            self.model.load_state_dict(_part(found.tensors, "model"))
            if self.ema:
                self.ema.load(_part(found.tensors, "ema"))
            self._load_optimizer(_part(found.tensors, "optimizer"))
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelFileError(
                f"{found.path}: made with another recipe than config.toml; train afresh"
            ) from error
        self.position, self.note, self.last_checkpoint = found.position, found.note, found.path
        return True

    def fit(self) -> Position:
        """Train to the end, or until a signal or early stopping.

        Raises:
            InterruptedRunError: after a signal; a checkpoint was saved.
            NonFiniteLossError: the loss is NaN or infinite; the last checkpoint is kept.
        """
        log = MetricsLog(self.run, self.position)
        self._clock = Clock(self.position.seconds)
        try:
            with Interrupt() as interrupt:
                while not self.position.finished:
                    self._train_epoch(log, interrupt)
                    self._end_epoch(log, interrupt)
        finally:
            log.close()
        return self.position

    def _train_epoch(self, log: MetricsLog, interrupt: Interrupt) -> None:
        self.model.train()
        for module in self.frozen:
            module.eval()
        accumulate = self.recipe.optim.accumulate
        for batch in self.loader.epoch(self.position.epoch, start=self.position.batch):
            self._backward(batch)
            done = self.position.batch + 1
            self._move(batch=done, skipped=self.position.with_skipped(batch.skipped))
            if done % accumulate == 0 or done == self.loader.steps:
                lr = self._step()
                self._report(log, lr)
                self._save_if_due(interrupt)

    def _backward(self, batch: Batch) -> None:
        """Gradients of one batch; it is skipped when none of its samples could be read."""
        if not batch.ids:
            return
        recipe, at = self.recipe, self.position
        rng = sample_rng(recipe.seed, at.epoch, at.batch, _MIXING)
        dropping = sample_rng(recipe.seed, at.epoch, at.batch, _DROPPING)
        seed = int(dropping.integers(1 << 62))
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        images = batch.images.to(_device(self.model), non_blocking=True)
        with self._autocast():
            losses, weights = self.objective(images, batch, rng)
        self._insist_finite(losses, batch)
        loss = (losses * weights).mean() / self._batches_of_step()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        self._move(
            loss_sum=at.loss_sum + float(losses.detach().sum()),
            loss_count=at.loss_count + len(batch.ids),
        )
        self._clock.images += len(batch.ids)

    def _step(self) -> float:
        """One optimizer step; returns the learning rate."""
        step = self.position.step
        share = learning_rate(step, self._steps_of_run(), self.recipe.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optim.lr * group["lr_scale"] * share
        if self.recipe.optim.clip_grad is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_grad)
            if not bool(torch.isfinite(norm)):
                raise NonFiniteLossError(f"the gradient is not finite {self._where()}")
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model, step)
        self._move(step=step + 1)
        return self.recipe.optim.lr * share

    def _end_epoch(self, log: MetricsLog, interrupt: Interrupt) -> None:
        """Validate, keep the best weights, move to the next epoch or finish."""
        at = self.position
        evaluation = self._validate(interrupt)
        value = evaluation.metrics[self.metric]
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        # On a tie the later weights win: they have seen more, at a lower rate.
        is_best = at.best is None or sign * value >= sign * at.best
        if is_best:
            save_model(self.shadow, self.best_file, Provenance())
            self._move(best=value, best_epoch=at.epoch)
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": at.epoch,
            "step": at.step,
            "train_loss": at.loss_sum / max(at.loss_count, 1),
            "seconds": round(self._clock.total(), 3),
            "val": evaluation.metrics,
            "best": is_best,
        }
        log.write(row)
        self.last_value = value
        patience = self.recipe.stop.patience
        waited = at.epoch - self.position.best_epoch
        over = at.epoch + 1 == self.epochs or (patience is not None and waited >= patience)
        self._move(epoch=at.epoch + 1, batch=0, loss_sum=0.0, loss_count=0, finished=over)
        if over:
            self._save()
        self._save_if_due(interrupt)

    def _validate(self, interrupt: Interrupt) -> Evaluation:
        """Metrics of the weights that would be kept."""

        def watch(_done: int) -> None:
            self._stop_if_asked(interrupt)

        if self.shadow is not self.model:
            state = self.ema.state if self.ema else self.model.state_dict()
            self.shadow.load_state_dict(merged(state, self.recipe.optim.lora))
        return evaluate(
            self.shadow,
            self.val,
            batch_size=self.recipe.data.batch_size,
            workers=self.loader.chosen,
            intervals=False,
            progress=watch,
        )

    def _report(self, log: MetricsLog, lr: float) -> None:
        at = self.position
        loss = at.loss_sum / max(at.loss_count, 1)
        rate = self._clock.images_per_second()
        left = (self.epochs - at.epoch) * self.loader.steps - at.batch
        done = at.epoch * self.loader.steps + at.batch
        seconds_left = self._clock.total() / max(done, 1) * left
        self.listener(
            Progress(
                epoch=at.epoch,
                epochs=self.epochs,
                batch=at.batch,
                batches=self.loader.steps,
                loss=loss,
                lr=lr,
                images_per_second=rate,
                seconds_left=seconds_left,
                metric=self.metric,
                value=self.last_value,
            )
        )
        every = max(1, min(self.recipe.run.log_steps, self.loader.steps // 4))
        if at.step % every == 0:
            row = {"kind": "step", "epoch": at.epoch, "step": at.step, "loss": loss, "lr": lr}
            log.write(row | {"images_per_second": round(rate, 1)})

    def _save_if_due(self, interrupt: Interrupt) -> None:
        self._stop_if_asked(interrupt)
        every = self.recipe.run.checkpoint_steps
        counted = every is not None and self.position.step % every == 0
        if counted or self._clock.since_save() >= self.recipe.run.checkpoint_seconds:
            self._save()

    def _stop_if_asked(self, interrupt: Interrupt) -> None:
        if interrupt.received is not None:
            path = self._save()
            raise InterruptedRunError(f"stopped; saved {path.name}", interrupt.received)

    def _save(self) -> Path:
        """Write a checkpoint, but never one with weights that cannot be gone on from."""
        for name, tensor in self.model.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise NonFiniteLossError(f"'{name}' is not finite {self._where()}")
        self._move(seconds=self._clock.total())
        tensors = {f"model/{k}": t for k, t in self.model.state_dict().items()}
        if self.ema:
            tensors |= {f"ema/{k}": t for k, t in self.ema.state.items()}
        tensors |= {f"optimizer/{k}": t for k, t in self._optimizer_tensors().items()}
        self.last_checkpoint = save_checkpoint(self.folder, tensors, self.position)
        self._clock.saved()
        return self.last_checkpoint

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.state_dict()["state"]
        return {f"{i}/{k}": t for i, moments in state.items() for k, t in moments.items()}

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def _insist_finite(self, losses: Float[Tensor, "B"], batch: Batch) -> None:
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            flags = cast("list[bool]", finite.numpy(force=True).tolist())
            names = [name for name, good in zip(batch.ids, flags, strict=True) if not good]
            shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
            raise NonFiniteLossError(
                f"the loss is not finite {self._where()} for {len(names)} samples: {shown}"
            )

    def _where(self) -> str:
        at = self.position
        kept = f"{self.last_checkpoint} is kept" if self.last_checkpoint else "no checkpoint yet"
        return (
            f"in epoch {at.epoch + 1}, batch {at.batch + 1} (last good checkpoint: {kept}; "
            "lower optim.lr or set optim.clip_grad=1)"
        )

    def _steps_of_run(self) -> int:
        return self.epochs * -(-self.loader.steps // self.recipe.optim.accumulate)

    def _batches_of_step(self) -> int:
        """Batches whose gradients go into the coming step; an epoch may end with fewer."""
        accumulate = self.recipe.optim.accumulate
        first = self.position.batch // accumulate * accumulate
        return min(accumulate, self.loader.steps - first)

    def _autocast(self) -> AbstractContextManager[object]:
        device, precision = _device(self.model), self.recipe.run.precision
        low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        return torch.autocast(device.type, torch.bfloat16) if low else nullcontext()

    def _move(self, **changes: Any) -> None:
        self.position = self.position.model_copy(update=changes)


def selection_metric(task: Task[Any, Any], train: Dataset, recipe: Recipe) -> str:
    """The metric that decides which weights are kept.

    Raises:
        ConfigError: the recipe names one that is not measured on such data.
    """
    known = _metrics_of(task, train)
    metric = recipe.stop.metric or known[0]
    if metric not in known:
        raise ConfigError(
            f"stop.metric = '{metric}' is not measured on this data; take one of {', '.join(known)}"
        )
    return metric


def _metrics_of(task: Task[Any, Any], train: Dataset) -> tuple[str, ...]:
    """The metrics that such answers and data have, the usual one first."""
    if isinstance(task, Segment):
        return _metrics_of_masks(task.config)
    if train.text:
        return ("exact_match", "cer")
    if train.boxes:
        return ("map", "map50", "map75")
    if train.multilabel:
        return ("map", "exact_match", "f1", "nll", "ece")
    top5 = ("top5",) if len(train.classes) > 5 else ()
    return ("top1", "balanced_accuracy", *top5, "f1", "nll", "ece")


def _metrics_of_masks(task: SegmentConfig) -> tuple[str, ...]:
    match task.answer:
        case "semantic":
            return ("f1", "dice", "miou") if task.binary else ("miou", "dice", "f1")
        case "instance":
            return ("mask_map", "mask_map50")
        case "panoptic":
            return ("pq",)


def _training_loader(train: Dataset, model: Model, recipe: Recipe) -> Loader:
    shown = train
    if recipe.data.views > 1:
        shown = Subset(train, list(range(len(train))) * recipe.data.views)
    batch_size = min(recipe.data.batch_size, len(shown))
    return Loader(
        shown,
        _transform(train, model, recipe),
        batch_size=batch_size,
        order=_order(shown, model, recipe, batch_size),
        seed=recipe.seed,
        workers=workers_for(recipe.data.workers, _device(model)),
        drop_last=True,
        strict=recipe.data.strict,
    )


def _resting(train: Dataset, model: Model, recipe: Recipe) -> list[nn.Module]:
    """Batch norms of weights that are gone on from, which keep their statistics.

    Detectors and segmenters train in batches of a few images, whose own statistics are worth less
    (DETR). Those of a fresh head have none yet, and learn them.
    """
    if recipe.weights is None or not (train.boxes or train.segments):
        return []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return [norm for norm in norms if _has_statistics(norm)]


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    return bool(mean.any()) or bool((var != 1).any())


def _order(train: Dataset, model: Model, recipe: Recipe, batch_size: int) -> Order:
    """Batches of images of about one shape, where shapes stay what they are."""
    if recipe.data.repeats > 1 or not isinstance(model.config.preprocess.resize, Fit):
        return Shuffled(repeats=recipe.data.repeats)
    return Bucketed(buckets_of(train, model.config.preprocess), batch_size)


def _transform(train: Dataset, model: Model, recipe: Recipe) -> Transform:
    preprocess = model.config.preprocess
    if train.segments is not None:
        return MaskAugment((recipe.segment or SegmentRecipe()).augment, preprocess, train)
    if not train.boxes:
        return on_image(Augment(recipe.augment, preprocess))
    return BoxAugment((recipe.detect or DetectRecipe()).augment, preprocess, train)


def _twin(model: Model) -> Model:
    return Model(model.config).to(_device(model)).eval()


def _device(model: Model) -> torch.device:
    return next(model.parameters()).device


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
