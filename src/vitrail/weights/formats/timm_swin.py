"""timm's Swin Transformers, versions 1 and 2: merging stands at the start of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.backbones import VARIANTS
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.swin_windows import (
    heads_of,
    relative_coordinates,
    relative_index,
    window_of,
)
from vitrail.weights.formats.timm_config import TimmConfig, hidden_ratio
from vitrail.weights.formats.timm_folder import refuses_preprocess, write_folder
from vitrail.weights.formats.timm_reader import TimmReader
from vitrail.weights.formats.timm_swin_names import AnySwin, swin_entries
from vitrail.weights.formats.timm_vit import is_timm
from vitrail.weights.mapping import Derived, Entry, write_all
from vitrail.weights.reader import Described, Given, settle

HANDLED = frozenset(
    {
        *("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depths"),
        *("num_heads", "window_size", "mlp_ratio", "qkv_bias", "pretrained_window_sizes"),
    }
)
NEUTRAL = {"global_pool": "avg", "always_partition": False, "act_layer": "gelu"}


class TimmSwinReader(TimmReader):
    """timm's `SwinTransformer` and `SwinTransformerV2`."""

    publisher_licence = "MIT"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Blocks in layers, and no merging at the end of the first as in the official files."""
        names = checkpoint.tensors
        blocks = any(n.startswith("layers.") and ".blocks." in n for n in names)
        official = any(n.startswith("layers.0.downsample.") for n in names)
        return blocks and not official and is_timm(checkpoint)

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` where there is one, else from shapes."""
        config = TimmConfig.of(self.checkpoint)
        config = config.with_defaults(_named_arguments(config.architecture))
        config.insist(HANDLED, NEUTRAL)
        second = self._is_second(config)
        known, unknown = self._backbone(config, second=second)
        kind: type[AnySwin] = SwinV2Config if second else SwinConfig
        backbone, variant, notes = settle(kind, known, unknown, given, self.checkpoint)
        insist_windows(self.checkpoint, backbone)
        return self.finish(config, (backbone, variant, notes), given, "head.fc.")

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        assert isinstance(described.backbone, AnySwin)
        return swin_entries(described.backbone, described.classifier)

    def derived(self, described: Described) -> list[Derived]:
        """Buffers that files of timm before 0.9 hold."""
        backbone = described.backbone
        assert isinstance(backbone, AnySwin)
        items: list[Derived] = []
        for stage, windows in enumerate(backbone.windows):
            index = relative_index(windows.size)
            mask = windows.mask(index.device)
            for block in range(backbone.depths[stage]):
                name = f"layers.{stage}.blocks.{block}."
                items.append(
                    Derived(f"{name}attn.relative_position_index", tuple(index.shape), index)
                )
                if isinstance(backbone, SwinV2Config):
                    before = (
                        backbone.pretrained_windows[stage] if backbone.pretrained_windows else 0
                    )
                    table = relative_coordinates(windows.size, before or windows.size)
                    items.append(
                        Derived(f"{name}attn.relative_coords_table", tuple(table.shape), table)
                    )
                if mask is not None and block % 2:
                    mask_2d = mask.squeeze(1)
                    items.append(Derived(f"{name}attn_mask", tuple(mask_2d.shape), mask_2d))
        return items

    def _is_second(self, config: TimmConfig) -> bool:
        if config.architecture.startswith(("swin_", "swinv2_")):
            return config.architecture.startswith("swinv2_")
        parts = (".attn.logit_scale", ".attn.cpb_mlp.", ".attn.q_bias", ".attn.v_bias")
        return any(part in n for n in self.checkpoint.tensors for part in parts)

    def _backbone(
        self, config: TimmConfig, *, second: bool
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Fields that are known, and those that are not with an example."""
        width = config.whole("embed_dim") or self.shape("patch_embed.norm.bias", 1)[0]
        stages = range(self.count("layers."))
        depths = config.wholes("depths") or tuple(self.count(f"layers.{s}.blocks.") for s in stages)
        patch = config.pair("patch_size") or self.shape("patch_embed.proj.weight", 4)[2:]
        if patch[0] != patch[1]:
            raise CheckpointError(
                f"{self.checkpoint.path}: patches that are not square ('patch_embed.proj.weight') "
                "are not supported"
            )
        heads = config.wholes("num_heads") or tuple(
            heads_of(
                self.checkpoint,
                f"layers.{stage}.blocks.0.attn.",
                width * 2**stage,
                self.shape,
                second=second,
            )
            for stage in range(len(depths))
        )
        known: dict[str, Any] = {
            "width": width,
            "patch_size": patch[0],
            "depths": depths,
            "heads": heads,
            "mlp_ratio": self._mlp_ratio(config, len(depths), width),
            "image_size": config.image_size(),
            "window": self._window(config, len(depths), second=second),
        }
        if second:
            known["kind"] = "swinv2"
            if config.flag("qkv_bias") is False:
                raise config.error("model_args.qkv_bias", config.args["qkv_bias"], "true")
            before = config.wholes("pretrained_window_sizes")
            if before is not None or config.architecture:
                known["pretrained_windows"] = before if before and any(before) else ()
            else:
                known["pretrained_windows"] = None
        else:
            known["kind"] = "swin"
            told = config.flag("qkv_bias")
            bias = any(".attn.qkv.bias" in n for n in self.checkpoint.tensors)
            known["qkv_bias"] = bias if told is None else told
        examples = {"image_size": "[224, 224]", "window": "8"}
        if second:
            examples["pretrained_windows"] = "[12, 12, 12, 6]"
        unknown = {field: text for field, text in examples.items() if known[field] is None}
        return {f: v for f, v in known.items() if v is not None}, unknown

    def _mlp_ratio(self, config: TimmConfig, stages: int, width: int) -> float:
        """As told, if true; else by the widest stage, where rounding down takes least."""
        hidden = self.shape(f"layers.{max(stages - 1, 0)}.blocks.0.mlp.fc1.bias", 1)[0]
        width *= 2 ** max(stages - 1, 0)
        told = config.args.get("mlp_ratio")
        if isinstance(told, int | float) and 0 < told < 1000 and int(width * told) == hidden:
            return float(told)
        return hidden_ratio(hidden, width)

    def _window(self, config: TimmConfig, stages: int, *, second: bool) -> int | None:
        """The largest window: a stage whose map is smaller has a smaller one."""
        value = config.args.get("window_size")
        match value:
            case None:
                pass
            case int(side) if not isinstance(side, bool) and side > 0:
                return side
            case [int(side), *rest] if side > 0 and all(other == side for other in rest):
                return side
            case _:
                raise config.error("model_args.window_size", value, "one square window")
        if second:
            return None
        return (
            max(
                window_of(self.checkpoint, f"layers.{stage}.blocks.0.attn.", self.shape)
                for stage in range(stages)
            )
            if stages
            else None
        )


def insist_windows(checkpoint: Checkpoint, backbone: AnySwin) -> None:
    """Refuse oblong maps that are no larger than the window.

    There timm shrinks the window, and leaves out the shift, along each side by itself; here both
    sides go together.
    """
    for grid in backbone.grids:
        if min(grid) <= backbone.window and grid[0] != grid[1]:
            raise CheckpointError(
                f"{checkpoint.path}: image_size {list(backbone.image_size)} makes a map of "
                f"{grid[0]} x {grid[1]} places, one side no longer than the window of "
                f"{backbone.window}: such windows are not supported"
            )


def _named_arguments(architecture: str) -> dict[str, Any]:
    """What the name of a published Swin says."""
    variant = VARIANTS.get(architecture)
    if variant is None or not isinstance(variant.config, AnySwin):
        return {}
    config = variant.config
    args: dict[str, Any] = {
        "embed_dim": config.width,
        "depths": config.depths,
        "num_heads": config.heads,
        "patch_size": config.patch_size,
        "window_size": config.window,
    }
    if isinstance(config, SwinV2Config) and config.pretrained_windows:
        args["pretrained_window_sizes"] = config.pretrained_windows
    return args


def refuses_swin(described: Described) -> str:
    """What timm's Swin cannot be told, or an empty string."""
    backbone, task = described.backbone, described.classifier
    assert isinstance(backbone, AnySwin)
    small = [g for g in backbone.grids if min(g) <= backbone.window and g[0] != g[1]]
    faults = {
        f"timm has no '{backbone.positions}' positions": backbone.positions != "relative",
        "timm's windows shift": not backbone.shift,
        f"timm's LayerNorm has epsilon 1e-5, not {backbone.eps:g}": backbone.eps != 1e-5,
        "timm has no layer before the head": task is not None and task.hidden is not None,
        "timm's patches do not overhang": any(n % backbone.patch_size for n in backbone.image_size),
        "timm's windows are oblong on oblong maps that are no larger": bool(small),
    }
    return next((fault for fault, holds in faults.items() if holds), "") or refuses_preprocess(
        described.preprocess
    )


def write_swin(described: Described, state: Mapping[str, Tensor], out: Path) -> list[str]:
    """A folder that timm loads."""
    backbone = described.backbone
    assert isinstance(backbone, AnySwin)
    args: dict[str, Any] = {
        "img_size": list(backbone.image_size),
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.width,
        "depths": list(backbone.depths),
        "num_heads": list(backbone.heads),
        "window_size": backbone.window,
        "mlp_ratio": backbone.mlp_ratio,
        "global_pool": "avg",
    }
    name = "swinv2_tiny_window8_256"
    if isinstance(backbone, SwinConfig):
        name = "swin_tiny_patch4_window7_224"
        args["qkv_bias"] = backbone.qkv_bias
    else:
        none = (0,) * len(backbone.depths)
        args["pretrained_window_sizes"] = list(backbone.pretrained_windows or none)
    tensors = write_all(swin_entries(backbone, described.classifier), state)
    return write_folder(
        described, described.variant or name, args, backbone.widths[-1], tensors, out
    )
