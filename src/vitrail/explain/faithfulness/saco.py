"""SaCo, the Salience-guided Faithfulness Coefficient (Wu et al. 2024, arXiv 2404.01415).

The curves look at the order of the pixels alone, and at ever more of them at once. SaCo erases
groups one at a time, and asks whether differences in salience have the sign that they should.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vitrail.explain.faithfulness.erasing import Filling, Span, erased, filled
from vitrail.model import Model

GROUPS = 10
"""K of the paper."""


def coefficient(salience: Float[Tensor, "B K"], drops: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """How well the salience of groups tells what erasing each one costs (algorithm 1), -1 to 1.

    Over all pairs i < j, s_i - s_j counts for the map where group i costs at least as much as group
    j, and against it elsewhere; the sum is divided by that of all differences. A map without
    differences says nothing and gets 0.

    Args:
        salience: Of each group, falling.
        drops: Probability of the class, less that without the group.
    """
    groups = salience.shape[1]
    first, second = torch.triu_indices(groups, groups, offset=1).unbind()
    weight = salience[:, first] - salience[:, second]
    agrees = drops[:, first] >= drops[:, second]
    total = weight.abs().sum(dim=1)
    signed = torch.where(agrees, weight, -weight).sum(dim=1)
    return signed / total.where(total > 0, 1)


def saco(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    classes: Sequence[int],
    ranks: Int[Tensor, "B H W"],
    values: Float[Tensor, "B H W"],
    *,
    filling: Filling = "mean",
    groups: int = GROUPS,
    batch_size: int = 64,
) -> Float[Tensor, "B"]:
    """The coefficient of each image.

    Pixels are cut by rank into groups of equal size; a group's salience is the mean of its pixels.
    The paper's is the sum, which differs by a factor alone, but for groups that differ by a pixel.

    Args:
        model: In evaluation mode.
        images: Prepared.
        classes: The class that is asked about, one an image.
        ranks: Order of the pixels, from `pixels.ranks`.
        values: The map that they follow, from `pixels.stretch`.
        filling: What takes the place of erased pixels; the paper's is the mean of the image.
        groups: How many.
        batch_size: Images a forward pass.
    """
    total = ranks.shape[1] * ranks.shape[2]
    edges = [round(total * group / groups) for group in range(groups + 1)]
    spans: list[Span] = list(pairwise(edges))
    asked = [(0, 0), *spans]  # first nothing is erased
    blank = filled(images, filling)
    rows = erased(model, images, blank, ranks, asked, classes, batch_size=batch_size)
    ordered = torch.empty_like(values.flatten(1)).scatter_(1, ranks.flatten(1), values.flatten(1))
    salience = torch.stack([ordered[:, low:high].mean(dim=1) for low, high in spans], dim=1)
    return coefficient(salience, rows[:, :1] - rows[:, 1:])
