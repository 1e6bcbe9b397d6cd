"""Hugging Face `yolos` (transformers `YolosForObjectDetection`).

A ViT whose sequence ends in tokens that find objects; here they stand before the patches. Positions
are added at the stem and, in most, again after every block but the last, from one tensor of all
tables. Theirs are ordered as the sequence is: class token, patches, detection tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.backbones.vit import ViTConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import TokensReadout
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf import RENAMED, write_folder
from vitrail.weights.formats.hf_detection import (
    HfDetectorReader,
    check_detection_processor,
    detection_processor_json,
)
from vitrail.weights.formats.hf_vit import LEGACY, NORMS, check_vit, common_config
from vitrail.weights.mapping import Derived, Entry, Joined, Layout, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

HEADS = {"classify": "class_labels_classifier", "locate": "bbox_predictor"}
CUT_TO = 16
"""The processor shortens sides to multiples of it, whatever the patch."""


@dataclass(frozen=True)
class QueriesLast(Layout):
    """A position table with the rows of detection tokens at the end; here they precede the patches.

    Attributes:
        queries: How many they are.
        at: Number of the table among all of one tensor; None where it stands alone.
        tables: How many such a tensor has.
    """

    queries: int
    at: int | None = None
    tables: int = 0

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Ours."""
        table = parts[0] if self.at is None else parts[0][self.at]
        places = table.shape[1] - 1 - self.queries
        token, patches, queries = torch.split(table, [1, places, self.queries], dim=1)
        return torch.cat([token, queries, patches], dim=1)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Theirs; zeros in the place of the other tables, which `write_all` adds."""
        places = tensor.shape[1] - 1 - self.queries
        token, queries, patches = torch.split(tensor, [1, self.queries, places], dim=1)
        table = torch.cat([token, patches, queries], dim=1)
        if self.at is None:
            return [table]
        whole = table.new_zeros(self.tables, *table.shape)
        whole[self.at] = table
        return [whole]


class HfYolosReader(HfDetectorReader):
    """A `yolos` folder with its two heads."""

    types: ClassVar[tuple[str, ...]] = ("yolos",)
    cut_to: ClassVar[int] = CUT_TO

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.stem = "vit."
        self.settings.table = {"image_size": [512, 864], **self.settings.table}
        self.moved = self.any("vit.encoder.interpolation.")

    def describe(self, given: Given) -> Described:
        """The model, from `config.json`."""
        settings = self.settings
        patch, image_size, notes = self.patch_and_image(16)
        width, depth = settings.whole("hidden_size", 768), settings.whole("num_hidden_layers", 12)
        self.insist_layers(self._layers(), depth, "num_hidden_layers")
        again = settings.flag("use_mid_position_embeddings", default=True) and depth > 1
        known = {
            "image_size": image_size,
            "stem": {"kind": "patch", "patch_size": patch},
            "positions": {"kind": "learned_1d", "prefix": True, "resampling": "bicubic"},
            "positions_in": "layers" if again else "stem",
            "width": width,
            "depth": depth,
            "heads": settings.whole("num_attention_heads", 12),
            "mlp_ratio": settings.whole("intermediate_size", 3072) / width,
            "qkv_bias": settings.flag("qkv_bias", default=True),
            "activation": self.activation(),
            "eps": settings.number("layer_norm_eps", 1e-12, most=1.0),
            "detection_tokens": settings.whole("num_detection_tokens", 100),
        }
        backbone, variant, more = settle(ViTConfig, known, {}, given, self.checkpoint)
        fields = {
            "readout": {"kind": "tokens"},
            "scoring": "softmax",
            "max_detections": backbone.detection_tokens,
        }
        preprocess, prepared = self.preprocess(image_size)
        return Described(
            backbone=backbone,
            task=self.detector(fields, f"{HEADS['classify']}.layers.2", given),
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        mid = f"encoder.{'interpolation.' if self.moved else ''}mid_position_embeddings"
        return table(config, self._layers(), mid=mid, renamed=self.renamed)

    def derived(self, described: Described) -> list[Derived]:
        """No tables at all, where there is one block."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        if config.depth > 1:
            return []
        count = config.prefix + config.grid[0] * config.grid[1]
        return [Derived("vit.encoder.mid_position_embeddings", (0, 1, count, config.width))]

    def _layers(self) -> str:
        found = ("layers", "encoder.layers", "encoder.layer")
        return next((name for name in found if self.any(f"vit.{name}.")), "encoder.layer")


