"""Erase parts of images, and ask the model again.

What takes the place of erased pixels is a choice, and figures depend on it. So there are two:
a blurred copy keeps colours and tears no edges, the mean colour leaves nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vitrail.explain.blur import blurred
from vitrail.explain.target import Target, probability
from vitrail.model import Model

Filling = Literal["blur", "mean"]
"""What takes the place of erased pixels."""

FILLINGS: tuple[Filling, ...] = get_args(Filling)

BLUR = 0.1
"""Standard deviation of the blur, in shorter sides of the image.

RISE blurs by 5 pixels of 224. On small images as little leaves everything readable.
"""

Span = tuple[int, int]
"""The first rank that is erased, and the first after it that is not."""


def filled(images: UInt8[Tensor, "B 3 H W"], filling: Filling) -> UInt8[Tensor, "B 3 H W"]:
    """The images with everything erased.

    Args:
        images: Prepared.
        filling: `blur`: a Gaussian blur, edges mirrored; `mean`: each image's own mean colour.
    """
    match filling:
        case "blur":
            blank = blurred(images.float(), BLUR * min(images.shape[2:]))
        case "mean":
            blank = images.float().mean(dim=(2, 3), keepdim=True).expand(images.shape)
    return blank.round().clamp(0, 255).to(torch.uint8)


def probabilities(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    targets: Sequence[Target],
) -> Float[Tensor, "B"]:
    """Probability of one class an image, at the model's temperature, or of one region."""
    assert len(images) == len(targets), "one target an image"
    with torch.inference_mode():
        return probability(model(images), targets, model.task)


def erased(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    fillings: UInt8[Tensor, "B 3 H W"],
    ranks: Int[Tensor, "B H W"],
    spans: Sequence[Span],
    targets: Sequence[Target],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "B S"]:
    """Probability of each image's target, once for each span of ranks that is erased.

    Args:
        model: In evaluation mode.
        images: Prepared.
        fillings: From `filled`.
        ranks: Order of the pixels.
        spans: What is erased.
        targets: What is asked about, one an image.
        batch_size: Images a forward pass; no more are made at a time.
    """
    pairs = list(itertools.product(range(len(images)), spans))
    answers: list[Tensor] = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        of = [image for image, _ in part]
        low, high = torch.tensor([span for _, span in part], device=ranks.device).T[..., None, None]
        gone = (ranks[of] >= low) & (ranks[of] < high)
        asked = torch.where(gone[:, None], fillings[of], images[of])
        answers.append(probabilities(model, asked, [targets[image] for image in of]))
    return torch.cat(answers).view(len(images), len(spans))
