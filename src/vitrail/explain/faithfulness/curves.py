"""Deletion and insertion, the causal metrics of RISE (Petsiuk et al. 2018).

Take away the pixels that a map calls important, and the class should go soon; give them first, and
it should come soon. Pixels follow the map stretched to the input; see `pixels.ranks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vitrail.explain.faithfulness.erasing import Filling, erased, filled
from vitrail.explain.target import Target
from vitrail.model import Model

STEPS = 24
"""Equal steps from nothing to everything."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Probability of the class as pixels go and as they come.

    Attributes:
        shares: Share of the pixels, from 0 to 1.
        deletion: With that share of the most salient pixels erased: begins at the whole image, ends
            at the filling.
        insertion: With only that share of them left: begins at the filling, ends at the image.
    """

    shares: Float[Tensor, "S"]
    deletion: Float[Tensor, "B S"]
    insertion: Float[Tensor, "B S"]

    @property
    def deletion_area(self) -> Float[Tensor, "B"]:
        """Area below the curve (trapezoids), 0 to 1; the smaller, the better the map."""
        return self.area(self.deletion)

    @property
    def insertion_area(self) -> Float[Tensor, "B"]:
        """Area below the curve (trapezoids), 0 to 1; the greater, the better the map."""
        return self.area(self.insertion)

    def area(self, curve: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
        """Area below a curve over these shares (trapezoids)."""
        return torch.trapezoid(curve, self.shares, dim=1)


def curves(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    targets: Sequence[Target],
    ranks: Int[Tensor, "B H W"],
    filling: Filling,
    *,
    steps: int = STEPS,
    batch_size: int = 64,
) -> Curves:
    """Both curves of each image.

    Args:
        model: In evaluation mode.
        images: Prepared.
        targets: What is asked about, one an image.
        ranks: Order of the pixels, from `pixels.ranks`.
        filling: What takes the place of erased pixels.
        steps: Steps between the ends; there is one point more.
        batch_size: Images a forward pass.
    """
    total = ranks.shape[1] * ranks.shape[2]
    counts = [round(total * step / steps) for step in range(steps + 1)]
    spans = [(0, count) for count in counts] + [(count, total) for count in counts]
    blank = filled(images, filling)
    rows = erased(model, images, blank, ranks, spans, targets, batch_size=batch_size)
    shares = torch.tensor(counts, dtype=torch.float32, device=rows.device) / total
    return Curves(shares, rows[:, : steps + 1], rows[:, steps + 1 :])
