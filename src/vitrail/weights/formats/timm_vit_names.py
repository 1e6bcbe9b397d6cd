"""Names of timm's `VisionTransformer`, there and back, and the folder that it loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats.timm_config import hidden_ratio
from vitrail.weights.formats.timm_folder import refuses_preprocess, write_folder
from vitrail.weights.mapping import Absent, Entry, Joined, Layout, Same, pair, write_all
from vitrail.weights.reader import Described

POOLS = {"token": "class", "avg": "mean", "map": "attention"}
"""Pools of timm by ours."""


def vit_entries(backbone: ViTConfig, task: ClassifyConfig | None) -> list[Entry]:
    """Which tensor of a `VisionTransformer` is which of ours."""
    entries = [
        *pair("backbone.patch_embed.proj", "patch_embed.proj."),
        prefix_entry(backbone),
        Entry("backbone.pos_embed.weight", ("pos_embed",)),
    ]
    for i in range(backbone.depth):
        entries += block_entries(f"backbone.blocks.{i}.", f"blocks.{i}.", backbone)
    norm = "fc_norm" if backbone.norm_after_pool else "norm"
    entries += pair(f"backbone.{norm}", f"{norm}.")
    if backbone.pool == "attention":
        entries.append(Entry("backbone.pool.latent", ("attn_pool.latent",)))
        for layer in ("q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2"):
            entries += pair(f"backbone.pool.{layer}", f"attn_pool.{layer}.")
    if task is not None:
        entries += pair("task.head", "head.")
        if backbone.distillation_token:
            entries += pair("task.head_dist", "head_dist.")
    return entries


def prefix_entry(backbone: ViTConfig) -> Entry:
    """Class token, distillation token and registers, side by side."""
    tokens = {
        "cls_token": int(backbone.class_token),
        "dist_token": int(backbone.distillation_token),
        "reg_token": backbone.registers,
    }
    tokens = {name: count for name, count in tokens.items() if count}
    layout: Layout = Joined(tuple(tokens.values()), axis=1)
    if not tokens:
        layout = Absent((1, 0, backbone.width))
    return Entry("backbone.prefix_token", tuple(tokens), layout)


def block_entries(ours: str, theirs: str, backbone: ViTConfig) -> list[Entry]:
    """One block, whose names are the same here and there."""
    layers = ["norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    if backbone.qk_norm:
        layers += ["attn.q_norm", "attn.k_norm"]
    entries = [entry for n in layers for entry in pair(f"{ours}{n}", f"{theirs}{n}.", Same())]
    alone = ["attn.qkv.weight"]
    alone += ["attn.qkv.bias"] if backbone.qkv_bias else []
    alone += ["ls1.gamma", "ls2.gamma"] if backbone.layer_scale is not None else []
    return entries + [Entry(f"{ours}{n}", (f"{theirs}{n}",)) for n in alone]


def refuses_vit(described: Described) -> str:
    """What timm's `VisionTransformer` cannot be told, or an empty string."""
    backbone, task = described.backbone, described.classifier
    assert isinstance(backbone, ViTConfig)
    distilled, positions = backbone.distillation_token, backbone.positions
    stem = backbone.stem.stride
    faults = {
        "timm has no convolutional stem": backbone.stem.kind != "patch",
        f"timm has no '{positions.kind}' positions": positions.kind != "learned_1d",
        "timm adds positions at the stem only": backbone.positions_in != "stem",
        "timm has no detection tokens": backbone.detection_tokens > 0,
        "timm's norms precede the branches": backbone.norm != "pre",
        "timm's models end in a norm": not backbone.final_norm,
        f"timm's LayerNorm has epsilon 1e-6, not {backbone.eps:g}": backbone.eps != 1e-6,
        f"timm has no '{backbone.pool}' pooling": backbone.pool not in POOLS.values(),
        "timm has no layer before the head": task is not None and task.hidden is not None,
        "timm's patches do not overhang": any(n % stem for n in backbone.image_size),
        "timm has no gated MLP in its attention pool": backbone.activation == "swiglu"
        and backbone.pool == "attention",
        "timm's distilled models have positions for both tokens and no registers": distilled
        and (
            backbone.registers > 0
            or backbone.norm_after_pool
            or not (isinstance(positions, Learned1dConfig) and positions.prefix)
        ),
    }
    return next((fault for fault, holds in faults.items() if holds), "") or refuses_preprocess(
        described.preprocess
    )


def write_vit(described: Described, state: Mapping[str, Tensor], out: Path) -> list[str]:
    """A folder that timm loads."""
    backbone = described.backbone
    assert isinstance(backbone, ViTConfig)
    gated = backbone.activation == "swiglu"
    hidden = round(backbone.width * backbone.mlp_ratio) * (2 if gated else 1)
    assert isinstance(backbone.stem, PatchStemConfig)
    assert isinstance(backbone.positions, Learned1dConfig)
    args: dict[str, Any] = {
        "img_size": list(backbone.image_size),
        "patch_size": backbone.stem.patch_size,
        "embed_dim": backbone.width,
        "depth": backbone.depth,
        "num_heads": backbone.heads,
        "mlp_ratio": hidden_ratio(hidden, backbone.width),
        "qkv_bias": backbone.qkv_bias,
        "qk_norm": backbone.qk_norm,
        "init_values": backbone.layer_scale,
        "class_token": backbone.class_token,
        "no_embed_class": not backbone.positions.prefix,
        "reg_tokens": backbone.registers,
        "global_pool": next(k for k, v in POOLS.items() if v == backbone.pool),
        "fc_norm": backbone.norm_after_pool,
        "pool_include_prefix": backbone.pool == "attention" and backbone.prefix > 0,
    }
    if not gated:
        args["act_layer"] = backbone.activation
    tensors = write_all(vit_entries(backbone, described.classifier), state)
    name = _architecture(described)
    return write_folder(described, name, args, backbone.width, tensors, out)


def _architecture(described: Described) -> str:
    backbone = described.backbone
    assert isinstance(backbone, ViTConfig)
    if backbone.activation == "swiglu":
        return "vit_giant_patch14_dinov2"
    if backbone.distillation_token:
        return "deit_base_distilled_patch16_224"
    return described.variant or "vit_base_patch16_224"
