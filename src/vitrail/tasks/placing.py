"""From a map over a view to the pixels of the original image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.types import Grid


def placed(
    maps: Float[Tensor, "C h w"], stride: int, size: Grid, extent: Grid
) -> Float[Tensor, "C _H _W"]:
    """Values at every pixel of an image, bilinear between the centres of cells.

    Args:
        maps: Over a view; cells are `stride` pixels of it wide and high.
        stride: Pixels of the view a cell.
        size: Height and width of the image.
        extent: Rows and columns of the view that show it.
    """
    h, w = maps.shape[1:]
    if (h * stride, w * stride) == extent:
        if (h, w) == size:
            return maps
        return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    down, across = (
        ((torch.arange(pixels, device=maps.device) + 0.5) / pixels * shown / (cells * stride)) * 2
        - 1
        for pixels, shown, cells in zip(size, extent, (h, w), strict=True)
    )
    y, x = torch.meshgrid(down, across, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None].to(maps.dtype)
    return F.grid_sample(
        maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]
