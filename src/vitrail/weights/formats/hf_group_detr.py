"""Hugging Face folders of LW-DETR and RF-DETR: a windowed backbone, and groups of queries.

Training has several groups of queries; the file has the weights of all, inference takes the first.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.data.preprocess import Preprocess, Squash
from vitrail.tasks.detect import DetectConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf import ACTIVATIONS
from vitrail.weights.formats.hf_detection import HfDetectorReader, read_detection_processor
from vitrail.weights.formats.hf_settings import Settings
from vitrail.weights.formats.lw_detr_table import DetectorNames, detector_entries
from vitrail.weights.mapping import Derived, Entry
from vitrail.weights.reader import Described, Given, settle


class GroupDetrReader(HfDetectorReader):
    """A folder of a detector with a windowed backbone and groups of queries."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        nested = self.settings.table.get("backbone_config")
        if not isinstance(nested, Mapping):
            raise self.settings.wrong("backbone_config", "the table of the backbone's settings")
        source = f"{self.settings.source}: backbone_config"
        self.inner = Settings(source, cast("Mapping[str, Any]", nested))

    @property
    @abstractmethod
    def names(self) -> DetectorNames:
        """What the tensors of projector and decoder are called in this file."""

    @property
    @abstractmethod
    def body(self) -> str:
        """What leads the tensors of the backbone in this file."""

    @abstractmethod
    def known(self) -> dict[str, Any]:
        """Fields of the backbone's configuration, without image size."""

    @abstractmethod
    def projector(self) -> dict[str, Any]:
        """Scales and norm of the projector."""

    @abstractmethod
    def layer(self, config: WindowedViTConfig, number: int) -> list[Entry]:
        """The tensors of one block."""

    def describe(self, given: Given) -> Described:
        """The model, from `config.json`."""
        known = self.known()
        made_for = self._made_for(known["patch_size"])
        preprocess, notes = self.preprocess(made_for)
        rule = preprocess.resize
        size = rule.size if isinstance(rule, Squash) else made_for
        step = known["patch_size"] * known["windows"]
        grid = tuple(-(-side // step) * known["windows"] for side in size)
        known |= {"image_size": size, "table": None if known["table"] == grid else known["table"]}
        backbone, variant, more = settle(WindowedViTConfig, known, {}, given, self.checkpoint)
        return Described(
            backbone=backbone,
            task=self.detector(self._fields(), "class_embed", given),
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more),
        )

    def preprocess(self, image_size: tuple[int, int]) -> tuple[Preprocess, tuple[str, ...]]:
        """As the processor's file says; without one images are stretched to the model's size."""
        if self.checkpoint.preprocessor:
            source = f"{self.checkpoint.path}: preprocessor_config.json"
            return read_detection_processor(Settings(source, self.checkpoint.preprocessor))
        height, width = image_size
        note = f"no preprocessor_config.json: images are stretched to {height} x {width} pixels"
        return Preprocess(resize=Squash(size=image_size), interpolation="bilinear"), (note,)

    def _fields(self) -> dict[str, Any]:
        """The decoder; every class is scored by itself."""
        settings = self.settings
        settings.insist("activation_function", wanted="silu", why="of the projector")
        settings.insist("hidden_expansion", wanted=0.5, why="half of the channels are convolved")
        settings.insist("decoder_activation_function", wanted="relu", why="of the decoder")
        settings.insist("attention_bias", wanted=True, why="the decoder's attention has biases")
        depth = settings.whole("decoder_layers", 3)
        self.insist_layers(f"{self.names.decoder}layers", depth, "decoder_layers")
        queries = settings.whole("num_queries", 300)
        groups = settings.whole("group_detr", 13)
        readout = {
            "kind": "queries",
            "projector": {
                "kind": "c2f",
                "blocks": settings.whole("c2f_num_blocks", 3),
                **self.projector(),
            },
            "queries": {"kind": "two_stage", "count": queries, "groups": groups},
            "attention": {
                "kind": "deformable",
                "heads": settings.whole("decoder_cross_attention_heads", 16),
                "points": settings.whole("decoder_n_points", 4),
            },
            "width": settings.whole("d_model", 256),
            "depth": depth,
            "heads": settings.whole("decoder_self_attention_heads", 8),
            "hidden": settings.whole("decoder_ffn_dim", 2048),
            "refinement": "once",
        }
        return {"readout": readout, "max_detections": queries}

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config, task = described.backbone, described.task
        assert isinstance(config, WindowedViTConfig)
        assert isinstance(task, DetectConfig)
        blocks = [entry for i in range(config.depth) for entry in self.layer(config, i)]
        widths = (config.width,) * len(config.taps)
        return [*self.stem_entries(config), *blocks, *detector_entries(self.names, task, widths)]

    @abstractmethod
    def stem_entries(self, config: WindowedViTConfig) -> list[Entry]:
        """Patches, positions and the last norm."""

    def derived(self, described: Described) -> list[Derived]:
        """Blocks behind the last feature map, which nothing reads."""
        config = described.backbone
        assert isinstance(config, WindowedViTConfig)
        last = self.inner.whole("num_hidden_layers", 12)
        return [
            Derived(theirs, self.shape(like))
            for number in range(config.depth, last)
            for one, first in zip(self.layer(config, number), self.layer(config, 0), strict=True)
            for theirs, like in zip(one.theirs, first.theirs, strict=True)
        ]

    def activation(self) -> str:
        """Ours for the backbone's `hidden_act`."""
        given = self.inner.text("hidden_act", "gelu")
        if given not in ACTIVATIONS:
            raise self.inner.wrong("hidden_act", f"one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[given]

    def common(self, heads: int) -> dict[str, Any]:
        """Fields of the backbone that both kinds of folders call the same."""
        inner = self.inner
        inner.insist("num_channels", wanted=3, why="images have three colours")
        taps = self.taps()
        self.insist_layers(f"{self.body}encoder.layer", taps[-1], "out_indices")
        return {
            "patch_size": self.patch(),
            "width": inner.whole("hidden_size", 768),
            "depth": taps[-1],
            "taps": taps,
            "heads": inner.whole("num_attention_heads", heads),
            "mlp_ratio": inner.number("mlp_ratio", 4.0, most=1e3),
            "qkv_bias": inner.flag("qkv_bias", default=True),
            "activation": self.activation(),
            "eps": inner.number("layer_norm_eps", 1e-6, most=1.0),
        }

    def patch(self) -> int:
        """Side of a patch."""
        rows, columns = self.inner.side_or_sides("patch_size", 16)
        if rows != columns:
            raise self.inner.wrong("patch_size", "one side")
        return rows

    def taps(self) -> tuple[int, ...]:
        """After how many blocks each feature map is taken."""
        depth = self.inner.whole("num_hidden_layers", 12)
        indices = self.inner.table.get("out_indices")
        if indices is None:
            return self._taps_by_name(depth)
        found = cast("list[Any]", indices) if isinstance(indices, list | tuple) else [None]
        if not found or not all(isinstance(i, int) and -depth <= i <= depth for i in found):
            raise self.inner.wrong("out_indices", f"a list of numbers up to {depth}")
        return tuple(cast("int", i) % (depth + 1) for i in found)

    def _taps_by_name(self, depth: int) -> tuple[int, ...]:
        stages = ["stem", *(f"stage{i + 1}" for i in range(depth))]
        names = self.inner.table.get("out_features") or stages[-1:]
        if not isinstance(names, list) or any(n not in stages for n in cast("list[Any]", names)):
            raise self.inner.wrong("out_features", f"a list of 'stem' to 'stage{depth}'")
        return tuple(stages.index(name) for name in cast("list[str]", names))

    def table_of(self, field: str) -> tuple[int, int]:
        """Rows and columns of the table of positions."""
        rows, columns = self.inner.side_or_sides(field, 224)
        return rows // self.patch(), columns // self.patch()

    def _made_for(self, patch: int) -> tuple[int, int]:
        """The image size of `config.json`, in whole patches."""
        rows, columns = self.inner.side_or_sides("image_size", 224)
        if min(rows, columns) < patch:
            raise self.inner.wrong("image_size", f"at least one patch of {patch} pixels")
        return rows // patch * patch, columns // patch * patch
