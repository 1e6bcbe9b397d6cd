"""Hugging Face `dinov2` and `dinov2_with_registers`.

The classifier reads the class token beside the mean of the patches. The table of positions has an
entry for the class token and none for registers: theirs are zeros in ours. Evaluation is mostly at
another size than the table's 518 pixels: positions are resampled bicubically, with antialias in the
family that has registers, without in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrail.backbones.vit import Learned1dConfig, ViTConfig
from vitrail.nn.positions import Resampling
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats.hf import (
    RENAMED,
    HfReader,
    LayerNames,
    check_head,
    write_folder,
)
from vitrail.weights.formats.hf_processor import Processor
from vitrail.weights.formats.hf_vit import LEGACY as OF_VIT
from vitrail.weights.formats.hf_vit import check_vit, common_config
from vitrail.weights.mapping import Derived, Entry, Joined, Layout, Same, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

LEGACY = LayerNames(
    query=OF_VIT.query,
    key=OF_VIT.key,
    value=OF_VIT.value,
    out=OF_VIT.out,
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)


@dataclass(frozen=True)
class WithoutRegisters(Layout):
    """A table of positions that lacks the rows of registers, which are zeros in ours.

    Attributes:
        registers: How many rows.
    """

    registers: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Zeros behind the class token's row."""
        tensor = parts[0]
        zeros = tensor.new_zeros(1, self.registers, tensor.shape[2])
        return torch.cat([tensor[:, :1], zeros, tensor[:, 1:]], dim=1)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Their rows left out."""
        return [torch.cat([tensor[:, :1], tensor[:, 1 + self.registers :]], dim=1)]


class HfDinov2Reader(HfReader):
    """A `dinov2` or `dinov2_with_registers` folder, with a classifier or without."""

    types: ClassVar[tuple[str, ...]] = ("dinov2", "dinov2_with_registers")
    processor: Processor = "BitImageProcessor"

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` and whether the file has a classifier."""
        settings = self.settings
        with_registers = self.model_type == "dinov2_with_registers"
        patch, image_size, notes = self.patch_and_image(16 if with_registers else 14)
        width = settings.whole("hidden_size", 768)
        gated = settings.flag("use_swiglu_ffn", default=False)
        hidden = int(width * settings.number("mlp_ratio", 4.0, most=1e3))
        if gated:
            hidden = gated_hidden(hidden)
        headed = self.any("classifier.")
        depth = settings.whole("num_hidden_layers", 12)
        self.insist_layers("encoder.layer", depth, "num_hidden_layers")
        known = {
            "image_size": image_size,
            "stem": {"kind": "patch", "patch_size": patch},
            "positions": {
                "kind": "learned_1d",
                "prefix": True,
                "resampling": _resampling(registers=with_registers),
            },
            "width": width,
            "depth": depth,
            "heads": settings.whole("num_attention_heads", 12),
            "mlp_ratio": hidden / width,
            "qkv_bias": settings.flag("qkv_bias", default=True),
            "activation": "swiglu" if gated else self.activation(),
            "eps": settings.number("layer_norm_eps", 1e-6, most=1.0),
            "layer_scale": settings.number("layerscale_value", 1.0),
            "registers": settings.whole("num_register_tokens", 4, least=0) if with_registers else 0,
            "pool": "class_and_mean" if headed else "class",
        }
        backbone, variant, more = settle(ViTConfig, known, {}, given, self.checkpoint)
        preprocess, prepared = self.preprocess(image_size)
        return Described(
            backbone=backbone,
            task=self.head("classifier.bias", given) if headed else None,
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        return table(config, described.classifier, self.stem, renamed=self.renamed)

    def derived(self, described: Described) -> list[Derived]:
        """The token that stands for hidden patches in training."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        return [Derived(f"{self.stem}embeddings.mask_token", (1, config.width))]


class HfDinov2Writer(Writer):
    """A `dinov2` or `dinov2_with_registers` folder that transformers itself loads."""

    name = "hf"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the family cannot express."""
        config = described.backbone
        if not isinstance(config, ViTConfig):
            return f"family '{config.kind}' is not DINOv2's"
        if not config.class_token or config.distillation_token or config.layer_scale is None:
            return "Hugging Face's dinov2 has LayerScale and a class token, and registers at most"
        if config.pool != ("class_and_mean" if described.classifier else "class"):
            return f"pool '{config.pool}' is not DINOv2's, which is class token and mean"
        if _ratio(config) is None:
            return f"mlp_ratio {config.mlp_ratio:g}: Hugging Face's dinov2 has whole numbers only"
        plain = config.model_copy(
            update={"layer_scale": None, "pool": "class", "activation": "gelu"}
        )
        resampling = _resampling(registers=config.registers > 0)
        return check_vit(plain, described, resampling) or check_head(described)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        kind = "dinov2_with_registers" if config.registers else "dinov2"
        stem = f"{kind}." if described.classifier else ""
        state = _registers_in_place(config, state)
        tensors = write_all(table(config, described.classifier, stem, renamed=False), state)
        tensors[f"{stem}embeddings.mask_token"] = torch.zeros(1, config.width)
        return write_folder(out, _config_json(kind, config, described), described, tensors)


def table(
    config: ViTConfig, task: ClassifyConfig | None, stem: str, *, renamed: bool
) -> list[Entry]:
    """Which tensor is which; the arguments are those of `hf_vit.table`."""
    names = RENAMED if renamed else LEGACY
    layout = WithoutRegisters(config.registers) if config.registers else Same()
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}embeddings.patch_embeddings.projection."),
        _tokens(config, f"{stem}embeddings."),
        Entry("backbone.pos_embed.weight", (f"{stem}embeddings.position_embeddings",), layout),
    ]
    for i in range(config.depth):
        ours, layer = f"backbone.blocks.{i}", f"{stem}encoder.layer.{i}."
        entries += names.qkv(layer, f"{ours}.attn", config.width, bias=config.qkv_bias)
        if config.activation == "swiglu":
            entries += _gated(layer, ours, config, names)
        else:
            entries += names.rest(layer, ours, ("norm1", "norm2"))
        entries += [
            Entry(f"{ours}.ls1.gamma", (f"{layer}layer_scale1.lambda1",)),
            Entry(f"{ours}.ls2.gamma", (f"{layer}layer_scale2.lambda1",)),
        ]
    entries += pair("backbone.norm", f"{stem}layernorm.")
    return entries + (pair("task.head", "classifier.") if task else [])


