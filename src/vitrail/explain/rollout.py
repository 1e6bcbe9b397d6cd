"""Attention rollout (Abnar and Zuidema 2020): how much each patch flows into the image vector."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.explain.capture import AttentionRecord, capture
from vitrail.model import Model
from vitrail.nn.pooling import ClassTokenPool


def rollout(model: Model, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B _h _w"]:
    """One map over the patch grid for each image; each map sums to 1.

    Heads are averaged, half of each layer is the residual path, and the layers are multiplied
    (equation 1 of the paper). Read out at the class token where the model pools it, else as the
    mean over the patches that are pooled.
    """
    backbone = model.backbone
    with torch.no_grad(), capture(backbone) as record:
        features = backbone(model.normalise(images))
    flow = attention_flow(record)
    prefix = backbone.prefix
    pools_class_token = any(isinstance(part, ClassTokenPool) for part in backbone.modules())
    row = flow[:, 0] if pools_class_token else flow[:, prefix:].mean(dim=1)
    patches = row[:, prefix:]
    patches = patches / patches.sum(dim=1, keepdim=True)
    return patches.reshape(len(patches), *features.maps[-1].shape[-2:])


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
