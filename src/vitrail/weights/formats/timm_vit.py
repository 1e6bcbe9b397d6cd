"""timm's Vision Transformers: plain, DeiT, DeiT-III, with registers, SigLIP, DINOv2.

timm's rules: exact GELU unless it says otherwise, epsilon 1e-6, tables stretched by an antialiased
bicubic filter. Which tokens have a position is told by the length of the table.
"""

from __future__ import annotations

import math
from typing import Any

from vitrail.backbones.vit import Learned1dConfig, ViTConfig
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.timm_config import Pair, TimmConfig, hidden_ratio
from vitrail.weights.formats.timm_reader import TimmReader
from vitrail.weights.formats.timm_sizes import DINO, named_arguments, refused_name
from vitrail.weights.formats.timm_vit_names import POOLS, vit_entries
from vitrail.weights.mapping import Entry
from vitrail.weights.reader import Described, Given, settle

HANDLED = frozenset(
    {
        *("img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim"),
        *("depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values", "class_token"),
        *("no_embed_class", "reg_tokens", "fc_norm", "pool_include_prefix", "act_layer"),
        "distilled",
    }
)
NEUTRAL = {
    "pos_embed": "learn",
    "pre_norm": False,
    "final_norm": True,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "norm_layer": "layernorm",
    "dynamic_img_pad": False,
}
PARTS = ("", "state_dict", "state_dict_ema", "module")
"""Where bare weights stand. Under `model` and `model_ema` they are the official DeiT's."""


