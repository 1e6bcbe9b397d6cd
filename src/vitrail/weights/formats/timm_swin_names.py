"""Names of timm's Swin Transformers, which are the official ones but for merging and head."""

from __future__ import annotations

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.mapping import Entry, Reshaped, pair

AnySwin = SwinConfig | SwinV2Config


def swin_entries(backbone: AnySwin, task: ClassifyConfig | None) -> list[Entry]:
    """Which tensor is which of ours."""
    entries = [
        *pair("backbone.patch_embed.proj", "patch_embed.proj."),
        *pair("backbone.patch_norm", "patch_embed.norm."),
        *pair("backbone.norm", "norm."),
    ]
    for stage, depth in enumerate(backbone.depths):
        ours, theirs = f"backbone.stages.{stage}.", f"layers.{stage}."
        if stage:
            entries += merging_entries(f"{ours}downsample.", f"{theirs}downsample.")
        for block in range(depth):
            places = f"{ours}blocks.{block}.", f"{theirs}blocks.{block}."
            entries += block_entries(*places, backbone, backbone.heads[stage])
    if task is not None:
        entries += pair("task.head", "head.fc.")
    return entries


def merging_entries(ours: str, theirs: str) -> list[Entry]:
    """The merging of four places."""
    return [
        *pair(f"{ours}norm", f"{theirs}norm."),
        Entry(f"{ours}reduction.weight", (f"{theirs}reduction.weight",)),
    ]


def block_entries(ours: str, theirs: str, backbone: AnySwin, heads: int) -> list[Entry]:
    """One block, as timm and the official code call its parts."""
    layers = ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    entries = [entry for n in layers for entry in pair(f"{ours}{n}", f"{theirs}{n}.")]
    entries.append(Entry(f"{ours}attn.qkv.weight", (f"{theirs}attn.qkv.weight",)))
    match backbone:
        case SwinConfig():
            if backbone.qkv_bias:
                entries.append(Entry(f"{ours}attn.qkv.bias", (f"{theirs}attn.qkv.bias",)))
            table = f"{theirs}attn.relative_position_bias_table"
            entries.append(Entry(f"{ours}attn.positions.table", (table,)))
        case SwinV2Config():
            scale = Reshaped((heads,), (heads, 1, 1))
            entries += [
                Entry(f"{ours}attn.q_bias", (f"{theirs}attn.q_bias",)),
                Entry(f"{ours}attn.v_bias", (f"{theirs}attn.v_bias",)),
                *continuous_entries(ours, theirs, scale),
            ]
    return entries


def continuous_entries(ours: str, theirs: str, scale: Reshaped) -> list[Entry]:
    """Factor of the scores and MLP of the offsets, alike wherever version 2 is published."""
    mlp = f"{ours}attn.positions.mlp."
    return [
        Entry(f"{ours}attn.logit_scale", (f"{theirs}attn.logit_scale",), scale),
        *pair(f"{mlp}0", f"{theirs}attn.cpb_mlp.0."),
        Entry(f"{mlp}2.weight", (f"{theirs}attn.cpb_mlp.2.weight",)),
    ]
