"""Attention distance: how far each head looks (Dosovitskiy et al. 2021, Fig. 7, right)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vitrail.explain.layers import AttentionLayer, insist_attention, watching
from vitrail.explain.layout import Layout, Whole, Windowed
from vitrail.model import Model
from vitrail.nn.probe import ALL, AttentionWeights
from vitrail.types import Grid

PART = 2**22
"""Weights that are computed at a time: 16 MiB."""

IMAGES = 16
"""Images that run at a time."""


@dataclass(frozen=True, slots=True)
class HeadDistances:
    """How far the heads of one layer look.

    Attributes:
        layer: Which one.
        pixels: Mean distance of each head in pixels of the input.
    """

    layer: AttentionLayer
    pixels: tuple[float, ...]


def attention_distance(model: Model, images: UInt8[Tensor, "N 3 H W"]) -> tuple[HeadDistances, ...]:
    """Mean distance between a place and what it looks at, weighted by attention (appendix D.7).

    Each place is a query; its distances to all places are weighted by its attention and averaged,
    and then over places and images. Only places count: class token, registers and padding have
    none, so they are left out as queries, and what a query gives them is left out of its weights,
    which are made to sum to 1 again. In a layer with windows nothing is farther than its window.

    Args:
        model: In evaluation mode.
        images: Prepared, any number: they run a few at a time, and no layer's weights are held
            together. The paper has 128.

    Returns:
        One entry a layer of the backbone in the order in which they run. Attention pooling has no
        place that looks, and is left out. A head that gives everything to tokens that are no
        places has distance NaN.

    Raises:
        ExplainError: the model has no attention.
    """
    size = (images.shape[2], images.shape[3])
    layers = [
        layer
        for layer in insist_attention(model.backbone)
        if isinstance(layer.place.at(size), Whole | Windowed)
    ]
    sums = {layer.index: torch.zeros(2, layer.heads, dtype=torch.float64) for layer in layers}
    with torch.no_grad(), _adding(layers, size, sums):
        for start in range(0, len(images), IMAGES):
            model.backbone(model.normalise(images[start : start + IMAGES]))
    means = [(layer, sums[layer.index][0] / sums[layer.index][1]) for layer in layers]
    return tuple(HeadDistances(layer, tuple(map(float, heads))) for layer, heads in means)


@contextmanager
def _adding(
    layers: Sequence[AttentionLayer], size: Grid, sums: dict[int, Tensor]
) -> Generator[None]:
    """Add up distances and rows of each head while the model runs inside the block."""

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del out
        at, real = _places(layer.place.at(size), size)
        at, real = at.to(v.device), real.to(v.device)
        rows = at.shape[-2]
        step = max(1, PART * rows // prod(weights.shape))
        for start in range(0, rows, step):
            some = slice(start, min(start + step, rows))
            sums[layer.index] += _distances(weights, at, real, some).cpu().double()

    with watching(layers, watch):
        yield


def _distances(
    weights: AttentionWeights,
    at: Float[Tensor, "*W N 2"],
    real: Bool[Tensor, "*W N"],
    some: slice,
) -> Float[Tensor, "2 h"]:
    """Summed distances in pixels, and the number of rows that look at any place, head by head."""
    prefix = weights.shape[-1] - at.shape[-2]
    rows = weights.rows(ALL, slice(some.start + prefix, some.stop + prefix))[..., prefix:]
    away = (at[..., some, None, :] - at[..., None, :, :]).square().sum(dim=-1).sqrt()
    rows = rows * real[..., None, None, :]
    total = rows.sum(dim=-1)
    looks = (total > 0) & real[..., None, some]
    mean = (rows * away[..., None, :, :]).sum(dim=-1) / total.where(looks, 1)
    others = [i for i in range(mean.ndim) if i != mean.ndim - 2]
    return torch.stack([mean.where(looks, 0).sum(dim=others), looks.sum(dim=others)])


def _places(layout: Layout, size: Grid) -> tuple[Float[Tensor, "*W N 2"], Bool[Tensor, "*W N"]]:
    """Row and column of each place in pixels, and whether it is none of the padding.

    Tokens of a soft split may lie beyond the image: its sides are padded for the last split.
    """
    match layout:
        case Windowed(windows=windows):
            number = windows.places()
        case Whole(grid=grid):
            number = torch.arange(grid[0] * grid[1])
        case _:
            raise AssertionError("queries are places")
    columns = layout.grid[1]
    at = layout.stride * torch.stack([number // columns, number % columns], dim=-1)
    inside = (at < torch.tensor(size)).all(dim=-1)
    return at.float(), inside & (number >= 0)
