"""Attention rollout (Abnar and Zuidema 2020): how much each patch flows into the image vector."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.backbones import BackboneConfig
from vitrail.backbones.backbone import Backbone
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.backbones.t2t import T2T, T2TConfig
from vitrail.backbones.vit import ViT
from vitrail.explain.capture import AttentionRecord, capture
from vitrail.model import Model
from vitrail.nn.pooling import ClassTokenPool


def rolls_out(backbone: Backbone) -> bool:
    """Whether rollout holds: every attention of the encoder runs over all of its tokens."""
    return isinstance(backbone, ViT | T2T | Hybrid)


def rollout(model: Model, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B _h _w"]:
    """One map over the patch grid for each image; each map sums to 1.

    Heads are averaged, half of each layer is the residual path, and the layers are multiplied
    (equation 1 of the paper). Read out at the class token where the model pools it (the mean with
    the distillation token, which has an equal say), else as the mean over the patches that are
    pooled. The flow begins at the encoder's tokens: what a ResNet or soft splits before it have
    mixed is not followed further down.

    Raises:
        TypeError: the model's attention, if any, does not run over all tokens: see `rolls_out`.
    """
    backbone = model.backbone
    match backbone:
        case ViT() | Hybrid():
            blocks, pools_class_token = backbone.blocks, isinstance(backbone.pool, ClassTokenPool)
        case T2T():
            blocks, pools_class_token = backbone.blocks, True
        case _:
            raise TypeError(f"rollout needs attention over all tokens: {type(backbone).__name__}")
    with torch.no_grad(), capture(blocks) as record:
        features = backbone(model.normalise(images))
    flow = attention_flow(record)
    prefix = backbone.prefix
    if pools_class_token:
        row = flow[:, : 1 + backbone.distilled].mean(dim=1)
    else:
        row = flow[:, prefix:].mean(dim=1)
    patches = row[:, prefix:]
    patches = patches / patches.sum(dim=1, keepdim=True)
    return patches.reshape(len(patches), *features.maps[-1].shape[-2:])


def describe_flow(config: BackboneConfig) -> str:
    """One sentence on where the flow begins, where that is not at plain patches."""
    match config:
        case HybridConfig():
            return (
                "It begins at the cells of the ResNet's map, each of which has seen more of the "
                "image than its own place."
            )
        case T2TConfig():
            return "It begins at the tokens of the last soft split, which share pixels."
        case _:
            return ""


def attention_flow(record: AttentionRecord) -> Float[Tensor, "B N N"]:
    """Product over layers of (mean over heads + identity) / 2; every row sums to 1."""
    assert record.layers, "no attention was recorded"
    flow: Tensor | None = None
    for layer in record.layers:
        mixed = layer.weights.mean(dim=1)
        mixed = (mixed + torch.eye(mixed.shape[-1], device=mixed.device)) / 2
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None
    return flow