class HfYolosWriter(Writer):
    """A `yolos` folder that transformers itself loads."""

    name = "hf"
    task = "detect"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the family cannot express."""
        config, task = described.backbone, described.task
        if not isinstance(config, ViTConfig) or not config.detection_tokens:
            return f"family '{config.kind}' has no tokens that find objects, as YOLOS has"
        if not isinstance(task, DetectConfig) or not isinstance(task.readout, TokensReadout):
            return "YOLOS has no decoder"
        if task.scoring != "softmax":
            return "YOLOS scores with a softmax"
        others = config.class_token and not (config.distillation_token or config.registers)
        if not others or config.positions_in == "layers_shared":
            return "YOLOS has a class token, detection tokens and no others, and tables of its own"
        plain = {"detection_tokens": 0, "positions_in": "stem"}
        reason = check_vit(config.model_copy(update=plain), described)
        return reason or check_detection_processor(described.preprocess, cut_to=CUT_TO)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        mid = "encoder.mid_position_embeddings"
        tensors = write_all(table(config, "encoder.layer", mid=mid, renamed=False), state)
        processor = detection_processor_json(described.preprocess, "YolosImageProcessor")
        return write_folder(out, _config_json(config), described, tensors, processor)


def table(config: ViTConfig, layers: str, *, mid: str, renamed: bool) -> list[Entry]:
    """Which tensor is which.

    Args:
        config: The backbone.
        layers: What leads the numbers of their blocks.
        mid: What they call the tables that are added again.
        renamed: Whether the names are those of transformers 5.x in memory.
    """
    names, stem, queries = RENAMED if renamed else LEGACY, "vit.", config.detection_tokens
    tokens = (f"{stem}embeddings.cls_token", f"{stem}embeddings.detection_tokens")
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}embeddings.patch_embeddings.projection."),
        Entry("backbone.prefix_token", tokens, Joined((1, queries), axis=1)),
        Entry(
            "backbone.pos_embed.weight",
            (f"{stem}embeddings.position_embeddings",),
            QueriesLast(queries),
        ),
        *pair("backbone.norm", f"{stem}layernorm."),
    ]
    again = config.depth - 1 if config.positions_in == "layers" else 0
    for i in range(again):
        layout = QueriesLast(queries, at=i, tables=again)
        entries.append(Entry(f"backbone.layer_pos_embed.{i}.weight", (f"{stem}{mid}",), layout))
    for i in range(config.depth):
        ours, layer = f"backbone.blocks.{i}", f"{stem}{layers}.{i}."
        entries += names.qkv(layer, f"{ours}.attn", config.width, bias=config.qkv_bias)
        entries += names.rest(layer, ours, NORMS)
    for part, theirs in HEADS.items():
        for i in range(3):
            entries += pair(f"task.detector.{part}.layers.{i}", f"{theirs}.layers.{i}.")
    return entries


def _config_json(config: ViTConfig) -> dict[str, Any]:
    return {
        "architectures": ["YolosForObjectDetection"],
        "model_type": "yolos",
        **common_config(config),
        "image_size": list(config.image_size),
        "intermediate_size": round(config.width * config.mlp_ratio),
        "num_detection_tokens": config.detection_tokens,
        "use_mid_position_embeddings": config.positions_in == "layers",
    }
