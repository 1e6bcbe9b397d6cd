"""What an attention shows of itself while somebody watches (`vitrail.explain.capture`).

The fast path keeps no attention matrix. It hands over what the matrix follows from, so that whoever
watches computes the rows that are wanted, and no others. Leading dimensions are written `*B`: the
images, and for windows the windows of each image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.types import Grid

Rows = slice | list[int]
"""Which heads or queries are wanted; `slice(None)` for all."""

ALL = slice(None)


class AttentionWeights(ABC):
    """How much each query takes of each value, for every head, not computed yet."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of all weights: `*B h Q N`."""

    @abstractmethod
    def rows(self, heads: Rows = ALL, queries: Rows = ALL) -> Float[Tensor, "*B h Q N"]:
        """The weights of some heads and queries, in float32; none is negative.

        A row sums to 1, but for `KernelWeights`, where its sum is that of the features' products
        over the same plus epsilon, and for `SampledWeights` that reach beyond a map.
        """


@dataclass(frozen=True, slots=True)
class SoftmaxWeights(AttentionWeights):
    """softmax(q kᵀ · scale + bias).

    Attributes:
        q: Queries.
        k: Keys.
        bias: Added to the scores, in any shape that `*B h Q N` is broadcast from.
        scale: Factor of the scores.
    """

    q: Float[Tensor, "*B h Q d"]
    k: Float[Tensor, "*B h N d"]
    bias: Tensor | None
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all weights."""
        return (*self.q.shape[:-1], self.k.shape[-2])

    def rows(self, heads: Rows = ALL, queries: Rows = ALL) -> Float[Tensor, "*B h Q N"]:
        """Some of the weights."""
        q = self.q[..., heads, :, :][..., queries, :].float()
        # The queries are scaled, not the scores: they are fewer.
        scores = (q * self.scale) @ self.k[..., heads, :, :].float().mT
        if self.bias is not None:
            # In the scores' own memory, unless a gradient needs them.
            bias = _some(self.bias, heads, queries).float()
            scores = scores + bias if scores.requires_grad else scores.add_(bias)
        return scores.softmax(dim=-1)


@dataclass(frozen=True, slots=True)
class KernelWeights(AttentionWeights):
    """phi(q)·phi(k) over its sum: attention by random features (Choromanski et al. 2021).

    The fast path never forms this matrix; it is what the path amounts to.

    Attributes:
        q: Features of the queries, not negative.
        k: Features of the keys.
        eps: Added to the sum: a row sums to total / (total + eps), next to nothing where its
            features are far smaller than `eps`. The fast path divides by the same.
    """

    q: Float[Tensor, "*B h Q m"]
    k: Float[Tensor, "*B h N m"]
    eps: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all weights."""
        return (*self.q.shape[:-1], self.k.shape[-2])

    def rows(self, heads: Rows = ALL, queries: Rows = ALL) -> Float[Tensor, "*B h Q N"]:
        """Some of the weights."""
        q = self.q[..., heads, :, :][..., queries, :].float()
        products = q @ self.k[..., heads, :, :].float().mT
        return products / (products.sum(dim=-1, keepdim=True) + self.eps)


@dataclass(frozen=True, slots=True)
class SampledWeights(AttentionWeights):
    """Bilinear samples of feature maps, weighed (deformable attention, Zhu et al. 2021).

    As a matrix, each sample is spread over the four cells around it.

    Attributes:
        places: Where the samples lie, x and y as shares of each map.
        shares: Weight of each sample; those of a query and head sum to 1.
        grids: Rows and columns of each map.
    """

    places: Float[Tensor, "B h Q L P 2"]
    shares: Float[Tensor, "B h Q L P"]
    grids: tuple[Grid, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all weights, the cells of all maps side by side."""
        return (*self.shares.shape[:3], sum(rows * columns for rows, columns in self.grids))

    def sample(self, values: Float[Tensor, "B h N d"]) -> Float[Tensor, "B h Q d"]:
        """The fast path: no matrix."""
        found: list[Tensor] = []
        sizes = [rows * columns for rows, columns in self.grids]
        for level, part in enumerate(torch.split(values, sizes, dim=2)):
            B, h, _, d = part.shape
            cells = part.transpose(2, 3).reshape(B * h, d, *self.grids[level])
            grid = self.places[:, :, :, level].flatten(0, 1) * 2 - 1
            found.append(F.grid_sample(cells, grid.to(cells.dtype), align_corners=False))
        shares = self.shares.flatten(0, 1).flatten(2)[:, None].to(values.dtype)
        total = (torch.cat(found, dim=-1) * shares).sum(-1)
        return total.transpose(1, 2).reshape(*values.shape[:2], -1, values.shape[3])

    def rows(self, heads: Rows = ALL, queries: Rows = ALL) -> Float[Tensor, "B h Q N"]:
        """Some of the weights; what falls outside a map is missing from a row's sum."""
        places = self.places[:, heads][:, :, queries].float()
        shares = self.shares[:, heads][:, :, queries].float()
        parts: list[Tensor] = []
        for level, (rows, columns) in enumerate(self.grids):
            x, y = places[:, :, :, level].unbind(-1)
            across, down = _tents(x, columns), _tents(y, rows)
            weighed = down * shares[:, :, :, level, :, None]
            parts.append((weighed.mT @ across).flatten(3))
        return torch.cat(parts, dim=-1)


def _tents(places: Float[Tensor, "*B P"], cells: int) -> Float[Tensor, "*B P N"]:
    """Linear interpolation weight of each cell along one axis."""
    centres = torch.arange(cells, device=places.device)
    return (1 - (places[..., None] * cells - 0.5 - centres).abs()).clamp_min(0)


Probe = Callable[[AttentionWeights, Tensor, Tensor], None]
"""Called with the weights, the values `*B h N d` and the fused output `*B h Q d`."""


def _some(bias: Tensor, heads: Rows, queries: Rows) -> Tensor:
    """The bias of some heads and queries, where it has one for each."""
    if bias.shape[-2] > 1:
        bias = bias[..., queries, :]
    return bias[..., heads, :, :] if bias.ndim > 2 and bias.shape[-3] > 1 else bias
