"""Raw attention: where one layer looks, as it is (Bahdanau et al. 2015; Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.explain.capture import LayerAttention, capture
from vitrail.explain.layers import cells, choose_layers, insist_attention
from vitrail.explain.layout import Layout, OnImage, Query, Whole, Windowed
from vitrail.explain.method import Method
from vitrail.explain.rollout import read_from, refuses_without_attention
from vitrail.explain.target import Target
from vitrail.model import Model
from vitrail.types import Grid


@dataclass(frozen=True, slots=True)
class RawAttention(Method):
    """softmax(q kᵀ / √d) of one layer, in the rows that the head reads.

    That is the class token's row where the head reads one (the mean of two rows where a
    distillation token has an equal say), the one row of attention pooling, or else the mean over
    all places as queries. Windows are laid on the map of their stage. What goes to other tokens
    and to padding is left out.

    Attributes:
        layer: Number of the layer in the order in which they run, negative from the end; the
            layers are those of the backbone.
        head: Which head; None for the mean of all.
    """

    key: ClassVar[str] = "raw"
    name: ClassVar[str] = "Raw attention"
    paper: ClassVar[str] = "Caron et al. 2021 (DINO), Fig. 1; Vaswani et al. 2017, equation 1"
    of_class: ClassVar[bool] = False

    layer: int = -1
    head: int | None = None

    def refuses(self, model: Model) -> str:
        """There must be attention."""
        return refuses_without_attention(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """The same map for every class, on the grid of the layer.

        Raises:
            ExplainError: no attention, or no such layer or head.
        """
        del targets
        backbone = model.backbone
        (layer,) = choose_layers(insist_attention(backbone), [self.layer])
        size = (images.shape[2], images.shape[3])
        layout = layer.place.at(size)
        assert isinstance(layout, OnImage), "a backbone's attention lies on the image"
        queries, heads = _rows_read(backbone, layout), None if self.head is None else [self.head]
        seeing = capture(backbone, [layer.index], heads=heads, queries=queries)
        with torch.no_grad(), seeing as record:
            backbone(model.normalise(images))
        rows, columns = cells(size, layout.stride)
        return _laid(record.layers[0], (rows, columns))[:, :rows, :columns]


def _rows_read(backbone: Backbone, layout: Layout) -> list[Query] | None:
    """Rows of the tokens that the head reads; None for all rows."""
    if not isinstance(layout, Whole) or not layout.prefix or read_from(backbone) == "patches":
        return None
    return list(range(1 + backbone.distilled))


def _laid(seen: LayerAttention, inside: Grid) -> Float[Tensor, "B _h _w"]:
    """The mean over heads and rows, on the grid.

    Args:
        seen: One layer.
        inside: Rows and columns of the grid that begin inside the image. Tokens of a soft split
            may lie beyond; like the padding of windows they ask for nobody.
    """
    weights, layout = seen.weights.mean(dim=1), seen.layout
    match layout:
        case Windowed(windows=windows, grid=grid):
            cut = (windows.count, windows.size**2)
            real = (layout.places() >= 0).to(weights)  # padding asks too, but for nobody
            taken = (weights * real[:, None]).view(len(weights), *cut, -1).sum(dim=2)
            places = windows.join(taken[..., None])[:, :, 0]
            return places.reshape(-1, *grid) / (grid[0] * grid[1])
        case Whole(prefix=prefix, grid=grid) if seen.queries is None:
            places = weights[:, len(prefix) :].reshape(len(weights), *grid, -1)
            return layout.lay(0, places[:, : inside[0], : inside[1]].mean(dim=(1, 2)))
        case OnImage():
            return layout.lay(0, weights.mean(dim=1))
        case _:
            raise AssertionError("a backbone's attention lies on the image")
