"""Where a cell of a feature map stands, in sines (Carion et al. 2020, "DETR", appendix A.4)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPS = 1e-6
"""Added to the number of rows and columns (facebookresearch/detr)."""


def sine_positions(
    shown: Bool[Tensor, "B h w"], width: int, *, temperature: float = 10_000.0
) -> Float[Tensor, "B N D"]:
    """One vector a cell in raster order: sines and cosines of its row, then of its column.

    Rows and columns are counted over the cells that show the image and divided by how many there
    are, so that they run up to 2 pi and what was filled up changes nothing. Neighbouring components
    are sine and cosine of one frequency.

    Args:
        shown: True where a cell shows the image.
        width: Width D of the vectors, divisible by 4.
        temperature: Ratio of the longest wave to the shortest.
    """
    assert width % 4 == 0, f"2-D sines need a width divisible by 4, got {width}"
    half = width // 2
    component = torch.arange(half, device=shown.device).float()
    wave = temperature ** (2 * torch.div(component, 2, rounding_mode="floor") / half)
    axes: list[Tensor] = []
    for axis in (1, 2):
        place = shown.float().cumsum(axis)
        count = place.narrow(axis, place.shape[axis] - 1, 1)
        angle = (place / (count + EPS) * (2 * math.pi))[..., None] / wave
        axes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], 4).flatten(3))
    return torch.cat(axes, dim=3).flatten(1, 2)
