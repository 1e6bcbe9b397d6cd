"""Grad-CAM (Selvaraju et al. 2017): which cells of the last feature map speak for a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.backbones import BackboneConfig
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.model import Model
from vitrail.tasks.classify import Classify


def grad_cam(
    model: Model, images: UInt8[Tensor, "B 3 H W"], classes: Sequence[int]
) -> Float[Tensor, "B _h _w"]:
    """What speaks for a class, cell by cell of the last map; nothing below 0 (equation 2).

    Args:
        model: A classifier in evaluation mode whose image vector is made of its patches. One that
            pools a class token has no gradient there and gives zeros: see `rollout` instead.
        images: Prepared.
        classes: Whose logit is explained, one class an image.
    """
    return class_evidence(model, images, classes).clamp_min(0)


def class_evidence(
    model: Model, images: UInt8[Tensor, "B 3 H W"], classes: Sequence[int]
) -> Float[Tensor, "B _h _w"]:
    """The same before what speaks against the class is cut off: sum over k of alpha_k A_k.

    alpha_k is the mean over all cells of the logit's gradient (equation 1); A is the last map,
    whose cells are the tokens without the prefix. Where the head is linear in the mean of the
    cells, a map sums to the logit without the head's bias, exactly. Where it is linear in the last
    cell, as in a recurrent network that pools its last state, cell i times the number of cells
    is the logit without the bias that reading up to i alone would have given.
    """
    task = model.task
    assert isinstance(task, Classify), "Grad-CAM explains the logit of a class"
    assert len(images) == len(classes), "one class an image"
    prefix = model.backbone.prefix
    with torch.enable_grad():
        features = model.backbone(model.normalise(images))
        logits = task(features)
        chosen = logits[torch.arange(len(logits)), torch.tensor(classes, device=logits.device)]
        # The map is laid out from the tokens, not the tokens from the map: these are on the way.
        (gradient,) = cast("tuple[Tensor]", torch.autograd.grad(chosen.sum(), features.tokens))
    cells, slope = features.tokens.detach()[:, prefix:], gradient[:, prefix:]
    evidence = (cells.float() * slope.float().mean(dim=1, keepdim=True)).sum(dim=2)
    return evidence.unflatten(1, features.maps[-1].shape[-2:])


def describe_evidence(config: BackboneConfig) -> str:
    """One sentence on what the numbers of such a model's maps mean exactly."""
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
        case ResNetConfig() | SwinConfig() | SwinV2Config() | RecurrentConfig():
            return (
                "Before that cut the cells of a map add up to the logit of the label, without the "
                "head's bias, exactly: the head is linear in their mean."
            )
        case _:
            return ""
