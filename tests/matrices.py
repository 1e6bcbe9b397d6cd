"""What rollout and gradient-weighted rollout multiply, written out as matrices in float64.

Attention is computed without the fused kernel; windows, merged places and soft splits become
matrices between places. Nothing of `vitrail.explain.flow` is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from presets import PRESETS
from tiny import tiny_config
from vitrail.backbones import BackboneConfig
from vitrail.backbones.t2t import TokenTransformerConfig
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import OnImage, Pooled, Windowed
from vitrail.model import Model
from vitrail.nn.soft_split import SoftSplit
from vitrail.nn.windows import PatchMerging
from vitrail.types import Features, Grid

MODELS: dict[str, BackboneConfig] = {
    "class": tiny_config(registers=1),
    "norm_after_pool": tiny_config(norm_after_pool=True),
    "deit": PRESETS["deit_nano_distilled_conv2_8"],
    "mean": tiny_config(pool="mean"),
    "mean_alone": tiny_config(pool="mean", class_token=False, positions={"kind": "rotary_2d"}),
    "class_and_mean": tiny_config(pool="class_and_mean", norm="post"),
    "attention": tiny_config(pool="attention", positions={"kind": "relative_2d"}),
    "hybrid": PRESETS["hybrid_nano_8"],
    "t2t": PRESETS["t2t_nano_8"].model_copy(update={"token_block": TokenTransformerConfig()}),
    "swin": PRESETS["swin_nano_8"],
    "swinv2": PRESETS["swinv2_nano_8"],
}
"""Every way to read tokens, and every way to mix them that a plain product can express."""


@dataclass
class Step:
    """One thing that mixed tokens.

    Attributes:
        seen: Attention (h, Q, N), by window (W, h, N, N), patches (N, K) or places (n, C).
        where: The layout of an attention, the split, or nothing for a merging.
        grid: Of the cells below a split or merging.
    """

    seen: Tensor
    where: OnImage | SoftSplit | None
    grid: Grid = (0, 0)


def written_out(
    model: Model, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Model, Features, list[Step]]:
    """Run one image through a copy in float64 that keeps every attention and its graph."""
    model, size = copy.deepcopy(model).double(), (image.shape[1], image.shape[2])
    layers, steps = iter(attention_layers(model)), list[Step]()

    def plain(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        scale = given.get("scale") or q.shape[-1] ** -0.5
        scores, mask = q @ k.mT * scale, given.get("attn_mask")
        attention = (scores if mask is None else scores + mask).softmax(dim=-1)
        layer = next(layers)
        where = layer.place.at(size)
        assert isinstance(where, OnImage)
        windows = (where.windows.count,) if isinstance(where, Windowed) else ()
        # The reshaped copy is on the way to the output, so that it has a gradient.
        seen = attention.reshape(*windows, layer.heads, *attention.shape[-2:])
        steps.append(Step(seen, where))
        return seen.reshape(attention.shape) @ v

    def split(module: SoftSplit, given: tuple[Tensor], patches: Tensor) -> Tensor:
        patches = patches[0]
        steps.append(Step(patches, module, (given[0].shape[2], given[0].shape[3])))
        return patches[None]

    def merge(module: PatchMerging, given: tuple[Tensor, Grid]) -> tuple[Tensor, Grid]:
        places = given[0][0]
        steps.append(Step(places, None, given[1]))
        return places[None], given[1]

    for part in [m for m in model.modules() if isinstance(m, SoftSplit)][1:]:
        part.register_forward_hook(split)
    for part in model.modules():
        if isinstance(part, PatchMerging):
            part.register_forward_pre_hook(merge)
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", plain)
        features = model.backbone(model.normalise(image[None]))
    return model, features, steps


def windows_as_matrix(weights: Tensor, where: Windowed) -> Tensor:
    """Weights (W, N, N) as one matrix from all places to all places, padding left out."""
    windows = where.windows
    size, shift, (rows, columns) = windows.size, windows.shift, where.grid
    padded = (-(-rows // size) * size, -(-columns // size) * size)
    matrix = weights.new_zeros(rows * columns, rows * columns)
    for number, window in enumerate(weights):
        top, left = divmod(number, padded[1] // size)
        place: list[int] = []
        for local in range(size**2):
            y = (top * size + local // size + shift) % padded[0]
            x = (left * size + local % size + shift) % padded[1]
            place.append(y * columns + x if y < rows and x < columns else -1)
        for i, query in enumerate(place):
            for j, key in enumerate(place):
                if query >= 0 and key >= 0:
                    matrix[query, key] = window[i, j]
    return matrix


def cells_below(step: Step) -> list[list[tuple[int, int]]]:
    """For each token of a split or merging its cells: their place (-1 outside), number in it."""
    rows, columns = step.grid
    if isinstance(step.where, SoftSplit):
        side, stride, padding = step.where.kernel, step.where.stride, step.where.padding
        tokens = (rows // stride, columns // stride)
    else:
        side, stride, padding, tokens = 2, 2, 0, (-(-rows // 2), -(-columns // 2))
    found: list[list[tuple[int, int]]] = []
    for top in range(tokens[0]):
        for left in range(tokens[1]):
            cells: list[tuple[int, int]] = []
            for number in range(side**2):
                y = top * stride - padding + number // side
                x = left * stride - padding + number % side
                inside = 0 <= y < rows and 0 <= x < columns
                cells.append((y * columns + x if inside else -1, number))
            found.append(cells)
    return found


def spread(step: Step, shares: Tensor) -> Tensor:
    """Shares (tokens, cells of each) as a matrix from tokens to places."""
    below = cells_below(step)
    matrix = shares.new_zeros(len(below), step.grid[0] * step.grid[1])
    for token, cells in enumerate(below):
        for place, number in cells:
            if place >= 0:
                matrix[token, place] += shares[token, number]
    return matrix


def carried(
    steps: list[Step],
    row: Tensor,
    residual: tuple[float, float] | Sequence[Tensor],
    mix: Callable[[Step, int], Tensor],
    shares: Callable[[Step, int], Tensor],
) -> Tensor:
    """The row of the product of all matrices; `mix` gives (Q, N), or (W, N, N) for windows.

    `residual` has the shares of what stays and of attention, or how much of each token stays, one
    tensor a layer.
    """
    measured = None if isinstance(residual, tuple) else iter(reversed(residual))
    for at, step in reversed(list(enumerate(steps))):
        if isinstance(step.where, OnImage):
            matrix = mix(step, at)
            if isinstance(step.where, Windowed):
                matrix = windows_as_matrix(matrix, step.where)
            if isinstance(step.where, Pooled):
                row = matrix[0]
            else:
                identity = torch.eye(len(matrix), dtype=matrix.dtype)
                if measured is None:
                    row = row @ (residual[0] * identity + residual[1] * matrix)
                else:
                    kept = next(measured).to(matrix)[:, None]
                    row = row @ (kept * identity + (1 - kept) * matrix)
        else:
            matrix = spread(step, shares(step, at))
            row = row[-len(matrix) :] @ matrix
    return row


def on_the_grid(row: Tensor, steps: list[Step], size: Grid) -> Tensor:
    """Without the prefix, as a map, without cells beyond the image."""
    where = steps[0].where
    assert isinstance(where, OnImage)
    rows, columns = (-(-side // where.stride) for side in size)
    places = where.grid[0] * where.grid[1]
    return row[-places:].view(where.grid)[:rows, :columns]
