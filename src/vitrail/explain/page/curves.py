"""Curves of a page: how the answer changes with what a map calls important, beside a random one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.explain.baselines import RandomMap
from vitrail.explain.faithfulness.curves import Curves, curves
from vitrail.explain.faithfulness.erasing import Filling
from vitrail.explain.faithfulness.pixels import cell_side, ranks
from vitrail.explain.target import Target
from vitrail.model import Model

FILLING: Filling = "blur"
"""What stands in place of erased pixels: it tears no edges that were not there."""

STEPS = 16
"""Steps of the curves of a page: 34 forward passes a map."""


@dataclass(frozen=True, slots=True)
class CurveView:
    """A curve of the model's probability, and the same for a random order of the same cells.

    Attributes:
        kind: Whether the pixels that a map calls important go first, or come first.
        shares: Share of the pixels, 0 to 1.
        values: Probability of the class.
        area: Below the curve, 0 to 1.
        random_values: Of the random order.
        random_area: Below it.
    """

    kind: Literal["deletion", "insertion"]
    shares: Sequence[float]
    values: Sequence[float]
    area: float
    random_values: Sequence[float]
    random_area: float


def random_curves(model: Model, image: UInt8[Tensor, "3 H W"], target: Target) -> Curves:
    """Curves of a map that knows nothing: what every other has to beat."""
    return _measured(model, image, target, RandomMap().explain(model, image[None], [target]))


def view_curves(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    target: Target,
    cells: Float[Tensor, "1 h w"],
    random: Curves,
) -> tuple[CurveView, ...]:
    """Deletion and insertion along a map.

    Args:
        model: In evaluation mode.
        image: Prepared.
        target: What the map is about.
        cells: The map.
        random: From `random_curves`.
    """
    ours = _measured(model, image, target, cells)
    return (
        _view("deletion", ours, ours.deletion, random.deletion),
        _view("insertion", ours, ours.insertion, random.insertion),
    )


def _measured(
    model: Model, image: UInt8[Tensor, "3 H W"], target: Target, cells: Float[Tensor, "1 h w"]
) -> Curves:
    size = (image.shape[1], image.shape[2])
    cell = cell_side(model, size, (cells.shape[1], cells.shape[2]))
    ordered = ranks(cells, image[None], cell)
    return curves(model, image[None], [target], ordered, FILLING, steps=STEPS)


def _view(
    kind: Literal["deletion", "insertion"],
    curves: Curves,
    ours: Float[Tensor, "1 S"],
    random: Float[Tensor, "1 S"],
) -> CurveView:
    return CurveView(
        kind,
        _numbers(curves.shares),
        _numbers(ours[0]),
        float(curves.area(ours)),
        _numbers(random[0]),
        float(curves.area(random)),
    )


def _numbers(row: Float[Tensor, " S"]) -> list[float]:
    return cast("list[float]", row.tolist())  # pyright: ignore[reportUnknownMemberType]
