"""Buffers of the windows that Swin files may hold, and what they tell of the window."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint

ShapeOf = Callable[[str, int | None], tuple[int, ...]]
"""Shape of a tensor that must be there, of a number of dimensions."""


def relative_index(size: int) -> Int[Tensor, "N N"]:
    """Row of the table for each pair of places of a window, query by key, N = size²."""
    at = torch.arange(size)
    y, x = (axis.flatten() for axis in torch.meshgrid(at, at, indexing="ij"))
    dy, dx = (a[:, None] - a[None, :] + size - 1 for a in (y, x))
    return dy * (2 * size - 1) + dx


def relative_coordinates(size: int, pretrained: int) -> Float[Tensor, "1 M M 2"]:
    """Logarithmic offsets (Swin v2, equation 4) of every row and column, M = 2 size - 1.

    Args:
        size: Side of the window.
        pretrained: Side of the window in which offsets are measured.
    """
    axis = torch.arange(1 - size, size, dtype=torch.float32) * (8 / max(pretrained - 1, 1))
    axis = axis.sign() * (axis.abs() + 1).log2() / math.log2(8)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)[None]


def heads_of(
    checkpoint: Checkpoint, attention: str, width: int, shape: ShapeOf, *, second: bool
) -> int:
    """Heads of a stage: a table of biases has a column for each, the scales of version 2 a row.

    Raises:
        CheckpointError: the stage's width is not divisible among so many.
    """
    name = f"{attention}{'logit_scale' if second else 'relative_position_bias_table'}"
    heads = shape(name, 3)[0] if second else shape(name, 2)[1]
    if heads < 1 or width % heads:
        raise CheckpointError(
            f"{checkpoint.path}: tensor '{name}' is for {heads} heads, which cannot share a width "
            f"of {width}"
        )
    return heads


def window_of(checkpoint: Checkpoint, attention: str, shape: ShapeOf) -> int:
    """Side of the window by the length of a table of biases.

    Args:
        checkpoint: For the error.
        attention: Beginning of the names, up to the dot.
        shape: Shape of a tensor that must be there.

    Raises:
        CheckpointError: no square window has a table of that length.
    """
    name = f"{attention}relative_position_bias_table"
    rows = shape(name, 2)[0]
    side = math.isqrt(max(rows, 0))
    if side * side != rows or side % 2 == 0:
        raise CheckpointError(
            f"{checkpoint.path}: tensor '{name}' has {rows} rows, which no square window has"
        )
    return (side + 1) // 2
