"""What a batch costs: from images and targets to one loss a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vitrail.data.augment import AugmentConfig
from vitrail.data.dataset import Dataset
from vitrail.errors import BadSampleError, ConfigError, DataError
from vitrail.model import Model, pixel_mask
from vitrail.tasks.classify import Classify
from vitrail.tasks.detect import Detect
from vitrail.tasks.segment import Segment
from vitrail.tasks.segment_loss import PixelLossConfig, PixelTruth
from vitrail.tasks.transcribe import Transcribe
from vitrail.train.distill import Distillation, TwoHeads, load_teacher
from vitrail.train.mixing import mix, smooth
from vitrail.train.recipe import MixRecipe, Recipe, SegmentRecipe
from vitrail.types import VOID, Batch, Boxes, Segments


class Objective(ABC):
    """The loss that training descends."""

    @abstractmethod
    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        batch: Batch,
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Loss and weight of each sample.

        Args:
            images: Augmented pixels of the batch, on the model's device.
            batch: Its targets, and what else is known of it.
            rng: The only source of randomness, of the whole batch.
        """


class ClassifyObjective(Objective):
    """Cross-entropy on mixed images and softened targets, with a teacher where there is one."""

    def __init__(self, model: Model, task: Classify, train: Dataset, recipe: Recipe) -> None:
        device = next(model.parameters()).device
        self.task, self.recipe, self.device = task, recipe, device
        self.class_weights = class_weights(train, recipe).to(device)
        self.distillation: Distillation | None = None
        forward: nn.Module = model
        if recipe.transcribe is not None:
            raise ConfigError("transcribe: the data has classes, no texts; leave its keys away")
        if recipe.detect is not None:
            raise ConfigError("detect: the data has classes, no boxes; leave its keys away")
        if recipe.segment is not None:
            raise ConfigError("segment: the data has classes, no masks; leave its keys away")
        if recipe.distill is not None:
            if task.config.multilabel:
                raise ConfigError("distill: a teacher can help where an image has one label only")
            teacher = load_teacher(recipe.distill.teacher, task.config.classes).to(device)
            self.distillation = Distillation(recipe.distill, teacher)
            forward = TwoHeads(model, task)
        self.forward = _maybe_compiled(forward, recipe)

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        batch: Batch,
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Mix, soften, compare; with a teacher it sees the very same mixed images."""
        task, recipe = self.task, self.recipe.mix
        encoded = task.encode(batch.targets, self.device)
        mixed, encoded = mix(images, encoded, recipe, rng)
        weights = sample_weights(encoded, self.class_weights)
        encoded = smooth(encoded, recipe.label_smoothing, multilabel=task.config.multilabel)
        if self.distillation is None:
            return task.loss(self.forward(mixed).float(), encoded), weights
        own, distilled = self.forward(mixed)
        truth = task.loss(own.float(), encoded)
        return self.distillation(truth, distilled.float(), mixed), weights


class TranscribeObjective(Objective):
    """Cross-entropy of each next symbol, given the true ones before it (teacher forcing)."""

    def __init__(self, model: Model, task: Transcribe, recipe: Recipe) -> None:
        _insist_readable(recipe)
        self.task, self.smoothing = task, recipe.mix.label_smoothing
        self.device = next(model.parameters()).device
        self.forward = _maybe_compiled(model, recipe)

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        batch: Batch,
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Read the image once, then score every symbol of its text."""
        del rng
        encoded = self.task.encode(batch.targets, self.device)
        losses = self.task.loss(self.forward(images), encoded, smoothing=self.smoothing)
        return losses, torch.ones_like(losses)


class DetectObjective(Objective):
    """One query for every object, matched anew in every batch and layer."""

    def __init__(self, model: Model, task: Detect, recipe: Recipe) -> None:
        _insist_boxes(recipe)
        self.task = task
        self.device = next(model.parameters()).device
        self.forward = _maybe_compiled(model, recipe)

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        batch: Batch,
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """All layers' classes and boxes beside the objects of each view."""
        del rng
        output = self.forward(images, pixel_mask(batch, self.device))
        losses = self.task.loss(output, self.task.encode(batch.targets, self.device))
        return losses, torch.ones_like(losses)


class SegmentObjective(Objective):
    """Classes of pixels, or a query for every segment."""

    def __init__(self, model: Model, task: Segment, train: Dataset, recipe: Recipe) -> None:
        _insist_masks(recipe)
        _insist_segments(train)
        self.task = task
        self.device = next(model.parameters()).device
        self.pixels = (recipe.segment or SegmentRecipe()).loss
        if task.segmenter.matched and self.pixels != PixelLossConfig():
            raise ConfigError(
                "segment.loss: queries that are matched with segments have losses of their own; "
                "leave its keys away, or take another segment.readout"
            )
        self.weights = None
        if recipe.class_weights == "balanced":
            self.weights = pixel_weights(train, task).to(self.device)
        self.forward = _maybe_compiled(model, recipe)

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        batch: Batch,
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """The masks of each view beside its segments."""
        del rng
        output = self.forward(images, pixel_mask(batch, self.device))
        truth = self.task.encode(batch.targets, self.device, batch.extents)
        # Masks are products, which autocast would round to 8 bits although it rounds no loss.
        with torch.autocast(self.device.type, enabled=False):
            losses = self.task.loss(output, truth, pixels=self.pixels, weights=self.weights)
        return losses, torch.ones_like(losses)