def _resampling(*, registers: bool) -> Resampling:
    return "bicubic_antialias" if registers else "bicubic"


def gated_hidden(hidden: int) -> int:
    """Width of the gated MLP in the place of a plain one: two thirds, up to a multiple of 8."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


def _ratio(config: ViTConfig) -> int | None:
    """The `mlp_ratio` of theirs, a whole number, that leads to this MLP."""
    hidden = round(config.width * config.mlp_ratio)
    gated = config.activation == "swiglu"
    for ratio in range(1, 2 * hidden // config.width + 10):
        plain = ratio * config.width
        if (gated_hidden(plain) if gated else plain) == hidden:
            return ratio
    return None


def _gated(layer: str, ours: str, config: ViTConfig, names: LayerNames) -> list[Entry]:
    """Gate and value are one matrix in files, two in memory; silu(first) * second in all."""
    every = names.rest(layer, ours, ("norm1", "norm2"))
    entries = [entry for entry in every if ".mlp." not in entry.ours]
    if names is not RENAMED:
        return [
            *entries,
            *pair(f"{ours}.mlp.fc1", f"{layer}mlp.weights_in."),
            *pair(f"{ours}.mlp.fc2", f"{layer}mlp.weights_out."),
        ]
    hidden = round(config.width * config.mlp_ratio)
    for kind in ("weight", "bias"):
        theirs = (f"{layer}mlp.gate_proj.{kind}", f"{layer}mlp.up_proj.{kind}")
        entries.append(Entry(f"{ours}.mlp.fc1.{kind}", theirs, Joined((hidden, hidden))))
    return [*entries, *pair(f"{ours}.mlp.fc2", f"{layer}mlp.down_proj.")]


def _tokens(config: ViTConfig, stem: str) -> Entry:
    if not config.registers:
        return Entry("backbone.prefix_token", (f"{stem}cls_token",))
    theirs = (f"{stem}cls_token", f"{stem}register_tokens")
    return Entry("backbone.prefix_token", theirs, Joined((1, config.registers), axis=1))


def _registers_in_place(config: ViTConfig, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Positions of registers, where they have any, become part of the registers themselves."""
    assert isinstance(config.positions, Learned1dConfig)
    places = state["backbone.pos_embed.weight"][:, 1 : 1 + config.registers]
    if not bool(places.any()):
        return state
    tokens = state["backbone.prefix_token"].clone()
    tokens[:, 1:] += places
    return {**state, "backbone.prefix_token": tokens}


def _config_json(kind: str, config: ViTConfig, described: Described) -> dict[str, object]:
    family = "Dinov2WithRegisters" if config.registers else "Dinov2"
    table = {
        "architectures": [
            f"{family}{'ForImageClassification' if described.classifier else 'Model'}"
        ],
        "model_type": kind,
        **common_config(config),
        "apply_layernorm": True,
        "layerscale_value": config.layer_scale,
        "mlp_ratio": _ratio(config),
        "use_swiglu_ffn": config.activation == "swiglu",
    }
    return table | ({"num_register_tokens": config.registers} if config.registers else {})
