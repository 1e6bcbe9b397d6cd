"""State dicts of torchvision's Swin Transformers, versions 1 and 2.

torchvision never shrinks a window: it pads the map. The two agree where no map is smaller than the
window, as in all published models. In version 2 its biases of queries, keys and values are one
vector, whose second third is not used.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.config import build
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.swin_windows import (
    heads_of,
    relative_coordinates,
    relative_index,
    window_of,
)
from vitrail.weights.formats.timm_config import hidden_ratio
from vitrail.weights.formats.timm_swin_names import AnySwin, continuous_entries, merging_entries
from vitrail.weights.mapping import Derived, Entry, Reshaped, Rows, pair
from vitrail.weights.reader import Described, Given, Reader, settle

RESIZED: dict[tuple[str, int, tuple[int, ...]], int] = {
    ("swin", 96, (2, 2, 6, 2)): 232,
    ("swin", 96, (2, 2, 18, 2)): 246,
    ("swin", 128, (2, 2, 18, 2)): 238,
    ("swinv2", 96, (2, 2, 6, 2)): 260,
    ("swinv2", 96, (2, 2, 18, 2)): 260,
    ("swinv2", 128, (2, 2, 18, 2)): 272,
}
"""Pixels of the shorter side before the centre is cut out, by version, width and depths."""


class TorchvisionSwinReader(Reader):
    """`swin_t`, `swin_v2_t` and their sisters."""

    name = "torchvision"
    publisher_licence = "BSD-3-Clause"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Attention inside a numbered list of features."""
        return any(n.startswith("features.") and ".attn." in n for n in checkpoint.tensors)

    def describe(self, given: Given) -> Described:
        """The model from shapes; the size of images from the published variant that has them."""
        backbone, variant, notes = self._backbone(given)
        insist_no_smaller_map(self.checkpoint, backbone)
        task = None
        if self.any("head."):
            names = self.class_names(self.shape("head.bias", 1)[0], given, {})
            task = build(ClassifyConfig, {"classes": names}, source=str(self.checkpoint.path))
        size = backbone.image_size
        resized = RESIZED.get((backbone.kind, backbone.width, backbone.depths))
        return Described(
            backbone=backbone,
            task=task,
            preprocess=Preprocess(
                resize=CenterCrop(size=size, crop_pct=crop(size[0], resized) if resized else 0.875)
            ),
            variant=variant,
            notes=(*notes, "preprocessing as torchvision evaluates such a model"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        assert isinstance(described.backbone, AnySwin)
        return torchvision_swin_entries(described.backbone, described.classifier)

    def derived(self, described: Described) -> list[Derived]:
        """Indices and offsets, which follow from the window."""
        assert isinstance(described.backbone, AnySwin)
        buffers = self.buffers(described.backbone)
        return [Derived(name, tuple(value.shape), value) for name, value in buffers.items()]

    @staticmethod
    def buffers(backbone: AnySwin) -> dict[str, Tensor]:
        """What torchvision stores of each block's window."""
        index = relative_index(backbone.window).flatten()
        table = relative_coordinates(backbone.window, backbone.window)
        found: dict[str, Tensor] = {}
        for stage, depth in enumerate(backbone.depths):
            for block in range(depth):
                name = f"features.{2 * stage + 1}.{block}.attn."
                found[f"{name}relative_position_index"] = index
                if isinstance(backbone, SwinV2Config):
                    found[f"{name}relative_coords_table"] = table
        return found

    def _backbone(self, given: Given) -> tuple[AnySwin, str, tuple[str, ...]]:
        parts = (".logit_scale", ".cpb_mlp.", ".relative_coords_table")
        second = any(part in name for name in self.checkpoint.tensors for part in parts)
        stages: list[int] = []
        while self.any(f"features.{2 * len(stages) + 1}.0."):
            stages.append(self.count(f"features.{2 * len(stages) + 1}."))
        width = self.shape("features.0.2.bias", 1)[0]
        heads = tuple(
            heads_of(
                self.checkpoint,
                f"features.{2 * stage + 1}.0.attn.",
                width * 2**stage,
                self.shape,
                second=second,
            )
            for stage in range(len(stages))
        )
        known: dict[str, Any] = {
            "kind": "swinv2" if second else "swin",
            "patch_size": self.shape("features.0.0.weight", 4)[2],
            "width": width,
            "depths": tuple(stages),
            "heads": heads,
            "mlp_ratio": self._mlp_ratio(len(stages), width),
        }
        if second:
            known |= {"pretrained_windows": (), "window": self._window_of_second()}
        else:
            known |= {
                "qkv_bias": any(".attn.qkv.bias" in n for n in self.checkpoint.tensors),
                "window": window_of(self.checkpoint, "features.1.0.attn.", self.shape),
            }
        unknown = {"image_size": "[224, 224]"}
        if known["window"] is None:
            unknown["window"] = "8"
            del known["window"]
        kind: type[AnySwin] = SwinV2Config if second else SwinConfig
        return settle(kind, known, unknown, given, self.checkpoint)

    def _mlp_ratio(self, stages: int, width: int) -> float:
        """By the widest stage: hidden widths are rounded down, and there the least."""
        last = max(stages - 1, 0)
        hidden = self.shape(f"features.{2 * last + 1}.0.mlp.0.bias", 1)[0]
        return hidden_ratio(hidden, width * 2**last)

    def _window_of_second(self) -> int | None:
        """From the buffers, most of which agree."""
        for name, stored in self.checkpoint.tensors.items():
            if name.endswith(".relative_coords_table") and len(stored.shape) == 4:
                return (stored.shape[1] + 1) // 2
        for name, stored in self.checkpoint.tensors.items():
            if name.endswith(".relative_position_index") and len(stored.shape) == 1:
                return math.isqrt(math.isqrt(stored.shape[0]))
        return None


def torchvision_swin_entries(backbone: AnySwin, task: ClassifyConfig | None) -> list[Entry]:
    """Which tensor is which of ours."""
    entries = [
        *pair("backbone.patch_embed.proj", "features.0.0."),
        *pair("backbone.patch_norm", "features.0.2."),
        *pair("backbone.norm", "norm."),
    ]
    for stage, depth in enumerate(backbone.depths):
        ours = f"backbone.stages.{stage}."
        if stage:
            entries += merging_entries(f"{ours}downsample.", f"features.{2 * stage}.")
        for block in range(depth):
            theirs = f"features.{2 * stage + 1}.{block}."
            entries += _block(f"{ours}blocks.{block}.", theirs, backbone, stage)
    if task is not None:
        entries += pair("task.head", "head.")
    return entries


def _block(ours: str, theirs: str, backbone: AnySwin, stage: int) -> list[Entry]:
    entries = [
        *pair(f"{ours}norm1", f"{theirs}norm1."),
        *pair(f"{ours}attn.proj", f"{theirs}attn.proj."),
        *pair(f"{ours}norm2", f"{theirs}norm2."),
        *pair(f"{ours}mlp.fc1", f"{theirs}mlp.0."),
        *pair(f"{ours}mlp.fc2", f"{theirs}mlp.3."),
        Entry(f"{ours}attn.qkv.weight", (f"{theirs}attn.qkv.weight",)),
    ]
    bias = (f"{theirs}attn.qkv.bias",)
    match backbone:
        case SwinConfig():
            table = f"{theirs}attn.relative_position_bias_table"
            entries.append(Entry(f"{ours}attn.positions.table", (table,)))
            entries += [Entry(f"{ours}attn.qkv.bias", bias)] if backbone.qkv_bias else []
        case SwinV2Config():
            width, heads = backbone.widths[stage], backbone.heads[stage]
            entries += [
                Entry(f"{ours}attn.q_bias", bias, Rows(0, width, 3 * width)),
                Entry(f"{ours}attn.v_bias", bias, Rows(2 * width, width, 3 * width)),
                *continuous_entries(ours, theirs, Reshaped((heads,), (heads, 1, 1))),
            ]
    return entries


def insist_no_smaller_map(checkpoint: Checkpoint, backbone: AnySwin) -> None:
    """Refuse sizes at which torchvision pads a map to the window where we shrink the window."""
    if _has_smaller_map(backbone):
        raise CheckpointError(
            f"{checkpoint.path}: at image_size {list(backbone.image_size)} a map is smaller than "
            f"the window of {backbone.window}; there torchvision computes something else. Give "
            "another --set image_size=[...]"
        )


def _has_smaller_map(backbone: AnySwin) -> bool:
    window = backbone.window
    return any(min(g) <= window and g != (window, window) for g in backbone.grids)


def refuses_torchvision_swin(backbone: AnySwin, task: ClassifyConfig) -> str:
    """What torchvision's Swin cannot be, or an empty string."""
    own = set(backbone.pretrained_windows) if isinstance(backbone, SwinV2Config) else set[int]()
    faults = {
        f"torchvision has no '{backbone.positions}' positions": backbone.positions != "relative",
        "torchvision's windows shift": not backbone.shift,
        f"torchvision's LayerNorm has epsilon 1e-5, not {backbone.eps:g}": backbone.eps != 1e-5,
        "torchvision's Swin has no layer before the head": task.hidden is not None,
        "torchvision does not shrink windows on smaller maps": _has_smaller_map(backbone),
        "torchvision knows no pretrained windows": bool(own - {0, backbone.window}),
        "torchvision's patches do not overhang": any(
            n % backbone.patch_size for n in backbone.image_size
        ),
    }
    return next((fault for fault, holds in faults.items() if holds), "")


def crop(size: int, resized: int) -> float:
    """Share of the resized image that a crop keeps, such that it is resized to just that."""
    share = size / resized
    return share if math.floor(size / share) == resized else size / (resized + 0.25)