def build_objective(model: Model, train: Dataset, recipe: Recipe) -> Objective:
    """The loss that belongs to a model's task.

    Raises:
        ConfigError: the recipe asks for what the task cannot do, or the teacher is of no use.
    """
    match model.task:
        case Classify() as task:
            return ClassifyObjective(model, task, train, recipe)
        case Transcribe() as task:
            return TranscribeObjective(model, task, recipe)
        case Detect() as task:
            return DetectObjective(model, task, recipe)
        case Segment() as task:
            return SegmentObjective(model, task, train, recipe)
        case other:
            raise AssertionError(f"no objective for {type(other).__name__}")


def _insist_readable(recipe: Recipe) -> None:
    """Refuse what would spoil a text or needs classes."""
    if recipe.mix.mixup or recipe.mix.cutmix:
        raise ConfigError("mix.mixup and mix.cutmix mix classes, not texts; set both to 0")
    if recipe.augment.hflip or recipe.augment.vflip:
        raise ConfigError("augment.hflip and augment.vflip mirror the text; set both to 0")
    cut = recipe.augment.geometry.kind
    if cut in {"random_resized_crop", "random_crop"}:
        raise ConfigError(
            f"augment.geometry.kind = '{cut}' cuts symbols off a text; take affine or none"
        )
    if recipe.class_weights != "none":
        raise ConfigError("class_weights works for classes, not for texts; set it to none")
    _insist_own_keys(recipe, "texts")


def _insist_boxes(recipe: Recipe) -> None:
    """Refuse what knows nothing of boxes."""
    if recipe.mix != MixRecipe():
        raise ConfigError("mix: mixes classes, not boxes; take detect.augment.mosaic or copy_paste")
    if recipe.augment != AugmentConfig():
        raise ConfigError("augment: knows nothing of boxes; detect.augment has the same and more")
    if recipe.class_weights != "none":
        raise ConfigError("class_weights works for classes, not for boxes; set it to none")
    _insist_own_keys(recipe, "boxes")


def _insist_masks(recipe: Recipe) -> None:
    """Refuse what knows nothing of masks."""
    if recipe.mix != MixRecipe():
        raise ConfigError("mix: mixes classes of images, not masks; leave its keys away")
    if recipe.augment != AugmentConfig():
        raise ConfigError("augment: knows nothing of masks; segment.augment has the same and more")
    _insist_own_keys(recipe, "masks")


def _insist_own_keys(recipe: Recipe, labels: Literal["texts", "boxes", "masks"]) -> None:
    """Refuse the keys of tasks that need other labels than the data has."""
    if recipe.distill is not None:
        raise ConfigError(f"distill works for classes, not for {labels}; leave its keys away")
    tasks = {
        "texts": ("transcribe", recipe.transcribe),
        "boxes": ("detect", recipe.detect),
        "masks": ("segment", recipe.segment),
    }
    for others, (key, given) in tasks.items():
        if given is not None and others != labels:
            raise ConfigError(f"{key}: the data has {labels}, no {others}; leave its keys away")


def _insist_segments(train: Dataset) -> None:
    """Look for one segment to learn from; mostly the first image has some.

    Raises:
        DataError: no image has any.
    """
    for index in range(len(train)):
        try:
            target = train.targets[index]
        except BadSampleError:
            continue
        if isinstance(target, Segments) and any(label != VOID for label in target.labels):
            return
    raise DataError(
        f"no mask of the {len(train)} training images shows a class, all is background or void; "
        "check what wrote them"
    )


def _maybe_compiled(module: nn.Module, recipe: Recipe) -> nn.Module:
    return cast("Any", torch).compile(module) if recipe.model.compile else module


def class_weights(train: Dataset, recipe: Recipe) -> Float[Tensor, "C"]:
    """One weight a class with a mean of 1 over the samples; ones when classes count alike."""
    counts = torch.zeros(len(train.classes))
    for target in train.targets:
        assert not isinstance(target, str | Boxes | Segments), "no class"
        counts[[target] if isinstance(target, int) else list(target or ())] += 1
    if recipe.class_weights == "none":
        return torch.ones_like(counts)
    present = counts > 0
    weights = torch.where(present, counts.sum() / counts.clamp_min(1), 0.0)
    return weights / present.sum()


COUNTED = 256
"""Most images whose pixels are counted."""


def pixel_weights(train: Dataset, task: Segment) -> Float[Tensor, "K"]:
    """One weight an output, the background's first where there is one, with a mean of 1.

    They follow from the square roots of the shares of pixels: with the shares themselves the
    rarest pixels of a road would outweigh all others a hundred times. A class that none of the
    images shows which were counted weighs as much as the rarest of the others.
    """
    if task.segmenter.matched:
        raise ConfigError("class_weights: queries are matched with segments; set it to none")
    shown = task.adapt(train)
    counts = torch.zeros(len(task.config.classes) + task.config.background)
    for index in range(0, len(shown), -(-len(shown) // COUNTED)):
        try:
            truth = task.encode([shown[index]])
        except BadSampleError:
            continue
        assert isinstance(truth, PixelTruth)
        classes = truth.classes
        counts += torch.bincount(classes[classes >= 0], minlength=len(counts))
    shares = counts / counts.sum().clamp_min(1)
    if not counts.any():
        return torch.ones_like(counts)
    weights = shares.clamp_min(shares[shares > 0].min()).rsqrt()
    return weights / (weights * shares).sum()


def sample_weights(
    targets: Float[Tensor, "B C"], class_weights: Float[Tensor, "C"]
) -> Float[Tensor, "B"]:
    """Mean weight of a sample's classes, by their share in it; 1 where it has no label."""
    total = targets.sum(1)
    mean = (targets * class_weights).sum(1) / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, mean, 1.0)
