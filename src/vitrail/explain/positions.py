"""How a model is told where a patch stands (ViT paper, Fig. 7, centre, and its like)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones import BackboneConfig
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.swin import Swin, SwinConfig, SwinV2Config
from vitrail.backbones.t2t import T2T, T2TConfig
from vitrail.backbones.vit import Learned1dConfig, PositionsConfig, ViT, ViTConfig
from vitrail.backbones.windowed_vit import WindowedViT, WindowedViTConfig
from vitrail.model import Model
from vitrail.nn.positions import AbsolutePositions, NoPositions, RelativeBias2d
from vitrail.nn.windows import ContinuousPositions, RelativePositions
from vitrail.types import Grid


def position_similarity(model: Model) -> Float[Tensor, "h w h w"] | None:
    """Cosine similarity of each patch's position vector with all others (Fig. 7, centre).

    Where every layer adds a table of its own it is that of the first.

    Returns:
        `result[i, j]` is the map of the patch in row i and column j, from -1 to 1; 1 at (i, j)
        itself. None for a model that adds no position vectors: `describe_positions` says why.
    """
    found = _added(model)
    if found is None or isinstance(found[0], NoPositions):
        return None
    positions, grid = found
    with torch.no_grad():
        vectors = F.normalize(positions.table(grid)[0].float(), dim=1)
    similarity = (vectors @ vectors.T).clamp(-1, 1)
    return similarity.reshape(*grid, *grid).cpu()


def relative_biases(model: Model) -> Float[Tensor, "h r c"] | None:
    """What the first layer adds to the attention score for each offset, head by head.

    Returns:
        The middle is the patch itself, above it the patch above, right of it the patch to the
        right. None for a model without such a bias.
    """
    for part in model.backbone.modules():
        match part:
            case RelativeBias2d():
                # The table is indexed by query minus key: turned, it shows where the key stands.
                return part.weight.detach()[0].float().flip(1, 2).cpu()
            case RelativePositions() | ContinuousPositions():
                with torch.no_grad():
                    return _by_offset(part.compute().float().cpu(), part.size)
            case _:
                pass
    return None


def describe_positions(config: BackboneConfig) -> str:
    """One or two sentences on how a model of this configuration is told where a patch stands."""
    match config:
        case ViTConfig():
            return _WORDS_OF_POSITIONS_IN[config.positions_in].format(
                _added_words(config.positions)
            )
        case HybridConfig() | WindowedViTConfig():
            learned = isinstance(config, WindowedViTConfig)
            return _added_words(Learned1dConfig() if learned else config.positions)
        case T2TConfig():
            return _WORDS["sincos_1d"]
        case SwinConfig() | SwinV2Config():
            return _WORDS_OF_SWIN[config.positions]
        case ResNetConfig():
            return (
                "This model has no position vectors: convolutions keep neighbours together and "
                "treat every place alike; only the zeros beyond the edge tell where the edge is."
            )
        case RecurrentConfig(bidirectional=both):
            ends = ", once from each end" if both else ""
            return (
                "This model has no position vectors: it reads the patches one after the other, row "
                f"by row{ends}; their order is in the recurrence."
            )


def _added(model: Model) -> tuple[AbsolutePositions, Grid] | None:
    """The table that is added to the patches, and the grid that it was made for."""
    backbone = model.backbone
    match backbone:
        case ViT() | T2T() | Hybrid():
            return backbone.pos_embed, backbone.config.grid
        case WindowedViT():
            return backbone.pos_embed, backbone.pos_embed.base
        case Swin():
            return backbone.pos_embed, backbone.config.grids[0]
        case _:
            return None


def _by_offset(bias: Float[Tensor, "h N N"], size: int) -> Float[Tensor, "h r r"]:
    """From one value for each pair of places of a window to one for each offset, key from query."""
    place = torch.arange(size * size)
    y, x = place // size, place % size
    rows, columns = (at[None, :] - at[:, None] + size - 1 for at in (y, x))
    table = bias.new_empty(len(bias), 2 * size - 1, 2 * size - 1)
    table[:, rows, columns] = bias
    return table


def _added_words(positions: PositionsConfig) -> str:
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

_WORDS_OF_POSITIONS_IN = {
    "stem": "{}",
    "layers": "{} Every layer adds vectors of its own; these are those of the first.",
    "layers_shared": "{} Every layer adds the same vectors again.",
}

_WORDS_OF_SWIN = {
    "relative": (
        "This model has no position vectors to compare: inside each window it adds a learned bias "
        "for the offset between two places to their attention score."
    ),
    "absolute": "Each patch has a position vector of its own, learned in training.",
    "absolute_and_relative": (
        "Each patch has a position vector of its own, learned in training; besides, a learned bias "
        "for the offset between two places of a window is added to their attention score."
    ),
    "none": (
        "This model has no position vectors: attention sees a set of places in each window, and "
        "only the windows and the merging of neighbours keep them in order."
    ),
}
