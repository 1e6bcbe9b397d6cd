"""The way back from what the head reads to the finest tokens of a model, step by step.

Rollout and gradient-weighted rollout multiply one matrix a layer. What they show is one row of the
product, so one row is carried from the head down: N² operations a layer instead of N³, and windows,
merged places and soft splits are steps like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.swin import Swin, SwinStage
from vitrail.backbones.t2t import T2T
from vitrail.explain.layers import AttentionLayer, cells, insist_attention, watching
from vitrail.explain.layout import OnImage, Pooled, Whole, Windowed
from vitrail.explain.residual import residual_shares
from vitrail.explain.target import Target, logit, through_tokens
from vitrail.model import Model
from vitrail.nn.probe import AttentionWeights
from vitrail.nn.soft_split import SoftSplit
from vitrail.nn.windows import PatchMerging, Windows
from vitrail.tasks.segment import Segment
from vitrail.tasks.task import Task
from vitrail.types import Features, Grid


class Step(ABC):
    """Something that mixed tokens while the model ran.

    Attributes:
        seen: The tensor whose gradient says which part of the mix spoke for a class.
    """

    seen: Tensor


@dataclass(frozen=True, slots=True)
class Mixed(Step):
    """An attention.

    Attributes:
        layout: Where its rows and columns lie.
        weights: Its weights, not computed yet.
        v: Values.
        seen: What the fused kernel gave.
    """

    layout: OnImage
    weights: AttentionWeights
    v: Tensor
    seen: Tensor


@dataclass(frozen=True, slots=True)
class Split(Step):
    """A soft split: each token was made of the cells below its kernel.

    Attributes:
        split: Kernel, stride and padding.
        grid: Rows and columns of the cells.
        seen: The patches, channel by channel.
    """

    split: SoftSplit
    grid: Grid
    seen: Float[Tensor, "B N K"]


@dataclass(frozen=True, slots=True)
class Merged(Step):
    """A patch merging: each place was made of two by two.

    Attributes:
        grid: Rows and columns of the places below.
        seen: Those places.
    """

    grid: Grid
    seen: Float[Tensor, "B n C"]


@dataclass(slots=True)
class Way:
    """What ran between the image and the head, in that order.

    Attributes:
        size: Height and width of the input.
        steps: What mixed tokens.
        kept: For each attention but that of a pooling, how much of each token was there before.
    """

    size: Grid
    steps: list[Step] = field(default_factory=list[Step])
    kept: list[Float[Tensor, "B N"]] = field(default_factory=list[Tensor])


def run(
    model: Model, images: UInt8[Tensor, "B 3 H W"], *, gradients: bool = False
) -> tuple[Way, Features]:
    """Run the backbone and keep the way.

    Args:
        model: In evaluation mode.
        images: Prepared.
        gradients: Whether gradients will be asked for.

    Raises:
        ExplainError: the model has no attention.
    """
    with torch.inference_mode(mode=False), torch.set_grad_enabled(gradients):
        normalised = model.normalise(images)
        with _recorded(model.backbone, normalised) as way:
            # Weights may be frozen: gradients flow because the pixels ask for one.
            features = model.backbone(normalised.requires_grad_(gradients))
    if isinstance(model.task, Segment):  # it reads maps, and no pooled vector
        way.steps = [step for step in way.steps if not _pools(step)]
    return way, replace(features, images=normalised.detach())


Number = Callable[[Any, Sequence[Target], Task[Any, Any]], Tensor]
"""From raw output and one target an image to the number an image whose gradient is wanted."""


def slopes(
    model: Model,
    features: Features,
    steps: Sequence[Step],
    targets: Sequence[Target],
    number: Number = logit,
) -> tuple[Float[Tensor, "B N D"], list[Tensor]]:
    """Gradients of one number an image: for the last tokens, and for each step.

    What a head takes from finer maps, or from the image past all tokens, is not followed there.
    """
    assert len(features.tokens) == len(targets), "one target an image"
    assert features.images is not None, "run keeps them"
    wanted = [features.tokens, *(step.seen for step in steps)]
    with torch.inference_mode(mode=False), torch.enable_grad():
        read = through_tokens(features, model.backbone.prefix, features.images)
        value = number(model.task(read), targets, model.task)
        first, *rest = torch.autograd.grad(value.sum(), wanted)
    return first, rest


Share = float | Float[Tensor, "B N"]
"""Of all tokens alike, or of each."""


class Weighing(ABC):
    """How much of each token goes into each other: what a method makes of a step."""

    @abstractmethod
    def read(self, features: Features, prefix: int) -> Float[Tensor, "B N"]:
        """How much of each of the last tokens goes into what the head reads."""

    @abstractmethod
    def mix(self, step: Mixed, at: int) -> Float[Tensor, "*B Q N"]:
        """How much of each key goes into each query, heads joined, without the residual path."""

    @abstractmethod
    def residual(self, kept: Float[Tensor, "B N"]) -> tuple[Share, Share]:
        """Shares of the residual path and of the attention in each query.

        Args:
            kept: What `residual_shares` measured.
        """

    @abstractmethod
    def shares(self, step: Split | Merged, at: int) -> Float[Tensor, "B N k"]:
        """How much of each of its k cells goes into each token; every row sums to 1."""


def carry(
    way: Way, features: Features, weighing: Weighing, backbone: Backbone
) -> Float[Tensor, "B _h _w"]:
    """From what the head reads down to the finest tokens: how much of each place goes into it."""
    steps = list(enumerate(way.steps))
    kept = iter(reversed(way.kept))
    row: Tensor | None = None
    stride = backbone.strides[-1]
    grid = cells(way.size, stride)
    for at, step in reversed(steps):
        match step:
            case Mixed(layout=Pooled()):
                row = weighing.mix(step, at)[:, 0]
            case Mixed():
                if row is None:
                    row = _padded(weighing.read(features, backbone.prefix), step.layout, way.size)
                stay, mixed = weighing.residual(next(kept))
                row = stay * row + _through(mixed * row, step.layout, weighing.mix(step, at))
                stride, grid = step.layout.stride, step.layout.grid
            case Split() | Merged():
                assert row is not None, "a model ends in attention"
                row = _spread(row, step, weighing.shares(step, at))
            case _:
                raise AssertionError(f"a step unknown here: {type(step).__name__}")
    assert row is not None
    rows, columns = cells(way.size, stride)  # a soft split may have places beyond the image
    return row[:, -grid[0] * grid[1] :].reshape(-1, *grid)[:, :rows, :columns]


def _pools(step: Step) -> bool:
    return isinstance(step, Mixed) and isinstance(step.layout, Pooled)


def _padded(row: Float[Tensor, "B n"], layout: OnImage, size: Grid) -> Float[Tensor, "B m"]:
    """With zeros for places beyond the image, where attention has such and the head has not."""
    rows, columns = cells(size, layout.stride)
    if not isinstance(layout, Whole) or layout.rows == row.shape[1]:
        return row
    prefix, places = row.tensor_split([len(layout.prefix)], dim=1)
    down, across = layout.grid[0] - rows, layout.grid[1] - columns
    places = F.pad(places.reshape(-1, rows, columns), (0, across, 0, down)).flatten(1)
    return torch.cat([prefix, places], dim=1)


def _through(
    row: Float[Tensor, "B n"], layout: OnImage, mix: Float[Tensor, "*B Q N"]
) -> Float[Tensor, "B n"]:
    match layout:
        case Windowed(windows=windows):
            cut = windows.cut(windows.pad(row[:, :, None]))  # B W N 1
            return windows.join(mix.mT @ cut)[:, :, 0]
        case _:
            return (row[:, None] @ mix)[:, 0]


def _spread(
    row: Float[Tensor, "B _n"], step: Split | Merged, shares: Float[Tensor, "B N k"]
) -> Float[Tensor, "B n"]:
    """Give what each token has to the cells that it was made of; what goes to padding is lost."""
    given = row[:, -shares.shape[1] :, None] * shares  # without the prefix
    match step:
        case Split(split=split, grid=grid):
            return F.fold(
                given.mT, grid, split.kernel, padding=split.padding, stride=split.stride
            ).flatten(1)
        case Merged(grid=grid):
            pairs = Windows(grid, 2)
            return pairs.join(given[..., None])[:, :, 0]


@contextmanager
def _recorded(backbone: Backbone, images: Float[Tensor, "B 3 H W"]) -> Generator[Way]:
    """Record what mixes tokens while the backbone runs inside the block."""
    layers = insist_attention(backbone)
    way = Way((images.shape[2], images.shape[3]))

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        layout = layer.place.at(way.size)
        assert isinstance(layout, OnImage)
        way.steps.append(Mixed(layout, weights, v, out))

    with watching(layers, watch), residual_shares(backbone, way.kept):
        handles = _hooks(backbone, way)
        try:
            yield way
        finally:
            for handle in handles:
                handle.remove()


def _hooks(backbone: Backbone, way: Way) -> list[torch.utils.hooks.RemovableHandle]:
    """What no attention does: soft splits but the first, which takes pixels, and mergings."""

    def split(module: nn.Module, given: tuple[Tensor], patches: Tensor) -> None:
        assert isinstance(module, SoftSplit)
        way.steps.append(Split(module, (given[0].shape[2], given[0].shape[3]), patches))

    def merge(module: nn.Module, given: tuple[Tensor, Grid]) -> None:
        del module
        way.steps.append(Merged(given[1], given[0]))

    match backbone:
        case T2T(patch_embed=stem):
            return [part.register_forward_hook(split) for part in list(stem.splits)[1:]]
        case Swin(stages=stages):
            below = [stage.downsample for stage in stages if isinstance(stage, SwinStage)]
            return [
                part.register_forward_pre_hook(merge)
                for part in below
                if isinstance(part, PatchMerging)
            ]
        case _:
            return []
