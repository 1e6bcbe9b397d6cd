"""timm's hybrids R+ViT: a `VisionTransformer` whose patches come from a ResNetV2.

timm divides kernels by sqrt(variance + 1e-8) and gives GroupNorm an epsilon of 1e-5, unlike
google-research.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.backbones import VARIANTS
from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.vit import Learned1dConfig, ViTConfig
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.timm_config import Pair, TimmConfig, hidden_ratio
from vitrail.weights.formats.timm_folder import refuses_preprocess, write_folder
from vitrail.weights.formats.timm_reader import TimmReader
from vitrail.weights.formats.timm_sizes import named_arguments
from vitrail.weights.formats.timm_vit import is_timm
from vitrail.weights.formats.timm_vit_names import block_entries
from vitrail.weights.mapping import Absent, Entry, pair, write_all
from vitrail.weights.reader import Described, Given, settle

HANDLED = frozenset(
    {
        *("img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim"),
        *("depth", "num_heads", "mlp_ratio", "class_token", "no_embed_class", "act_layer"),
    }
)
NEUTRAL: dict[str, Any] = {
    "qkv_bias": True,
    "qk_norm": False,
    "init_values": None,
    "reg_tokens": 0,
    "fc_norm": False,
    "pos_embed": "learn",
    "pre_norm": False,
    "final_norm": True,
    "proj_bias": True,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "pool_include_prefix": False,
    "padding_same": True,
    "norm_layer": "layernorm",
}
POOLS = {"token": "class", "avg": "mean"}
RESNET = "patch_embed.backbone."
ARCHITECTURES: dict[tuple[int, ...], str] = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
"""By the depths of the ResNet, which timm takes from the name alone."""


class TimmHybridReader(TimmReader):
    """timm's `VisionTransformer` over a `ResNetV2`."""

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """A ResNet inside the patch embedding."""
        return any(n.startswith(RESNET) for n in checkpoint.tensors) and is_timm(checkpoint)

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` where there is one, else from shapes."""
        config = TimmConfig.of(self.checkpoint)
        config = config.with_defaults(_named_arguments(config.architecture))
        config.insist(HANDLED, NEUTRAL)
        known = self._backbone(config, given)
        heads = config.whole("num_heads")
        unknown = {"heads": "12"} if heads is None else {}
        known |= {} if heads is None else {"heads": heads}
        settled = settle(HybridConfig, known, unknown, given, self.checkpoint)
        return self.finish(config, settled, given, "head.")

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        assert isinstance(described.backbone, HybridConfig)
        return hybrid_entries(described.backbone, described.classifier)

    def _backbone(self, config: TimmConfig, given: Given) -> dict[str, Any]:
        width = config.whole("embed_dim") or self.shape("patch_embed.proj.bias", 1)[0]
        depths = self._resnet_depths(config.architecture)
        told = config.pair("patch_size")
        patch = told[0] if told else self.shape("patch_embed.proj.weight", 4)[2]
        stride = 4 * 2 ** max(len(depths) - 1, 0) * patch
        pool = config.text("global_pool", POOLS) or "token"
        if not config.args and not self.any("cls_token"):
            pool = "avg"
        image, prefix = self._positions(config, given, stride, int(pool == "token"))
        root = f"{RESNET}stem.norm.bias" if depths else f"{RESNET}norm.bias"
        return {
            "kind": "hybrid",
            "image_size": image,
            "resnet_depths": depths,
            "resnet_width": self.shape(root, 1)[0],
            "standardisation": "variance",
            "group_norm_eps": 1e-5,
            "patch_size": patch,
            "positions": Learned1dConfig(prefix=prefix).model_dump(),
            "width": width,
            "depth": config.whole("depth") or self.count("blocks."),
            "mlp_ratio": hidden_ratio(self.shape("blocks.0.mlp.fc1.bias", 1)[0], width),
            "activation": config.text("act_layer", ("gelu", "gelu_tanh")) or "gelu",
            "pool": POOLS[pool],
        }

    def _resnet_depths(self, architecture: str) -> tuple[int, ...]:
        """By the name alone, as in timm; else those of the file."""
        variant = VARIANTS.get(architecture)
        if variant is not None and isinstance(variant.config, HybridConfig):
            return variant.config.resnet_depths
        stages = range(self.count(f"{RESNET}stages."))
        return tuple(self.count(f"{RESNET}stages.{s}.blocks.") for s in stages)

    def _positions(
        self, config: TimmConfig, given: Given, stride: int, prefix: int
    ) -> tuple[Pair, bool]:
        count = self.shape("pos_embed", 3)[1]
        size = given.backbone.get("image_size") or config.image_size()
        if size is None:
            patches = next(
                (n for n in (count - prefix, count) if math.isqrt(max(n, 0)) ** 2 == n), 0
            )
            size = (math.isqrt(patches) * stride,) * 2
        match size:
            case [int(height), int(wide)] if stride > 0:
                rest = count - -(-height // stride) * -(-wide // stride)
            case _:
                rest = -1
        if rest not in (0, prefix):
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor 'pos_embed' has {count} positions, which are "
                f"neither those of an image of size {size} in steps of {stride} pixels "
                "('patch_embed.proj.weight') nor these and one of the class token ('cls_token')"
            )
        return (int(size[0]), int(size[1])), rest > 0


def hybrid_entries(backbone: HybridConfig, task: ClassifyConfig | None) -> list[Entry]:
    """Which tensor is which of ours."""
    root = "stem." if backbone.resnet_depths else ""
    entries = [
        Entry("backbone.resnet.root.conv.weight", (f"{RESNET}{root}conv.weight",)),
        *pair("backbone.resnet.root.norm", f"{RESNET}{root}norm."),
        *pair("backbone.patch_embed.proj", "patch_embed.proj."),
        Entry("backbone.pos_embed.weight", ("pos_embed",)),
        *pair("backbone.norm", "norm."),
    ]
    token = Entry("backbone.prefix_token", ("cls_token",))
    if not backbone.prefix:
        token = Entry("backbone.prefix_token", (), Absent((1, 0, backbone.width)))
    entries.append(token)
    for stage, depth in enumerate(backbone.resnet_depths):
        for unit in range(depth):
            ours = f"backbone.resnet.stages.{stage}.{unit}."
            theirs = f"{RESNET}stages.{stage}.blocks.{unit}."
            for n in "123":
                entries.append(Entry(f"{ours}conv{n}.weight", (f"{theirs}conv{n}.weight",)))
                entries += pair(f"{ours}norm{n}", f"{theirs}norm{n}.")
            if unit == 0:
                shortcut = f"{theirs}downsample."
                entries.append(Entry(f"{ours}downsample.0.weight", (f"{shortcut}conv.weight",)))
                entries += pair(f"{ours}downsample.1", f"{shortcut}norm.")
    like = ViTConfig(width=backbone.width, heads=backbone.heads)
    for i in range(backbone.depth):
        entries += block_entries(f"backbone.blocks.{i}.", f"blocks.{i}.", like)
    if task is not None:
        entries += pair("task.head", "head.")
    return entries


def _named_arguments(architecture: str) -> dict[str, Any]:
    """What the name of a hybrid says: `p8` are patches of 8 x 8 cells."""
    named = named_arguments(architecture)
    if not named:
        return {}
    args = {field: named[field] for field in ("embed_dim", "depth", "num_heads", "global_pool")}
    return args | {"patch_size": 8 if "p8" in architecture.split("_") else 1}


def refuses_hybrid(described: Described) -> str:
    """What timm's hybrids cannot be told, or an empty string."""
    backbone, task = described.backbone, described.classifier
    assert isinstance(backbone, HybridConfig)
    variance = backbone.standardisation == "variance"
    channels = (backbone.resnet_width, backbone.groups)
    faults = {
        "timm's hybrids divide kernels by sqrt(variance + 1e-8), not std + 1e-5": not variance,
        "timm's GroupNorm has epsilon 1e-5": backbone.group_norm_eps != 1e-5,
        "timm's LayerNorm has epsilon 1e-6": backbone.eps != 1e-6,
        "timm's hybrids begin with a 7x7 convolution": backbone.root.kind != "imagenet",
        "timm's hybrids have 64 channels in 32 groups": channels != (64, 32),
        f"timm has hybrids with ResNet depths {[*map(list, ARCHITECTURES)]} only": (
            backbone.resnet_depths not in ARCHITECTURES
        ),
        "timm has no layer before the head": task is not None and task.hidden is not None,
        "timm's patches do not overhang": any(n % backbone.stride for n in backbone.image_size),
    }
    return next((fault for fault, holds in faults.items() if holds), "") or refuses_preprocess(
        described.preprocess
    )


def write_hybrid(described: Described, state: Mapping[str, Tensor], out: Path) -> list[str]:
    """A folder that timm loads."""
    backbone = described.backbone
    assert isinstance(backbone, HybridConfig)
    hidden = round(backbone.width * backbone.mlp_ratio)
    args: dict[str, Any] = {
        "img_size": list(backbone.image_size),
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.width,
        "depth": backbone.depth,
        "num_heads": backbone.heads,
        "mlp_ratio": hidden_ratio(hidden, backbone.width),
        "class_token": backbone.pool == "class",
        "no_embed_class": not backbone.positions.prefix,
        "global_pool": next(k for k, v in POOLS.items() if v == backbone.pool),
        "act_layer": backbone.activation,
        "fc_norm": False,
    }
    tensors = write_all(hybrid_entries(backbone, described.classifier), state)
    name = described.variant or ARCHITECTURES[backbone.resnet_depths]
    return write_folder(described, name, args, backbone.width, tensors, out)
