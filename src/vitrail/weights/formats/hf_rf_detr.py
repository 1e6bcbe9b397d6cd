"""Hugging Face `rf_detr`: Roboflow's RF-DETR on windowed DINOv2.

Files have the names of Roboflow's own code; transformers renames them in memory only, and both are
read. The table of positions is that of DINOv2 at the model's own size. Blocks see windows but for
those that follow a feature map, and every window has a copy of the class token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf import RENAMED
from vitrail.weights.formats.hf_dinov2 import LEGACY, gated_hidden
from vitrail.weights.formats.hf_group_detr import GroupDetrReader
from vitrail.weights.formats.lw_detr_table import BY_ROBOFLOW, IN_TRANSFORMERS, DetectorNames
from vitrail.weights.mapping import Derived, Entry, Joined, pair
from vitrail.weights.reader import Described, Given

IN_MEMORY = replace(IN_TRANSFORMERS, scale="model.backbone.projector.")
"""There is one scale, which has no number."""


class HfRfDetrReader(GroupDetrReader):
    """An `rf_detr` folder."""

    publisher_licence = "Apache-2.0 up to large (XL and 2XL: PML 1.0, which is not open)"
    types: ClassVar[tuple[str, ...]] = ("rf_detr",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        if self.any("segmentation_head.", "query_features_block."):
            raise CheckpointError(
                f"{checkpoint.path}: an RF-DETR that cuts out objects by masks; those that give "
                "boxes can be read"
            )

    @property
    def names(self) -> DetectorNames:
        """Roboflow's in files, those of transformers where a state of its memory was saved."""
        return BY_ROBOFLOW if self.any("backbone.0.") else IN_MEMORY

    @property
    def body(self) -> str:
        """What leads the tensors of the backbone."""
        own = self.any("backbone.0.")
        return "backbone.0.encoder.encoder." if own else "model.backbone.backbone."

    def describe(self, given: Given) -> Described:
        """The model, and a warning where transformers cuts windows in a surprising way."""
        described = super().describe(given)
        config = described.backbone
        assert isinstance(config, WindowedViTConfig)
        rows, columns = config.grid
        if not config.exchanged or config.windows == 1 or rows == columns:
            return described
        note = (
            "windows of images that are not square mix distant patches, as in transformers; "
            "--set exchanged=false cuts them in place"
        )
        return described.model_copy(update={"notes": (*described.notes, note)})

    def known(self) -> dict[str, Any]:
        """Fields of the backbone's configuration."""
        inner, settings = self.inner, self.settings
        settings.insist("num_feature_levels", wanted=1, why="the projector gives one map")
        inner.insist("reshape_hidden_states", wanted=True, why="features are maps")
        common = self.common(12)
        if inner.flag("use_swiglu_ffn", default=False):
            width = common["width"]
            hidden = gated_hidden(int(width * common["mlp_ratio"]))
            common |= {"activation": "swiglu", "mlp_ratio": hidden / width}
        depth, inside = common["depth"], self._inside()
        return {
            **common,
            "table": self.table_of("image_size"),
            "resampling": "bicubic_antialias",
            "windows": inner.whole("num_windows", 4),
            # `window_partition` of transformers takes the width for the height.
            "exchanged": True,
            "whole": [i for i in range(depth) if i not in inside],
            "norm_taps": inner.flag("apply_layernorm", default=True),
            "class_token": True,
            "layer_scale": inner.number("layerscale_value", 1.0),
        }

    def _inside(self) -> tuple[int, ...]:
        """Blocks that see windows: all up to the last feature map, but those named like one.

        A feature map is named by the blocks before it, so it is the block behind it that is left
        out, and sees the whole image.
        """
        told = self.inner.wholes("window_block_indexes", (), least=0)
        taps = self.taps()
        if "window_block_indexes" in self.inner.table:
            return told
        return tuple(i for i in range(taps[-1] + 1) if i not in taps)

    def projector(self) -> dict[str, Any]:
        """One scale, norms over channels."""
        self.settings.insist("layer_norm_eps", wanted=1e-5, why="of the projector")
        return {"scales": (1.0,), "norm": "channels"}

    def preprocess(self, image_size: tuple[int, int]) -> tuple[Preprocess, tuple[str, ...]]:
        """RF-DETR's own processor shrinks without antialias."""
        preprocess, notes = super().preprocess(image_size)
        named = self.checkpoint.preprocessor.get("image_processor_type", "RfDetrImageProcessor")
        own = str(named).startswith("RfDetr")
        return preprocess.model_copy(update={"antialias": not own}), notes

    def stem_entries(self, config: WindowedViTConfig) -> list[Entry]:
        """Patches, class token, positions and the norm of the feature maps."""
        stem = f"{self.body}embeddings."
        norm = pair("backbone.norm", f"{self.body}layernorm.") if config.norm_taps else []
        return [
            *pair("backbone.patch_embed.proj", f"{stem}patch_embeddings.projection."),
            Entry("backbone.prefix_token", (f"{stem}cls_token",)),
            Entry("backbone.pos_embed.weight", (f"{stem}position_embeddings",)),
            *norm,
        ]

    def layer(self, config: WindowedViTConfig, number: int) -> list[Entry]:
        """The tensors of one block."""
        names = RENAMED if self.renamed else LEGACY
        theirs, ours = f"{self.body}encoder.layer.{number}.", f"backbone.blocks.{number}"
        entries = names.qkv(theirs, f"{ours}.attn", config.width, bias=config.qkv_bias)
        rest = names.rest(theirs, ours, ("norm1", "norm2"))
        if config.activation == "swiglu":
            hidden = round(config.width * config.mlp_ratio)
            rest = [entry for entry in rest if ".mlp." not in entry.ours]
            for kind in ("weight", "bias"):
                gates = (f"{theirs}mlp.gate_proj.{kind}", f"{theirs}mlp.up_proj.{kind}")
                rest.append(Entry(f"{ours}.mlp.fc1.{kind}", gates, Joined((hidden, hidden))))
            rest += pair(f"{ours}.mlp.fc2", f"{theirs}mlp.down_proj.")
        return [
            *entries,
            *rest,
            Entry(f"{ours}.ls1.gamma", (f"{theirs}layer_scale1.lambda1",)),
            Entry(f"{ours}.ls2.gamma", (f"{theirs}layer_scale2.lambda1",)),
        ]

    def derived(self, described: Described) -> list[Derived]:
        """The token that stands for hidden patches in training, and what nothing reads."""
        config = described.backbone
        assert isinstance(config, WindowedViTConfig)
        unused = [Derived(f"{self.body}embeddings.mask_token", (1, config.width))]
        if not config.norm_taps:
            ends = ("weight", "bias")
            unused += [Derived(f"{self.body}layernorm.{end}", (config.width,)) for end in ends]
        return [*unused, *super().derived(described)]
