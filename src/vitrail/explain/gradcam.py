"""Grad-CAM (Selvaraju et al. 2017): which cells of a feature map speak for a class."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vitrail.backbones import BackboneConfig
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.t2t import T2T, T2TConfig
from vitrail.backbones.vit import ViT, ViTConfig
from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.explain.method import Method
from vitrail.explain.rollout import read_from
from vitrail.explain.target import Target, logit, through_tokens
from vitrail.model import Model
from vitrail.nn.blocks import Block
from vitrail.tasks.classify import Classify
from vitrail.tasks.segment import Segment


@dataclass(frozen=True, slots=True)
class GradCam(Method):
    """ReLU of the sum over channels of (mean gradient · activation) (equations 1 and 2).

    The map is the last one, whose cells are the tokens without the prefix. Where the head reads a
    class token, the other tokens of the last layer lead nowhere and have no gradient: there the map
    is what the last attention takes in (in blocks that begin with a norm, that norm's output).
    """

    key: ClassVar[str] = "gradcam"
    name: ClassVar[str] = "Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al. 2017, equations 1 and 2"

    def refuses(self, model: Model) -> str:
        """It needs the logit of a class or region, and works on every backbone."""
        return refuses_without_classes(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map an image, on the grid of the last map."""
        return grad_cam(model, images, targets)


def grad_cam(
    model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
) -> Float[Tensor, "B _h _w"]:
    """What speaks for a class, cell by cell; nothing below 0 (equation 2).

    Args:
        model: A classifier or a segmenter in evaluation mode.
        images: Prepared.
        targets: Whose logit is explained, one an image.
    """
    return class_evidence(model, images, targets).clamp_min(0)


def class_evidence(
    model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
) -> Float[Tensor, "B _h _w"]:
    """The same before what speaks against the class is cut off: sum over k of alpha_k A_k.

    alpha_k is the mean over all cells of the logit's gradient (equation 1); A is the map that
    `GradCam` speaks of. Where the head is linear in the mean of the last cells, a map sums to the
    logit without the head's bias, exactly. Where it is linear in the last cell, as in a recurrent
    network that pools its last state, cell i times the number of cells is the logit without the
    bias that reading up to i alone would have given. Where it reads a class token nothing is exact:
    the numbers rank the cells.

    Of a region the logit is the mean over its pixels (Seg-Grad-CAM, Vinogradova et al. 2020,
    equation 2), and what the head takes from finer maps, or from the image past all tokens, is not
    in the map.
    """
    assert len(images) == len(targets), "one target an image"
    # Weights may be frozen: gradients flow because the pixels ask for one.
    with torch.inference_mode(mode=False), torch.enable_grad():
        normalised = model.normalise(images)
        with _cells_of(model) as taken_in:
            features = model.backbone(normalised.requires_grad_())
        # A map is laid out from the tokens, not the tokens from the map: these are on the way.
        tokens = taken_in[0] if taken_in else features.tokens
        read = through_tokens(features, model.backbone.prefix, normalised.detach())
        chosen = logit(model.task(read), targets, model.task)
        (gradient,) = torch.autograd.grad(chosen.sum(), [tokens])
    prefix = model.backbone.prefix
    cells, slope = tokens.detach()[:, prefix:], gradient[:, prefix:]
    evidence = (cells.float() * slope.float().mean(dim=1, keepdim=True)).sum(dim=2)
    return evidence.view(-1, *features.maps[-1].shape[-2:])


def refuses_without_classes(model: Model) -> str:
    """What to say where a model gives no logit of a class or region; empty where it does."""
    if isinstance(model.task, Classify | Segment):
        return ""
    return f"it explains the logit of a class; this model does {model.config.task.kind}"


@contextmanager
def _cells_of(model: Model) -> Generator[list[Tensor]]:
    """What the last attention takes in while the block runs, where the head reads a class token.

    Yields:
        A list of that one tensor, or one that stays empty.
    """
    seen: list[Tensor] = []
    backbone = model.backbone
    if isinstance(model.task, Segment) or read_from(backbone) == "patches":
        yield seen
        return
    assert isinstance(backbone, ViT | Hybrid | T2T), "no other family has a class token"
    last = backbone.blocks[-1]
    assert isinstance(last, Block)
    handle = last.attn.register_forward_pre_hook(_Keep(seen))
    try:
        yield seen
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class _Keep:
    seen: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        del module
        self.seen.append(given[0])


def describe_evidence(config: BackboneConfig) -> str:
    """One sentence on what the numbers of such a model's maps mean."""
    match config:
        case RecurrentConfig(pool="last", bidirectional=False):
            return (
                "A cell shows what the state after that patch says for the label: times the number "
                "of patches it is the logit, without the head's bias, had reading stopped there."
            )
        case RecurrentConfig(pool="last"):
            return (
                "A cell shows what the states of both directions at that patch say for the label."
            )
        case (
            ResNetConfig()
            | SwinConfig()
            | SwinV2Config()
            | RecurrentConfig()
            | WindowedViTConfig()
            | HybridConfig(pool="mean")
            | ViTConfig(pool="mean", norm_after_pool=False)
        ):
            return (
                "Before that cut the cells of a map add up to the logit of the label, without the "
                "head's bias, exactly: the head is linear in their mean."
            )
        case ViTConfig(pool="mean") | ViTConfig(pool="attention"):
            return (
                "A cell shows what the last token there says for the label, by the mean slope of "
                "all cells: the numbers rank the cells and add up to nothing."
            )
        case ViTConfig() | HybridConfig() | T2TConfig():
            return (
                "A cell shows what the last layer could take from that place for the label: the "
                "numbers rank the cells and add up to nothing."
            )
