"""What the first layer of a model looks for (ViT paper, Fig. 7, left)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.recurrent import Recurrent
from vitrail.backbones.resnet import ResNet
from vitrail.backbones.swin import Swin
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.backbones.windowed_vit import WindowedViT
from vitrail.model import Model
from vitrail.nn.convolutions import StandardisedConv2d
from vitrail.nn.patches import ConvStem, PatchStem
from vitrail.nn.soft_split import (
    PerformerTokenAttention,
    SoftmaxTokenAttention,
    SoftSplit,
    TokenBlock,
    TokensToToken,
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Pictures of what the stem responds to.

    Attributes:
        images: RGB from 0 to 1; 0.5 is a weight of zero, each picture is scaled by itself.
        variance: Share of the filters' variance that each picture explains, greatest first, where
            the pictures are principal components; empty where they are the filters themselves.
        what: What the filters are of, to stand after "of".
    """

    images: Float[Tensor, "K 3 P P"]
    variance: tuple[float, ...]
    what: str


@dataclass(frozen=True, slots=True)
class _First:
    """Weights of the first layer.

    Attributes:
        weight: One filter a row, on normalised pixels.
        linear: Whether it is a linear map of whole patches, of which components tell more than
            single rows, or a convolution.
        what: Its name.
    """

    weight: Float[Tensor, "D 3 P P"]
    linear: bool
    what: str


def stem_filters(model: Model, *, grey: bool = False, most: int = 28) -> Filters | None:
    """Principal components of the patch-embedding filters as RGB pictures (Fig. 7, left).

    For convolutions: the filters of the first one, those with the greatest norm first.

    Args:
        model: Any model.
        grey: The model sees grey images only: what a filter makes of them depends on the sum of
            its channels alone, so that sum is shown.
        most: Pictures to give at most; 28 as in the paper.

    Returns:
        None for patches of a single pixel, whose filters have no shape.
    """
    first = _first_layer(model.backbone)
    if first.weight.shape[-1] == 1:
        return None
    weight = first.weight.detach().float().cpu()
    preprocess = model.config.preprocess
    if grey:
        scaled = weight / torch.tensor(preprocess.std)[:, None, None]
        weight = scaled.sum(dim=1, keepdim=True).expand_as(weight)
    elif preprocess.channel_order == "bgr":
        weight = weight.flip(1)
    if first.linear:
        images, variance = _components(weight, most)
        return Filters(_to_rgb(images), variance, first.what)
    power = weight.square().sum(dim=(1, 2, 3))
    order = power.argsort(descending=True, stable=True)[:most]
    return Filters(_to_rgb(weight[order]), (), first.what)


def _first_layer(backbone: Backbone) -> _First:
    match backbone:
        case ViT() | WindowedViT() | Recurrent() | Swin():
            return _patch_layer(backbone.patch_embed)
        case ResNet():
            return _convolution(backbone.trunk.root.conv)
        case Hybrid():
            return _convolution(backbone.resnet.root.conv)
        case T2T():
            return _soft_split_layer(backbone.patch_embed)
        case _:
            raise AssertionError(f"a family without a picture: {type(backbone).__name__}")


def _patch_layer(stem: nn.Module) -> _First:
    match stem:
        case PatchStem():
            return _First(stem.proj.weight, linear=True, what="the patch-embedding filters")
        case ConvStem():
            return _convolution(stem.convs[0])
        case _:
            raise AssertionError(f"a stem without a picture: {type(stem).__name__}")


def _convolution(conv: nn.Module) -> _First:
    """Filters as the images meet them: standardised where the convolution does so."""
    assert isinstance(conv, nn.Conv2d)
    weight: Tensor = conv.weight
    if isinstance(conv, StandardisedConv2d):
        weight = conv.standardised()
    return _First(weight, linear=False, what="the first convolution")


def _soft_split_layer(stem: TokensToToken) -> _First:
    """What a T2T model takes from each overlapping patch: the values of its first token block.

    They are the block's skip path; the scale of the norm before them is multiplied in.
    """
    split = stem.splits[0]
    assert isinstance(split, SoftSplit)
    weight: Tensor = stem.project.weight
    if len(stem.blocks):
        block = stem.blocks[0]
        assert isinstance(block, TokenBlock)
        weight = _values(block.attn) * block.norm1.weight
    # A patch is flattened channel by channel.
    filters = weight.reshape(-1, 3, split.kernel, split.kernel)
    return _First(filters, linear=True, what="the filters on the first soft split's patches")


def _values(attention: nn.Module) -> Float[Tensor, "D C"]:
    """Both kinds of token attention hold their values last."""
    match attention:
        case SoftmaxTokenAttention():
            return attention.qkv.weight.chunk(3)[2]
        case PerformerTokenAttention():
            return attention.kqv.weight.chunk(3)[2]
        case _:
            raise AssertionError(f"unknown attention: {type(attention).__name__}")


def _components(
    weight: Float[Tensor, "D 3 P P"], most: int
) -> tuple[Float[Tensor, "K 3 P P"], tuple[float, ...]]:
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
    return images, tuple(float(value) for value in share[:count])


def _to_rgb(images: Float[Tensor, "K 3 P P"]) -> Float[Tensor, "K 3 P P"]:
    """Scale each picture by its greatest weight, so that zero is the middle grey."""
    greatest = images.abs().amax(dim=(1, 2, 3), keepdim=True)
    return images / greatest.clamp_min(torch.finfo(images.dtype).tiny) / 2 + 0.5
