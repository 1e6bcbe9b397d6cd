"""What an attention shows of itself while somebody watches (`vitrail.explain.capture`).

The fast path keeps no attention matrix. It hands over what the matrix follows from, so that whoever
watches computes the rows that are wanted, and no others. Leading dimensions are written `*B`: the
images, and for windows the windows of each image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

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
        over the same plus epsilon.
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


Probe = Callable[[AttentionWeights, Tensor, Tensor], None]
"""Called with the weights, the values `*B h N d` and the fused output `*B h Q d`."""


def _some(bias: Tensor, heads: Rows, queries: Rows) -> Tensor:
    """The bias of some heads and queries, where it has one for each."""
    if bias.shape[-2] > 1:
        bias = bias[..., queries, :]
    return bias[..., heads, :, :] if bias.ndim > 2 and bias.shape[-3] > 1 else bias