class TimmViTReader(TimmReader):
    """timm's `VisionTransformer` and its distilled sister."""

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Blocks as timm calls them, and no stem of several layers."""
        names = checkpoint.tensors
        other = ("tokens_to_token.", "patch_embed.backbone.", "blocks_token_only.", "layers.")
        blocks = any(n.startswith("blocks.") and ".attn.qkv." in n for n in names)
        if not blocks or any(n.startswith(other) for n in names):
            return False
        return is_timm(checkpoint)

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` where there is one, else from shapes."""
        config = self._config()
        config.insist(HANDLED, NEUTRAL)
        known, unknown, notes = self._backbone(config, given)
        backbone, variant, settled = settle(ViTConfig, known, unknown, given, self.checkpoint)
        _insist_pool(config, backbone)
        return self.finish(
            config, (backbone, variant, (*notes, *settled)), given, "head.", "head_dist."
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        assert isinstance(described.backbone, ViTConfig)
        return vit_entries(described.backbone, described.classifier)

    def _config(self) -> TimmConfig:
        config = TimmConfig.of(self.checkpoint)
        why = refused_name(config.architecture)
        if why:
            raise CheckpointError(
                f"{self.checkpoint.path}: '{config.architecture}' is not supported: {why}"
            )
        return config.with_defaults(named_arguments(config.architecture))

    def _backbone(
        self, config: TimmConfig, given: Given
    ) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Fields that are known, those that are not with an example, and notes."""
        width = config.whole("embed_dim") or self.shape("patch_embed.proj.bias", 1)[0]
        depth = config.whole("depth") or self.count("blocks.")
        hidden, activation = self._mlp(config)
        pool = self._pool(config)
        tokens = self._tokens(config, pool)
        patch = self._patch(config)
        image, prefix = self._positions(config, given, patch, sum(tokens.values()))
        after = self.any("fc_norm.") and not self.any("norm.")
        known: dict[str, Any] = {
            "kind": "vit",
            "image_size": image,
            "stem": {"kind": "patch", "patch_size": patch},
            "positions": Learned1dConfig(prefix=prefix).model_dump(),
            "width": width,
            "depth": depth,
            "mlp_ratio": hidden_ratio(hidden, width),
            "qkv_bias": self._has("qkv_bias", config, ".attn.qkv.bias"),
            "qk_norm": self._has("qk_norm", config, ".attn.q_norm.", ".attn.k_norm."),
            "activation": activation,
            "layer_scale": self._layer_scale(config),
            **tokens,
            "pool": POOLS[pool],
            "norm_after_pool": after,
        }
        notes: list[str] = []
        heads = config.whole("num_heads")
        if heads is None and known["layer_scale"] and patch == 14 and (width, depth) in DINO:
            heads = DINO[width, depth]
            notes.append(f"heads = {heads}, as in a DINOv2 of this width and depth")
        if heads is not None:
            return known | {"heads": heads}, {}, notes
        return known, {"heads": "12"}, notes

    def _mlp(self, config: TimmConfig) -> tuple[int, str]:
        """Hidden width and activation; a gated MLP has twice as many rows in its first layer."""
        rows = self.shape("blocks.0.mlp.fc1.bias", 1)[0]
        columns = self.shape("blocks.0.mlp.fc2.weight", 2)[1]
        if rows == 2 * columns:
            return columns, "swiglu"
        return rows, config.text("act_layer", ("gelu", "gelu_tanh")) or "gelu"

    def _pool(self, config: TimmConfig) -> str:
        pool = config.text("global_pool", POOLS) or config.top.get("global_pool")
        if pool in POOLS:
            return str(pool)
        if self.any("attn_pool."):
            return "map"
        return "token" if self.any("cls_token", "dist_token", "head_dist.") else "avg"

    def _tokens(self, config: TimmConfig, pool: str) -> dict[str, int]:
        """Leading tokens: what the arguments say, else what is there."""
        distilled = config.flag("distilled") or self.any("dist_token", "head_dist.")
        own = config.flag("class_token")
        if own is None:
            own = distilled or pool == "token" or self.any("cls_token")
        registers = config.args.get("reg_tokens")
        if registers is None:
            registers = self.shape("reg_token", 3)[1] if self.any("reg_token") else 0
        if not isinstance(registers, int) or not 0 <= registers <= 1024:
            raise config.error("model_args.reg_tokens", registers, "a small number")
        return {
            "class_token": own,
            "distillation_token": bool(distilled),
            "registers": int(registers),
        }

    def _patch(self, config: TimmConfig) -> int:
        told = config.pair("patch_size")
        high, wide = told or self.shape("patch_embed.proj.weight", 4)[2:]
        if high != wide:
            raise CheckpointError(
                f"{self.checkpoint.path}: patches of {high} x {wide} pixels, which are not square "
                "('patch_embed.proj.weight'), are not supported"
            )
        return high

    def _positions(
        self, config: TimmConfig, given: Given, patch: int, prefix: int
    ) -> tuple[Pair, bool]:
        """Size of the images, and whether leading tokens have a position."""
        count = self.shape("pos_embed", 3)[1]
        size = _size(given.backbone.get("image_size")) or config.image_size()
        if size is None:
            patches = (n for n in (count, count - prefix) if math.isqrt(max(n, 0)) ** 2 == n)
            side = math.isqrt(next(patches, 0)) * patch
            size = (side, side) if side else None
        if size is not None and patch and not (size[0] % patch or size[1] % patch):
            rest = count - (size[0] // patch) * (size[1] // patch)
            if rest in (0, prefix):
                return size, rest == prefix and prefix > 0
        raise CheckpointError(
            f"{self.checkpoint.path}: tensor 'pos_embed' has {count} positions, which are neither "
            f"the patches of a {_shown(size)} image with patches of {patch} x {patch} "
            f"('patch_embed.proj.weight') nor these and {prefix} leading tokens "
            "(cls_token, dist_token, reg_token)"
        )

    def _layer_scale(self, config: TimmConfig) -> float | None:
        value = config.args.get("init_values")
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise config.error("model_args.init_values", value, "a number")
        has = any(".ls1.gamma" in n or ".ls2.gamma" in n for n in self.checkpoint.tensors)
        # What it started from does not matter any more.
        return float(value or 1e-5) if has or value is not None else None

    def _has(self, field: str, config: TimmConfig, *parts: str) -> bool:
        told = config.flag(field)
        names = self.checkpoint.tensors
        return any(p in n for n in names for p in parts) if told is None else told


def is_timm(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint with timm's names is timm's: by its config, or as bare weights."""
    if checkpoint.config:
        return "architecture" in checkpoint.config and "model_type" not in checkpoint.config
    return checkpoint.part in PARTS and checkpoint.container != "npz"


def _insist_pool(config: TimmConfig, backbone: ViTConfig) -> None:
    """Leading tokens take part in our attention pool and not in our mean; timm can do both."""
    own = config.flag("pool_include_prefix") or False
    if not backbone.prefix or backbone.pool == "class":
        return
    if own != (backbone.pool == "attention"):
        raise config.error(
            "model_args.pool_include_prefix",
            own,
            f"{not own}: another choice of tokens for global_pool is not supported",
        )


def _size(value: object) -> Pair | None:
    """An image size as a person gives it."""
    match value:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
        case _:
            return None


def _shown(size: Pair | None) -> str:
    return f"{size[0]} x {size[1]}" if size else "square"
