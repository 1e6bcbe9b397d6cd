"""Which tensor of the owners' Swin is which of ours, at their window and image size or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.nn.positions import resample_table
from vitrail.types import Grid
from vitrail.weights.mapping import Entry, Layout, Reshaped, pair

AnySwin = SwinConfig | SwinV2Config

TABLE = "attn.relative_position_bias_table"
"""Of the biases, in every block of v1."""


@dataclass(frozen=True)
class StretchedTable(Layout):
    """A table with a bias for each offset, stretched to another window.

    Attributes:
        before: Side of their window.
        after: Side of ours.
    """

    before: int
    after: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """For our window."""
        return _stretch(parts[0], self.before, self.after)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """For their window."""
        return [_stretch(tensor, self.after, self.before)]


@dataclass(frozen=True)
class StretchedPositions(Layout):
    """A table with a vector for each patch, stretched to another grid.

    Attributes:
        before: Their grid.
        after: Our grid.
    """

    before: Grid
    after: Grid

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """For our grid."""
        return resample_table(parts[0], self.before, self.after, "bicubic")

    def write(self, tensor: Tensor) -> list[Tensor]:
        """For their grid."""
        return [resample_table(tensor, self.after, self.before, "bicubic")]


def swin_table(config: AnySwin, stem: str, norm: str) -> list[Entry]:
    """Which tensor is which.

    Args:
        config: The backbone.
        stem: What leads their names.
        norm: What they call the last norm.
    """
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}patch_embed.proj."),
        *pair("backbone.patch_norm", f"{stem}patch_embed.norm."),
        *pair("backbone.norm", f"{stem}{norm}."),
    ]
    if "absolute" in config.positions:
        entries.append(Entry("backbone.pos_embed.weight", (f"{stem}absolute_pos_embed",)))
    for stage, depth in enumerate(config.depths):
        theirs, ours = f"{stem}layers.{stage}.", f"backbone.stages.{stage}."
        for block in range(depth):
            name = f"blocks.{block}."
            entries += _block(config, theirs + name, ours + name, config.heads[stage])
        if stage + 1 < len(config.depths):
            # Merging ends a stage there and begins the next one here.
            down = f"backbone.stages.{stage + 1}.downsample"
            entries += pair(f"{down}.norm", f"{theirs}downsample.norm.")
            reduction = (f"{theirs}downsample.reduction.weight",)
            entries.append(Entry(f"{down}.reduction.weight", reduction))
    return entries


def _block(config: AnySwin, theirs: str, ours: str, heads: int) -> list[Entry]:
    entries = [
        *pair(f"{ours}norm1", f"{theirs}norm1."),
        *pair(f"{ours}norm2", f"{theirs}norm2."),
        *pair(f"{ours}attn.proj", f"{theirs}attn.proj."),
        *pair(f"{ours}mlp.fc1", f"{theirs}mlp.fc1."),
        *pair(f"{ours}mlp.fc2", f"{theirs}mlp.fc2."),
        Entry(f"{ours}attn.qkv.weight", (f"{theirs}attn.qkv.weight",)),
    ]
    if isinstance(config, SwinConfig):
        if config.qkv_bias:
            entries.append(Entry(f"{ours}attn.qkv.bias", (f"{theirs}attn.qkv.bias",)))
        return [*entries, Entry(f"{ours}attn.positions.table", (theirs + TABLE,))]
    mlp, cpb = f"{ours}attn.positions.mlp", f"{theirs}attn.cpb_mlp"
    return [
        *entries,
        Entry(f"{ours}attn.q_bias", (f"{theirs}attn.q_bias",)),
        Entry(f"{ours}attn.v_bias", (f"{theirs}attn.v_bias",)),
        Entry(f"{ours}attn.logit_scale", (f"{theirs}attn.logit_scale",), of_heads(heads)),
        *pair(f"{mlp}.0", f"{cpb}.0."),
        Entry(f"{mlp}.2.weight", (f"{cpb}.2.weight",)),
    ]


def of_heads(heads: int) -> Reshaped:
    """One number a head, with two axes of one behind it in theirs."""
    return Reshaped(ours=(heads,), theirs=(heads, 1, 1))


def _stretch(table: Tensor, before: int, after: int) -> Tensor:
    if before == after:
        return table
    old, new = 2 * before - 1, 2 * after - 1
    image = table.t().reshape(1, -1, old, old)
    image = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False)
    return image[0].flatten(1).t()
