"""What masks cost: classes of pixels, overlap, and for thin things their skeletons and borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vitrail.config import Config
from vitrail.nn.soft_skeleton import soft_skeleton

IGNORED = -100
"""Class of a pixel that is not judged."""


class PixelLossConfig(Config):
    """What the classes of pixels cost.

    Attributes:
        classes: Cross-entropy, or focal loss, which leaves easy pixels alone (Lin et al. 2017).
        dice: Weight of 1 - Dice of each class over the batch (Milletari et al. 2016).
        cldice: Weight of 1 - soft clDice (Shit et al. 2021), for thin things that must not break.
        boundary: Weight of 1 - soft boundary F1 (Bokhovkin and Burnaev 2019).
    """

    classes: Literal["cross_entropy", "focal"] = "cross_entropy"
    dice: float = Field(default=1.0, ge=0)
    cldice: float = Field(default=0.0, ge=0)
    boundary: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, slots=True)
class PixelTruth:
    """Classes of the pixels of a batch.

    Attributes:
        classes: At each pixel its output, or `IGNORED`. With a background that is output 0.
    """

    classes: Int[Tensor, "B H W"]


FOCUS = 2.0
"""Gamma of the focal loss."""
ITERATIONS = 5
"""Erosions of the soft skeleton: half the width of the widest thing whose middle counts."""
BORDER = 5
"""Side of the window within which another border still fits: 2 pixels to each side."""


def pixel_loss(
    scores: Float[Tensor, "B K H W"],
    truth: PixelTruth,
    config: PixelLossConfig,
    *,
    background: bool,
    weights: Float[Tensor, "K"] | None = None,
) -> Float[Tensor, "B"]:
    """One loss an image; their mean is the loss of the batch.

    Dice, clDice and borders are measured over the whole batch, since an image may have nothing of
    a class.

    Args:
        scores: Logit of each output at each pixel, the background's first where there is one.
        truth: What is right.
        config: Which terms.
        background: Whether output 0 is the background, which has no Dice of its own.
        weights: Of each output in the cross-entropy.
    """
    judged = truth.classes != IGNORED
    known = truth.classes.clamp_min(0)
    logs = scores.log_softmax(1)
    own = -logs.gather(1, known[:, None])[:, 0]
    if config.classes == "focal":
        own = own * (1 - (-own).exp()) ** FOCUS
    if weights is not None:
        own = own * weights[known]
    pixels = judged.flatten(1).sum(1).clamp_min(1)
    loss = (own * judged).flatten(1).sum(1) / pixels
    if not (config.dice or config.cldice or config.boundary):
        return loss
    # What is not finite in one image must not spread: its own loss names it.
    judged = judged & loss.isfinite()[:, None, None]
    p = torch.where(judged[:, None], logs.exp(), 0.0)
    wanted = torch.zeros_like(p).scatter_(1, known[:, None], 1.0) * judged[:, None]
    if background:
        p, wanted = p[:, 1:], wanted[:, 1:]
    if config.dice:
        loss = loss + config.dice * (1 - _dice(p, wanted))
    if config.cldice:
        loss = loss + config.cldice * (1 - cldice(p, wanted))
    if config.boundary:
        loss = loss + config.boundary * (1 - boundary_f1(p, wanted))
    return loss


def _dice(p: Float[Tensor, "B C H W"], wanted: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean over the classes that the batch has; 1 where it has none."""
    axes = (0, 2, 3)
    dice = (2 * (p * wanted).sum(axes) + 1) / (p.sum(axes) + wanted.sum(axes) + 1)
    return _present_mean(dice, wanted)


def cldice(p: Float[Tensor, "B C H W"], wanted: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Soft clDice: harmonic mean of how much of each skeleton lies in the other mask."""
    axes = (0, 2, 3)
    found, true = soft_skeleton(p, ITERATIONS), soft_skeleton(wanted, ITERATIONS)
    precision = ((found * wanted).sum(axes) + 1) / (found.sum(axes) + 1)
    sensitivity = ((true * p).sum(axes) + 1) / (true.sum(axes) + 1)
    return _present_mean(2 * precision * sensitivity / (precision + sensitivity), wanted)


def boundary_f1(p: Float[Tensor, "B C H W"], wanted: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Soft F1 of borders, each widened for the other by the distance that is still right."""
    axes = (0, 2, 3)
    found, true = _border(p), _border(wanted)
    near_found, near_true = (F.max_pool2d(x, BORDER, 1, BORDER // 2) for x in (found, true))
    precision = ((found * near_true).sum(axes) + 1) / (found.sum(axes) + 1)
    recall = ((true * near_found).sum(axes) + 1) / (true.sum(axes) + 1)
    return _present_mean(2 * precision * recall / (precision + recall), wanted)


def _border(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    return F.max_pool2d(1 - x, 3, 1, 1) - (1 - x)


def _present_mean(
    values: Float[Tensor, "C"], wanted: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    present = wanted.amax((0, 2, 3))
    return (values * present).sum() / present.sum().clamp_min(1) + (present.sum() == 0)
