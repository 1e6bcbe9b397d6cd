"""Occlusion (Zeiler and Fergus 2014): what the model loses when a place is covered.

It asks the model itself and assumes nothing of its inside: the slow reference for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.errors import ExplainError
from vitrail.explain.blur import blurred
from vitrail.explain.gradcam import refuses_without_classes
from vitrail.explain.layers import cells
from vitrail.explain.method import Method
from vitrail.explain.target import Target, logit, probability
from vitrail.model import Model
from vitrail.types import Grid

CELLS = 8
"""Cells along the shorter side that the default stride gives at least, where a map allows it."""

Cover = Literal["mean", "blur"]
"""What a square is covered by: the image's mean colour, or a blurred copy of what was there."""

Score = Literal["probability", "logit"]
"""What falls. A probability knows the other classes; a logit does not saturate."""


@dataclass(frozen=True, slots=True)
class Occlusion(Method):
    """Drop of the class's score when a square is covered (section 4.2, Fig. 7 d).

    The map has one cell for each place of the square, whose middle is the cell's. A rise is shown
    as zero. It costs one forward pass a cell.

    Attributes:
        window: Side of the square in pixels; None for twice the stride.
        stride: Pixels from one square to the next; None for a cell of the coarsest feature map that
            has `CELLS` of them along the shorter side, else of the finest map.
        cover: What the square is covered by.
        score: What is measured.
        batch: Covered images that run at a time: bounds the memory.
    """

    key: ClassVar[str] = "occlusion"
    name: ClassVar[str] = "Occlusion"
    paper: ClassVar[str] = "Zeiler and Fergus 2014, section 4.2"

    window: int | None = None
    stride: int | None = None
    cover: Cover = "mean"
    score: Score = "probability"
    batch: int = 64

    def refuses(self, model: Model) -> str:
        """It needs the score of a class or region, and works on every backbone."""
        return refuses_without_classes(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map an image, a cell a place of the square.

        Raises:
            ExplainError: a window, stride or batch below 1, or a window smaller than the stride.
        """
        return self.drops(model, images, targets).clamp_min(0)

    @torch.no_grad()
    def drops(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """How much the score falls, cell by cell; negative where it rises.

        Raises:
            ExplainError: as in `explain`.
        """
        assert len(images) == len(targets), "one target an image"
        size = (images.shape[2], images.shape[3])
        stride = default_stride(model.backbone, size) if self.stride is None else self.stride
        window = 2 * stride if self.window is None else self.window
        self._insist(window, stride)
        grid, found = cells(size, stride), list[Tensor]()
        squares = _squares(grid, window, stride, images.device)
        at_a_time = [squares[i : i + self.batch] for i in range(0, len(squares), self.batch)]
        for image, about in zip(images, targets, strict=True):
            cover = _covered(image, self.cover, window)
            whole = self._scores(model, image[None], about)
            parts = [
                self._scores(model, torch.where(_inside(some, size), cover, image), about)
                for some in at_a_time
            ]
            found.append((whole - torch.cat(parts)).view(grid))
        return torch.stack(found)

    def _scores(
        self, model: Model, images: UInt8[Tensor, "b 3 H W"], about: Target
    ) -> Float[Tensor, " b"]:
        number = probability if self.score == "probability" else logit
        return number(model(images), [about] * len(images), model.task).float()

    def _insist(self, window: int, stride: int) -> None:
        if min(window, stride, self.batch) < 1:
            raise ExplainError(
                f"window {window}, stride {stride}, batch {self.batch}: each must be at least 1"
            )
        if window < stride:
            raise ExplainError(
                f"window {window} is smaller than stride {stride}: places between the squares "
                "would never be covered"
            )


def default_stride(backbone: Backbone, size: Grid) -> int:
    """Pixels from one square to the next: a cell of a map that is neither coarse nor costly."""
    enough = [stride for stride in backbone.strides if min(cells(size, stride)) >= CELLS]
    return max(enough, default=backbone.strides[0])


def _squares(grid: Grid, window: int, stride: int, device: torch.device) -> Int[Tensor, "n 4"]:
    """Top, left, bottom and right of each square, in raster order; edges may lie outside."""
    first = (stride - window) // 2
    y, x = (first + stride * torch.arange(count, device=device) for count in grid)
    corners = torch.cartesian_prod(y, x)
    return torch.cat([corners, corners + window], dim=1)


def _inside(squares: Int[Tensor, "n 4"], size: Grid) -> Tensor:
    """Which pixels each square covers, as n 1 H W."""
    y, x = (torch.arange(side, device=squares.device) for side in size)
    top, left, bottom, right = squares[:, :, None].unbind(1)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, None, :, None] & columns[:, None, None, :]


def _covered(image: UInt8[Tensor, "3 H W"], cover: Cover, window: int) -> UInt8[Tensor, "3 _h _w"]:
    """What stands in a covered place: of the size of the image, or of one pixel."""
    pixels = image.float()
    match cover:
        case "mean":
            covered = pixels.mean(dim=(1, 2), keepdim=True)
        case "blur":
            covered = blurred(pixels, window / 2)
    return covered.round().to(torch.uint8)
