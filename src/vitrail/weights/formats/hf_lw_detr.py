"""Hugging Face `lw_detr` (Chen et al. 2024).

The backbone has no class token, although its table of positions has an entry for one, and no bias
of the keys. `num_windows` counts all windows of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.weights.formats.hf import RENAMED, LayerNames
from vitrail.weights.formats.hf_group_detr import GroupDetrReader
from vitrail.weights.formats.hf_vit import LEGACY as OF_VIT
from vitrail.weights.formats.lw_detr_table import IN_TRANSFORMERS, DetectorNames
from vitrail.weights.mapping import Absent, Entry, Layout, pair
from vitrail.weights.reader import Described, Given

LEGACY = LayerNames(
    query=OF_VIT.query,
    key=OF_VIT.key,
    value=OF_VIT.value,
    out="attention.output",
    fc1="intermediate.fc1",
    fc2="intermediate.fc2",
)

IN_MEMORY = LayerNames(
    query=RENAMED.query,
    key=RENAMED.key,
    value=RENAMED.value,
    out=RENAMED.out,
    fc1=LEGACY.fc1,
    fc2=LEGACY.fc2,
)


@dataclass(frozen=True)
class WithoutKeyBias(Layout):
    """The biases of queries and values, with zeros for those of keys, which change nothing.

    Attributes:
        width: Of each.
    """

    width: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Zeros between."""
        query, value = parts
        return torch.cat([query, torch.zeros_like(query), value])

    def write(self, tensor: Tensor) -> list[Tensor]:
        """The keys' left out: softmax takes no notice of them."""
        return [tensor[: self.width], tensor[2 * self.width :]]


class WithoutFirstRow(Layout):
    """A table of positions with an entry for a class token that is not there."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Those of the patches."""
        return parts[0][:, 1:]

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Zeros for the class token."""
        return [torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)]


class HfLwDetrReader(GroupDetrReader):
    """An `lw_detr` folder."""

    types: ClassVar[tuple[str, ...]] = ("lw_detr",)

    @property
    def names(self) -> DetectorNames:
        """The same in files and in memory."""
        return IN_TRANSFORMERS

    @property
    def body(self) -> str:
        """What leads the tensors of the backbone."""
        return "model.backbone.backbone."

    def describe(self, given: Given) -> Described:
        """Medium and large have the same backbone; the projector tells them apart."""
        described = super().describe(given)
        several = len(self.projector()["scales"]) > 1
        if described.variant == "lw_detr_medium" and several and given.variant is None:
            return described.model_copy(update={"variant": "lw_detr_large"})
        return described

    def known(self) -> dict[str, Any]:
        """Fields of the backbone's configuration."""
        inner = self.inner
        inner.insist(
            "use_absolute_position_embeddings", wanted=True, why="positions come from a table"
        )
        windows = inner.whole("num_windows", 16)
        if isqrt(windows) ** 2 != windows:
            raise inner.wrong("num_windows", "a square number")
        inside = inner.wholes("window_block_indices", (), least=0)
        common = self.common(12)
        return {
            **common,
            "table": self.table_of("pretrain_image_size"),
            "resampling": "bicubic",
            "windows": isqrt(windows),
            "whole": [i for i in range(common["depth"]) if i not in inside],
            "norm_taps": False,
            "class_token": False,
            "layer_scale": inner.number("cae_init_values", 0.1),
        }

    def projector(self) -> dict[str, Any]:
        """Several scales, batch norm."""
        self.settings.insist("batch_norm_eps", wanted=1e-5, why="of the projector")
        scales = self.settings.table.get("projector_scale_factors")
        if not isinstance(scales, list) or not scales:
            raise self.settings.wrong("projector_scale_factors", "a list of 0.5, 1.0 or 2.0")
        return {"scales": tuple(cast("list[Any]", scales)), "norm": "batch"}

    def stem_entries(self, config: WindowedViTConfig) -> list[Entry]:
        """Patches and positions; there is no last norm and no class token."""
        table = (f"{self.body}embeddings.position_embeddings",)
        return [
            *pair("backbone.patch_embed.proj", f"{self.body}embeddings.projection."),
            Entry("backbone.prefix_token", (), Absent((1, 0, config.width))),
            Entry("backbone.pos_embed.weight", table, WithoutFirstRow()),
        ]

    def layer(self, config: WindowedViTConfig, number: int) -> list[Entry]:
        """The tensors of one block."""
        names = IN_MEMORY if self.renamed else LEGACY
        theirs, ours = f"{self.body}encoder.layer.{number}.", f"backbone.blocks.{number}"
        entries = names.qkv(theirs, f"{ours}.attn", config.width, bias=False)
        if config.qkv_bias:
            biases = tuple(f"{theirs}{name}.bias" for name in (names.query, names.value))
            layout = WithoutKeyBias(config.width)
            entries.append(Entry(f"{ours}.attn.qkv.bias", biases, layout))
        return [
            *entries,
            *names.rest(theirs, ours, ("layernorm_before", "layernorm_after")),
            Entry(f"{ours}.ls1.gamma", (f"{theirs}gamma_1",)),
            Entry(f"{ours}.ls2.gamma", (f"{theirs}gamma_2",)),
        ]
