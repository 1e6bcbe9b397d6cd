"""Relevance (Chefer et al. 2021): which patches spoke for a class.

Attention tells what was looked at, its gradient whether that helped the class; the product of both
is added up through the layers. No layer needs rules of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.explain.flow import Merged, Mixed, Share, Split, Weighing, carry, run, slopes
from vitrail.explain.gradcam import refuses_without_classes
from vitrail.explain.method import Method
from vitrail.explain.rollout import refuses_without_attention
from vitrail.explain.target import Target
from vitrail.model import Model
from vitrail.nn.windows import Windows
from vitrail.types import Features


@dataclass(frozen=True, slots=True)
class Relevance(Method):
    """R = R + E_h[(∇A ⊙ A)⁺] R, from the first layer to the last (equations 5 and 6)."""

    key: ClassVar[str] = "relevance"
    name: ClassVar[str] = "Relevance"
    paper: ClassVar[str] = "Chefer et al. 2021 (generic attention), equations 5 and 6"

    def refuses(self, model: Model) -> str:
        """It needs attention and the logit of a class or region."""
        return refuses_without_classes(model) or refuses_without_attention(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map over the finest tokens for each image.

        The fast path runs. It keeps no attention A, and needs none: from out = A v follows
        ∇A = ∇out vᵀ. The equation is for plain encoders; where the head reads more than a class
        token, merged places and soft splits, each part counts by gradient times value, as
        attention does: what a token was made of that spoke against the class is left out.
        """
        way, features = run(model, images, gradients=True)
        slope, found = slopes(model, features, way.steps, targets)
        with torch.no_grad():
            return carry(way, features, Weighed(slope, found), model.backbone)


@dataclass(frozen=True, slots=True)
class Weighed(Weighing):
    """Everything by gradient times value, cut off below zero.

    Attributes:
        slope: Gradient for the last tokens.
        slopes: Gradient for each step.
    """

    slope: Float[Tensor, "B N D"]
    slopes: list[Tensor]

    def read(self, features: Features, prefix: int) -> Float[Tensor, "B N"]:
        """What each token says for the class; of a class token alone that is all."""
        del prefix
        evidence = (features.tokens * self.slope).float().sum(dim=2)
        return _shares(evidence, dim=1)

    def mix(self, step: Mixed, at: int) -> Float[Tensor, "*B Q N"]:
        """E_h[(∇A ⊙ A)⁺] (equation 5)."""
        slope = self.slopes[at].float() @ step.v.float().mT
        return (slope * step.weights.rows()).clamp_min_(0).mean(dim=-3)

    def residual(self, kept: Float[Tensor, "B N"]) -> tuple[Share, Share]:
        """R + Ā R (equation 6)."""
        del kept
        return 1.0, 1.0

    def shares(self, step: Split | Merged, at: int) -> Float[Tensor, "B N k"]:
        """What each cell of a token says for the class."""
        evidence = (step.seen * self.slopes[at]).float()
        match step:
            case Split(split=split):
                parts = evidence.reshape(*evidence.shape[:2], -1, split.kernel**2).sum(dim=2)
            case Merged(grid=grid):
                pairs = Windows(grid, 2)
                parts = pairs.cut(pairs.pad(evidence.sum(dim=2, keepdim=True)))[..., 0]
        return _shares(parts, dim=2)


def _shares(evidence: Tensor, dim: int) -> Tensor:
    """What speaks for, in shares; where nothing does, all by its size.

    Some cell must take a token's relevance on: by size it is what the token was made of.
    """
    positive = evidence.clamp_min(0)
    total = positive.sum(dim=dim, keepdim=True)
    size = evidence.abs()
    instead = size / size.sum(dim=dim, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(total > 0, positive / total.where(total > 0, 1), instead)
