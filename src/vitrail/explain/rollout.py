"""Attention rollout (Abnar and Zuidema 2020): how much each patch flows into the image vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.errors import ExplainError
from vitrail.explain.flow import Merged, Mixed, Share, Split, Weighing, carry, run
from vitrail.explain.layers import attention_layers
from vitrail.explain.method import Method
from vitrail.explain.target import Target
from vitrail.model import Model
from vitrail.types import Features

Fusion = Literal["mean", "max", "min"]
"""How the heads of a layer become one."""

Tokens = Literal["class", "patches", "both"]
"""The last tokens that a head reads."""


@dataclass(frozen=True, slots=True)
class Rollout(Method):
    """Product over layers of (fused attention + identity) / 2 (equation 1).

    Attributes:
        heads: How heads are fused; `mean` is the paper's.
        discard: Share of the smallest entries of each fused matrix that are set to zero, 0 to 1;
            the rows are then divided by what is left of them.
    """

    key: ClassVar[str] = "rollout"
    name: ClassVar[str] = "Attention rollout"
    paper: ClassVar[str] = "Abnar and Zuidema 2020, equation 1"
    of_class: ClassVar[bool] = False

    heads: Fusion = "mean"
    discard: float = 0.0

    def refuses(self, model: Model) -> str:
        """Where there is no attention there is nothing to multiply."""
        return refuses_without_attention(model)

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """The same map for every class."""
        del targets
        return rollout(model, images, heads=self.heads, discard=self.discard)


def rollout(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    *,
    heads: Fusion = "mean",
    discard: float = 0.0,
) -> Float[Tensor, "B _h _w"]:
    """One map over the finest tokens for each image; each sums to 1.

    Half of each layer is the residual path. Read out at the class token where the model pools it
    (the mean with the distillation token, which has an equal say), by the weights of attention
    pooling, else as the mean over the patches. The paper has plain encoders; here windows are
    blocks of the same matrix, and a merged place or a soft split is made of its cells in equal
    parts. What a ResNet or a convolutional stem mixed before is not followed further down. Where so
    much is discarded that nothing of the image is left, the map is zero.

    Args:
        model: In evaluation mode.
        images: Prepared.
        heads: How heads are fused.
        discard: Share of the smallest entries of a layer that are left out, from 0 to below 1.

    Raises:
        ExplainError: the model has no attention, or `discard` is out of range.
    """
    if not 0 <= discard < 1:
        raise ExplainError(f"discard {discard}: give a share from 0 to below 1")
    with torch.no_grad():
        way, features = run(model, images)
        weighing = _Rolling(read_from(model.backbone), model.backbone.distilled, heads, discard)
        flow = carry(way, features, weighing, model.backbone)
    total = flow.sum(dim=(1, 2), keepdim=True)
    return flow / total.where(total > 0, 1)


def refuses_without_attention(model: Model) -> str:
    """What to say where a model's backbone has no attention; empty where it has."""
    if attention_layers(model.backbone):
        return ""
    return f"a {type(model.backbone).__name__} has no attention; Grad-CAM and occlusion need none"


def fuse(weights: Float[Tensor, "*B h Q N"], heads: Fusion, discard: float) -> Tensor:
    """One matrix of all heads, each row of which sums to 1 again.

    The sum is over the keys, the last axis: each row says what one token is made of. A
    well-known program divides by the sums along the wrong axis; see `docs/explain.md`.
    """
    match heads:
        case "mean":
            fused = weights.mean(dim=-3)
        case "max":
            fused = weights.amax(dim=-3)
        case "min":
            fused = weights.amin(dim=-3)
    if discard:
        flat = fused.flatten(-2)
        count = int(discard * flat.shape[-1])
        least = flat.topk(count, dim=-1, largest=False).indices
        fused = flat.scatter(-1, least, 0).view_as(fused)
    total = fused.sum(dim=-1, keepdim=True)
    if not bool((total > 0).all()):
        # A row that lost all that it had stands for itself: only its residual path is left. A
        # learned query is no token and has none: it takes equal parts.
        tokens = fused.shape[-1]
        learned = fused.shape[-2] != tokens
        instead = (
            fused.new_full((1, tokens), 1 / tokens) if learned else torch.eye(tokens).to(fused)
        )
        fused, total = torch.where(total > 0, fused, instead), total.where(total > 0, 1)
    return fused / total


@dataclass(frozen=True, slots=True)
class _Rolling(Weighing):
    """Attention as it is, half and half with the residual path.

    Attributes:
        read_from: The tokens that the head reads.
        distilled: Whether a second token has an equal say.
        heads: How heads are fused.
        discard: Share of the smallest entries left out.
    """

    read_from: Tokens
    distilled: bool
    heads: Fusion
    discard: float

    def read(self, features: Features, prefix: int) -> Float[Tensor, "B N"]:
        """The class token, the patches, or both."""
        tokens = features.tokens  # weights are float32, whatever the model is
        row = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
        if self.read_from != "patches":
            row[:, : 1 + self.distilled] = 1 / (1 + self.distilled)
        if self.read_from != "class":
            row[:, prefix:] += 1 / (row.shape[1] - prefix)
        return row / row.sum(dim=1, keepdim=True)

    def mix(self, step: Mixed, at: int) -> Float[Tensor, "*B Q N"]:
        """The fused heads."""
        del at
        return fuse(step.weights.rows(), self.heads, self.discard)

    def residual(self, kept: Float[Tensor, "B N"]) -> tuple[Share, Share]:
        """Half and half."""
        del kept
        return 0.5, 0.5

    def shares(self, step: Split | Merged, at: int) -> Float[Tensor, "B N k"]:
        """Equal parts."""
        del at
        match step:
            case Split(split=split, seen=seen):
                parts = split.kernel**2
                shape = (seen.shape[0], seen.shape[1], parts)
            case Merged(seen=seen, grid=grid):
                parts = 4
                shape = (seen.shape[0], -(-grid[0] // 2) * -(-grid[1] // 2), parts)
        return seen.new_full(shape, 1 / parts, dtype=torch.float32)


def read_from(backbone: Backbone) -> Tokens:
    """What of the last tokens the head reads, where no attention pools them."""
    match backbone:
        case ViT(config=config) | Hybrid(config=config):
            match config.pool:
                case "class":
                    return "class"
                case "class_and_mean":
                    return "both"
                case _:
                    return "patches"
        case T2T():
            return "class"
        case _:
            return "patches"
