"""What the stem has learned: where a patch stands and what it looks for (ViT paper, Fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones.vit import (
    Learned1dConfig,
    Learned2dConfig,
    NoPositionsConfig,
    PositionsConfig,
    Relative2dConfig,
    Rotary2dConfig,
    SineCosine1dConfig,
    SineCosine2dConfig,
    ViT,
)
from vitrail.model import Model
from vitrail.nn.patches import ConvStem, PatchStem
from vitrail.nn.positions import NoPositions


def position_similarity(model: Model) -> Float[Tensor, "h w h w"] | None:
    """Cosine similarity of each patch's position vector with all others (Fig. 7, centre).

    Returns:
        `result[i, j]` is the map of the patch in row i and column j, from -1 to 1; 1 at (i, j)
        itself. None for a model that adds no position vectors: `describe_positions` says why.
    """
    backbone = model.backbone
    assert isinstance(backbone, ViT)
    if isinstance(backbone.pos_embed, NoPositions):
        return None
    grid = backbone.config.grid
    with torch.no_grad():
        vectors = F.normalize(backbone.pos_embed.table(grid)[0].float(), dim=1)
    similarity = (vectors @ vectors.T).clamp(-1, 1)
    return similarity.reshape(*grid, *grid).cpu()


def describe_positions(positions: PositionsConfig) -> str:
    """One sentence on how a model of this configuration is told where a patch stands."""
    match positions:
        case Learned1dConfig():
            return "Each patch has a position vector of its own, learned in training."
        case Learned2dConfig():
            return "A position vector is a learned half for the row beside one for the column."
        case SineCosine1dConfig():
            return "The position vectors are fixed sinusoids over the raster order, not learned."
        case SineCosine2dConfig():
            return "The position vectors are fixed sines and cosines of x and y, not learned."
        case Relative2dConfig():
            return (
                "This model has no position vectors to compare: in every layer it adds a learned "
                "bias for the offset between two patches to their attention score."
            )
        case Rotary2dConfig():
            return (
                "This model has no position vectors to compare: in every layer it rotates queries "
                "and keys by an angle that depends on the row and the column."
            )
        case NoPositionsConfig():
            return (
                "This model has no position vectors: its attention sees a set of patches and is "
                "not told where they stand."
            )


@dataclass(frozen=True, slots=True)
class Filters:
    """Pictures of what the stem responds to.

    Attributes:
        images: RGB from 0 to 1; 0.5 is a weight of zero, each picture is scaled by itself.
        variance: Share of the filters' variance that each picture explains, greatest first, where
            the pictures are principal components; empty where they are the filters themselves.
    """

    images: Float[Tensor, "K 3 P P"]
    variance: tuple[float, ...]


def patch_filters(model: Model, *, most: int = 28) -> Filters:
    """Principal components of the patch-embedding filters as RGB pictures (Fig. 7, left).

    For a convolutional stem: the filters of its first convolution, those with the greatest norm
    first.

    Args:
        model: Any model with a stem of patches or convolutions.
        most: Pictures to give at most; 28 as in the paper.
    """
    backbone = model.backbone
    assert isinstance(backbone, ViT)
    stem = backbone.patch_embed
    variance: tuple[float, ...] = ()
    if isinstance(stem, PatchStem):
        images, variance = _components(stem.proj.weight.detach().float().cpu(), most)
    else:
        assert isinstance(stem, ConvStem)
        first = stem.convs[0]
        assert isinstance(first, torch.nn.Conv2d)
        weight = first.weight.detach().float().cpu()
        order = weight.flatten(1).norm(dim=1).argsort(descending=True, stable=True)
        images = weight[order[:most]]
    if model.config.preprocess.channel_order == "bgr":
        images = images.flip(1)
    return Filters(_to_rgb(images), variance)


def _components(
    weight: Float[Tensor, "D 3 P P"], most: int
) -> tuple[Float[Tensor, "K 3 P P"], tuple[float, ...]]:
    flat = weight.flatten(1)
    _, singular, components = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    power = singular.square()
    share = power / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    count = min(most, len(components))
    # The sign of a component is free; it is set so that its greatest weight is positive.
    greatest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    components = components * greatest.sign()
    return components[:count].unflatten(1, weight.shape[1:]), tuple(share[:count].tolist())


def _to_rgb(images: Float[Tensor, "K 3 P P"]) -> Float[Tensor, "K 3 P P"]:
    """Scale each picture by its greatest weight, so that zero is the middle grey."""
    greatest = images.abs().amax(dim=(1, 2, 3), keepdim=True)
    return images / greatest.clamp_min(torch.finfo(images.dtype).tiny) / 2 + 0.5
