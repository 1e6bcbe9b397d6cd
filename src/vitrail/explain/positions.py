"""What the stem has learned: where a patch stands and what it looks for (ViT paper, Fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones.vit import Learned1dConfig, PositionsConfig, ViT
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
    if isinstance(positions, Learned1dConfig) and positions.start == "sincos_2d":
        return (
            "Each patch has a learned position vector that started from sines and cosines of its "
            "place: what the maps share with those was given, not learned."
        )
    return _WORDS[positions.kind]


_WORDS = {
    "learned_1d": "Each patch has a position vector of its own, learned in training.",
    "learned_2d": "A position vector is a learned half for the row beside one for the column.",
    "sincos_1d": "The position vectors are fixed sinusoids over the raster order, not learned.",
    "sincos_2d": "The position vectors are fixed sines and cosines of x and y, not learned.",
    "relative_2d": (
        "This model has no position vectors to compare: in every layer it adds a learned bias for "
        "the offset between two patches to their attention score."
    ),
    "rotary_2d": (
        "This model has no position vectors to compare: in every layer it rotates queries and keys "
        "by angles that depend on the row and the column."
    ),
    "none": (
        "This model has no position vectors: its attention sees a set of patches and is not told "
        "where they stand."
    ),
}


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


def patch_filters(model: Model, *, grey: bool = False, most: int = 28) -> Filters:
    """Principal components of the patch-embedding filters as RGB pictures (Fig. 7, left).

    For a convolutional stem: the filters of its first convolution, those with the greatest norm
    first.

    Args:
        model: Any model with a stem of patches or convolutions.
        grey: The model sees grey images only: what a filter makes of them depends on the sum of
            its channels alone, so that sum is shown.
        most: Pictures to give at most; 28 as in the paper.
    """
    backbone = model.backbone
    assert isinstance(backbone, ViT)
    stem = backbone.patch_embed
    assert isinstance(stem, PatchStem | ConvStem)
    first = stem.proj if isinstance(stem, PatchStem) else stem.convs[0]
    assert isinstance(first, torch.nn.Conv2d)
    weight = first.weight.detach().float().cpu()
    preprocess = model.config.preprocess
    if grey:
        scaled = weight / torch.tensor(preprocess.std)[:, None, None]
        weight = scaled.sum(dim=1, keepdim=True).expand_as(weight)
    elif preprocess.channel_order == "bgr":
        weight = weight.flip(1)
    if isinstance(stem, PatchStem):
        return _components(weight, most)
    power = weight.square().sum(dim=(1, 2, 3))
    order = power.argsort(descending=True, stable=True)[:most]
    return Filters(_to_rgb(weight[order]), ())


def _components(weight: Float[Tensor, "D 3 P P"], most: int) -> Filters:
    flat = weight.flatten(1)
    _, singular, directions = torch.svd(flat - flat.mean(dim=0))
    power = singular.square()
    share = power / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    # A component without variance has no direction of its own: it would be rounding errors.
    count = min(most, max(1, int((singular > 1e-5 * singular[0]).sum())))
    components = directions.T[:count]
    # The sign of a component is free; it is set so that its greatest weight is positive.
    greatest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    images = (components * greatest.sign()).reshape(-1, *weight.shape[1:])
    return Filters(_to_rgb(images), tuple(float(value) for value in share[:count]))


def _to_rgb(images: Float[Tensor, "K 3 P P"]) -> Float[Tensor, "K 3 P P"]:
    """Scale each picture by its greatest weight, so that zero is the middle grey."""
    greatest = images.abs().amax(dim=(1, 2, 3), keepdim=True)
    return images / greatest.clamp_min(torch.finfo(images.dtype).tiny) / 2 + 0.5
