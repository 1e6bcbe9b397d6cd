"""Gradient-weighted rollout: which patches spoke for a class, layer by layer.

Attention tells what was looked at, its gradient whether that helped the class. Rollout (Abnar and
Zuidema 2020) has only the first. Relevance (Chefer et al. 2021) has both, but its sum leaves out
most of what patches took from each other: next to the ones of the residual path gradients are
small. Here every row is a share again, as in rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones.t2t import T2T
from vitrail.explain.flow import Mixed, Share, carry, run, slopes
from vitrail.explain.held import held_norms
from vitrail.explain.method import Method
from vitrail.explain.relevance import Relevance, Weighed
from vitrail.explain.target import Target, log_odds
from vitrail.model import Model
from vitrail.nn.soft_split import SoftSplit

NOTHING = 1e-6
"""Nothing helped a token where less than this part of its attention, by size, did."""


@dataclass(frozen=True, slots=True)
class GradientRollout(Method):
    """R = (K + (1 - K) Ā) R, from the first layer to the last.

    A row of Ā has the shares of E_h[(∇A ⊙ A)⁺] (Chefer et al. 2021, equation 5), and K is the share
    of each token that was there before (`residual_shares`), in place of rollout's half. The
    gradient is that of the class's log-odds, so that what speaks for all classes alike does not
    count, with norms held fixed (Ali et al. 2022), so that it tells what was passed on and not how
    a norm would react.
    """

    key: ClassVar[str] = "gradient_rollout"
    name: ClassVar[str] = "Gradient-weighted rollout"
    paper: ClassVar[str] = (
        "Chefer et al. 2021, equation 5, in the product of Abnar and Zuidema 2020, equation 1"
    )

    def refuses(self, model: Model) -> str:
        """It needs attention and the logit of a class or region."""
        return Relevance().refuses(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map over the finest tokens for each image; it sums to at most 1."""
        with held_norms(model):
            way, features = run(model, images, gradients=True)
            slope, found = slopes(model, features, way.steps, targets, log_odds)
        with torch.no_grad():
            flow = carry(way, features, _Shares(slope, found), model.backbone)
            return _overlapped(flow, model)


@dataclass(frozen=True, slots=True)
class _Shares(Weighed):
    """What the head reads and what cells tokens are made of count as in `Weighed`."""

    def mix(self, step: Mixed, at: int) -> Float[Tensor, "*B Q N"]:
        """Shares of what helped the class in each token; zero where nothing did."""
        slope = self.slopes[at].float() @ step.v.float().mT
        signed = slope * step.weights.rows()
        both = signed.mean(dim=-3).sum(dim=-1, keepdim=True)
        helped = signed.clamp_min_(0).mean(dim=-3)
        total = helped.sum(dim=-1, keepdim=True)
        # A share of nearly nothing would make much of rounding, and of keys that a mask leaves out.
        some = total > NOTHING * (2 * total - both)
        return (helped / total.where(some, 1)).where(some, 0)

    def residual(self, kept: Float[Tensor, "B N"]) -> tuple[Share, Share]:
        """As it was measured."""
        return kept, 1 - kept


def _overlapped(flow: Float[Tensor, "B h w"], model: Model) -> Float[Tensor, "B h w"]:
    """Tokens of a soft split lie on more than their cell: each gives to all its pixels alike.

    What falls on a cell's pixels is then the cell's.
    """
    if not isinstance(model.backbone, T2T):
        return flow
    split = model.backbone.patch_embed.splits[0]
    assert isinstance(split, SoftSplit)
    rows, columns = flow.shape[1:]
    size = (rows * split.stride, columns * split.stride)
    given = flow.flatten(1)[:, None].expand(-1, split.kernel**2, -1) / split.kernel**2
    pixels = F.fold(given, size, split.kernel, padding=split.padding, stride=split.stride)
    return F.avg_pool2d(pixels, split.stride)[:, 0] * split.stride**2
