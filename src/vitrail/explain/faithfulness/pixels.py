"""From the cells of a map to the pixels of the model's input, and to an order of those pixels.

Methods have grids of their own. On pixels all are treated alike.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail.model import Model
from vitrail.types import Grid

_LEVELS = 2**20
"""Values nearer than this share of the peak are equal: interpolation rounds."""


def cell_side(model: Model, size: Grid, grid: Grid) -> tuple[int, int]:
    """Height and width of a cell in pixels: a stride of the model, where one makes such a grid.

    Args:
        model: Whose input the map explains.
        size: Height and width of the input.
        grid: Rows and columns of the map.
    """
    for stride in model.backbone.strides:
        if (-(-size[0] // stride), -(-size[1] // stride)) == grid:
            return stride, stride
    return -(-size[0] // grid[0]), -(-size[1] // grid[1])


def stretch(
    maps: Float[Tensor, "B h w"], size: Grid, cell: tuple[int, int]
) -> Float[Tensor, "B H W"]:
    """Bilinear, a cell's value at its centre; what hangs over the edge is cut off."""
    whole = (maps.shape[1] * cell[0], maps.shape[2] * cell[1])
    drawn = F.interpolate(maps.float()[:, None], size=whole, mode="bilinear", align_corners=False)
    return drawn[:, 0, : size[0], : size[1]]


def spread(
    maps: Float[Tensor, "B h w"], size: Grid, cell: tuple[int, int]
) -> Float[Tensor, "B H W"]:
    """Every pixel has the value of its cell."""
    tall = maps.float().repeat_interleave(cell[0], dim=1)
    return tall.repeat_interleave(cell[1], dim=2)[:, : size[0], : size[1]]


def ranks(
    maps: Float[Tensor, "B h w"],
    images: UInt8[Tensor, "B 3 H W"],
    cell: tuple[int, int],
    *,
    seed: int = 0,
) -> Int[Tensor, "B H W"]:
    """Place of each pixel in the order of the stretched map, 0 for the most salient.

    Many maps are zero over wide areas. Ties are broken by a random order of the cells, which
    depends on the image and the seed alone; a cell's pixels then follow each other, so that no
    image is peppered with single pixels.

    Args:
        maps: Not negative.
        images: Prepared.
        cell: From `cell_side`.
        seed: Of the order among ties.
    """
    size = (images.shape[2], images.shape[3])
    noise = spread(_noise(images, maps.shape[1:], seed).to(maps.device), size, cell).flatten(1)
    values = stretch(maps, size, cell).flatten(1)
    peak = values.amax(dim=1, keepdim=True)
    values = (values / peak.where(peak > 0, 1) * _LEVELS).round()
    by_noise = noise.argsort(dim=1, stable=True)
    by_value = values.gather(1, by_noise).argsort(dim=1, descending=True, stable=True)
    return by_noise.gather(1, by_value).argsort(dim=1).view(-1, *size)


def _noise(
    images: UInt8[Tensor, "B 3 H W"], grid: tuple[int, ...], seed: int
) -> Float[Tensor, "B h w"]:
    rows: list[Tensor] = []
    for image in images:
        pixels = image.numpy(force=True).tobytes()
        key = int.from_bytes(hashlib.sha256(pixels).digest()[:8], "big")
        drawn = np.random.default_rng((seed, key)).permutation(grid[0] * grid[1])
        rows.append(torch.tensor(drawn, dtype=torch.float32).view(*grid))
    return torch.stack(rows)
