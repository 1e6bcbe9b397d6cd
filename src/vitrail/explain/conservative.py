"""Conservative propagation (Ali et al. 2022): gradient times input, attention and norms held fixed.

A Transformer's plain gradient mostly tells how attention and norms would react, not what they pass
on. With both held fixed the way from a pixel to a logit is nearly linear, and gradient times input
says what the pixel gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail.explain.gradcam import refuses_without_classes
from vitrail.explain.held import held_attention, held_norms
from vitrail.explain.method import Method
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
        """It needs the logit of a class, and nothing else."""
        return refuses_without_classes(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], classes: Sequence[int]
    ) -> Float[Tensor, "B _h _w"]:
        """One map on the grid of the model's finest map; a forward and a backward pass."""
        assert len(images) == len(classes), "one class an image"
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            held_attention(model),
            held_norms(model),
        ):
            pixels = model.normalise(images).requires_grad_()
            logits = model.task(model.backbone(pixels))
            chosen = logits[torch.arange(len(logits)), torch.tensor(classes, device=logits.device)]
            (slope,) = torch.autograd.grad(chosen.sum(), pixels)
        pixels = pixels.detach()
        given = (slope * (pixels - pixels.mean(dim=(2, 3), keepdim=True))).sum(dim=1, keepdim=True)
        # Cells that hang over the edge are sums of fewer pixels.
        stride = model.backbone.strides[0]
        below, right = (-side % stride for side in images.shape[2:])
        cells = F.avg_pool2d(F.pad(given, (0, right, 0, below)), stride)[:, 0]
        return cells.float().clamp_min(0) * stride**2
