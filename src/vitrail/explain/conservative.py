"""Conservative propagation (Ali et al. 2022): gradient times input, attention and norms held fixed.

A Transformer's plain gradient mostly tells how attention and norms would react, not what they pass
on. With both held fixed the way from a pixel to a logit is nearly linear, and gradient times input
says what the pixel gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail.explain.gradcam import refuses_without_classes
from vitrail.explain.held import held_attention, held_norms
from vitrail.explain.method import Method
from vitrail.explain.target import Target, logit
from vitrail.model import Model


@dataclass(frozen=True, slots=True)
class Conservative(Method):
    """R = Σ x ∂logit/∂x, without the gradients of attention weights and deviations (section 4).

    The input is the image less its mean colour: what is told from a blank image of that colour. A
    cell is the sum of its pixels, what speaks against the class is cut off.
    """

    key: ClassVar[str] = "conservative"
    name: ClassVar[str] = "Conservative propagation"
    paper: ClassVar[str] = "Ali et al. 2022, section 4 (rules for attention heads and LayerNorm)"

    def refuses(self, model: Model) -> str:
        """It needs the logit of a class or region, and nothing else."""
        return refuses_without_classes(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map on the grid of the model's finest map; a forward and a backward pass."""
        return evidence(model, images, targets).tokens.clamp_min(0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What spoke for each target, cell by cell; negative where it spoke against.

    Attributes:
        tokens: What came through the backbone.
        details: What a segmenter's convolutions of the image brought past it, to pixels that
            tokens know nothing of; zeros where there are none.
    """

    tokens: Float[Tensor, "B h w"]
    details: Float[Tensor, "B h w"]


def evidence(model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]) -> Evidence:
    """Gradient times input, on the grid of the model's finest map; a forward and a backward pass.

    A mask is the product of a query and of pixels, and both are made from the image: the gradient
    gives each its due, so that a map ranks cells and adds up to no logit.
    """
    assert len(images) == len(targets), "one target an image"
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        held_attention(model),
        held_norms(model),
    ):
        pixels, past = (model.normalise(images).requires_grad_() for _ in range(2))
        output = model.task(replace(model.backbone(pixels), images=past))
        chosen = logit(output, targets, model.task).sum()
        found = torch.autograd.grad(chosen, [pixels, past], materialize_grads=True)
    pixels = pixels.detach()
    told = pixels - pixels.mean(dim=(2, 3), keepdim=True)
    tokens, details = (_cells((slope * told).sum(dim=1), model) for slope in found)
    return Evidence(tokens, details)


def _cells(given: Float[Tensor, "B H W"], model: Model) -> Float[Tensor, "B h w"]:
    """Sums over cells; those that hang over the edge are sums of fewer pixels."""
    stride = model.backbone.strides[0]
    below, right = (-side % stride for side in given.shape[1:])
    padded = F.pad(given[:, None], (0, right, 0, below))
    return F.avg_pool2d(padded, stride)[:, 0].float() * stride**2
