"""The skeleton of a mask by pooling, so that it has a gradient (Shit et al. 2021, algorithm 1)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, minimum
from torch.nn import functional as F


def soft_skeleton(masks: Float[Tensor, "B C H W"], iterations: int) -> Float[Tensor, "B C H W"]:
    """What is left of masks when all that is thicker than a line is thinned.

    Args:
        masks: Probabilities.
        iterations: Erosions: at least half the width of the thickest thing.
    """
    skeleton = F.relu(masks - _open(masks))
    for _ in range(iterations):
        masks = _erode(masks)
        left = F.relu(masks - _open(masks))
        skeleton = skeleton + F.relu(left - skeleton * left)
    return skeleton


def _erode(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The least value of a cross around each pixel."""
    down = -F.max_pool2d(-x, (3, 1), 1, (1, 0))
    across = -F.max_pool2d(-x, (1, 3), 1, (0, 1))
    return minimum(down, across)


def _open(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    return F.max_pool2d(_erode(x), 3, 1, 1)
