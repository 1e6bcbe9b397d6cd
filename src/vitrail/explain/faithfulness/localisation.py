"""Does a map point at the evidence, where the data know it.

The pointing game (Zhang et al. 2016, Excitation Backprop), and the energy-based one (Wang et al.
2020, Score-CAM). By chance both give the evidence's share of the area.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.data.preprocess import Preprocess
from vitrail.explain.faithfulness.pixels import spread
from vitrail.types import Grid


def prepared_mask(mask: Bool[Tensor, "H W"], preprocess: Preprocess) -> Bool[Tensor, "h w"]:
    """The evidence where the model sees it: resized and cut as its image is.

    Args:
        mask: Of the original image.
        preprocess: The model's own.
    """
    drawn = mask.to(torch.uint8) * 255
    # The memory of decoded photos, which the resize is made for.
    image = drawn[:, :, None].expand(-1, -1, 3).contiguous().permute(2, 0, 1)
    return preprocess.prepare(image)[0] >= 128


def chance(mask: Bool[Tensor, "H W"]) -> float:
    """What a map that knows nothing gets in either measure on average."""
    return int(mask.sum()) / mask.numel()


def pointing(heat: Float[Tensor, "h w"], mask: Bool[Tensor, "H W"], cell: tuple[int, int]) -> float:
    """Whether the centre of the greatest cell lies on the evidence, 0 or 1.

    Where several cells are greatest: the expected value of choosing one of them. There is no
    margin around the evidence (the paper has one of 15 pixels).
    """
    cells = (heat == heat.max()).nonzero().to(mask.device)
    rows = (cells[:, 0] * cell[0] + cell[0] // 2).clamp_max(mask.shape[0] - 1)
    columns = (cells[:, 1] * cell[1] + cell[1] // 2).clamp_max(mask.shape[1] - 1)
    return float(mask[rows, columns].float().mean())


def energy(heat: Float[Tensor, "h w"], mask: Bool[Tensor, "H W"], cell: tuple[int, int]) -> float:
    """Share of the map that lies on the evidence, 0 to 1; a cell's is spread over its pixels.

    A map of zeros is as good as an even one.
    """
    size: Grid = (mask.shape[0], mask.shape[1])
    pixels = spread(heat[None].to(mask.device), size, cell)[0]
    total = float(pixels.sum())
    return float(pixels[mask].sum()) / total if total > 0 else chance(mask)
