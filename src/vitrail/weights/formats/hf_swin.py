"""Hugging Face `swin` and `swinv2`.

Merging stands at the end of a stage, projections apart; Swin v2 has no bias on keys. Norms of stem
and merging keep an epsilon of 1e-5 whatever `layer_norm_eps` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.weights.formats.hf import (
    RENAMED,
    HfReader,
    LayerNames,
    check_head,
    write_folder,
)
from vitrail.weights.formats.hf_processor import Processor
from vitrail.weights.formats.swin_table import AnySwin, of_heads
from vitrail.weights.formats.swin_windows import relative_coordinates, relative_index
from vitrail.weights.mapping import Derived, Entry, Joined, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

LEGACY = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
)

NORMS = ("layernorm_before", "layernorm_after")
EPS = 1e-5


class HfSwinReader(HfReader):
    """A `swin` or `swinv2` folder, with a classifier or without."""

    types: ClassVar[tuple[str, ...]] = ("swin", "swinv2")
    processor: Processor = "ViTImageProcessor"

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` and whether the file has a classifier."""
        settings = self.settings
        patch, image_size, notes = self.patch_and_image(4)
        settings.insist("hidden_act", wanted="gelu", why="Swin is built with exact GELU")
        if abs(settings.number("layer_norm_eps", EPS, most=1.0) - EPS) > 1e-12:
            raise settings.wrong(
                "layer_norm_eps", f"{EPS:g}, as the norms of stem and merging have"
            )
        absolute = settings.flag("use_absolute_embeddings", default=False)
        depths = settings.wholes("depths", (2, 2, 6, 2))
        for stage, depth in enumerate(depths):
            self.insist_layers(f"encoder.layers.{stage}.blocks", depth, f"depths[{stage}]")
        known: dict[str, object] = {
            "image_size": image_size,
            "patch_size": patch,
            "width": settings.whole("embed_dim", 96),
            "depths": depths,
            "heads": settings.wholes("num_heads", (3, 6, 12, 24)),
            "window": settings.whole("window_size", 7),
            "positions": "absolute_and_relative" if absolute else "relative",
            "mlp_ratio": settings.number("mlp_ratio", 4.0, most=1e3),
            "eps": EPS,
        }
        kind: type[SwinConfig | SwinV2Config] = SwinConfig
        if self.model_type == "swinv2":
            kind = SwinV2Config
            settings.insist("qkv_bias", wanted=True, why="Swin v2 has a bias on queries and values")
            settings.insist("use_absolute_embeddings", wanted=False, why="it is broken there")
            known["pretrained_windows"] = self._pretrained(len(depths))
        else:
            known["qkv_bias"] = settings.flag("qkv_bias", default=True)
        backbone, variant, more = settle(kind, known, {}, given, self.checkpoint)
        if isinstance(backbone, SwinV2Config) and not given.backbone:
            self._insist_windows(backbone)
        preprocess, prepared = self.preprocess(image_size)
        return Described(
            backbone=backbone,
            task=self.head("classifier.bias", given) if self.any("classifier.") else None,
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        renamed = self.renamed and isinstance(config, SwinConfig)
        head = pair("task.head", "classifier.") if described.classifier else []
        return table(config, self.stem, renamed=renamed) + head

    def derived(self, described: Described) -> list[Derived]:
        """Buffers that older files have, and the token of masked images."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        found = [Derived(f"{self.stem}embeddings.mask_token", (1, 1, config.width))]
        for stage, depth in enumerate(config.depths):
            for block in range(depth):
                name = f"{self.stem}encoder.layers.{stage}.blocks.{block}.attention."
                found += self._buffers(name, config, stage)
        return found

    def _pretrained(self, stages: int) -> tuple[int, ...]:
        """One window a stage; their default has four whatever the number of stages."""
        windows = self.settings.wholes("pretrained_window_sizes", (0,) * stages, least=0)
        if len(windows) < stages:
            raise self.settings.wrong("pretrained_window_sizes", f"{stages} whole numbers")
        return windows[:stages] if any(windows[:stages]) else ()

    def _insist_windows(self, config: SwinV2Config) -> None:
        """They shrink windows by another rule where a map has no whole, equal sides."""
        for stage, ours in enumerate(config.windows):
            rows, columns = (side // config.patch_size // 2**stage for side in config.image_size)
            theirs = min(rows, config.window)
            shift = config.window // 2 if rows > theirs else 0
            if (theirs, shift) != (ours.size, ours.shift) or min(columns, config.window) != theirs:
                raise self.settings.wrong(
                    "image_size", f"a size whose map in stage {stage} exceeds the window or is one"
                )

    def _buffers(self, name: str, config: AnySwin, stage: int) -> list[Derived]:
        window = config.windows[stage].size
        places = window**2
        if self.renamed:
            name += "relative_position_bias."
            return [self._buffer(f"{name}relative_position_index", (places**2,), config, stage)]
        name += "self."
        index = self._buffer(f"{name}relative_position_index", (places, places), config, stage)
        if isinstance(config, SwinConfig):
            return [index]
        shape = (1, 2 * window - 1, 2 * window - 1, 2)
        return [index, self._buffer(f"{name}relative_coords_table", shape, config, stage)]

    def _buffer(self, name: str, shape: tuple[int, ...], config: AnySwin, stage: int) -> Derived:
        """The value is computed only where the file has one of that size."""
        stored = self.checkpoint.tensors.get(name)
        if stored is None or stored.shape != shape:
            return Derived(name, shape)
        window = config.windows[stage].size
        if name.endswith("index"):
            return Derived(name, shape, relative_index(window).reshape(shape))
        assert isinstance(config, SwinV2Config)
        before = config.pretrained_windows[stage] if config.pretrained_windows else 0
        return Derived(name, shape, relative_coordinates(window, before or window))


class HfSwinWriter(Writer):
    """A `swin` or `swinv2` folder that transformers itself loads."""

    name = "hf"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the two families cannot express."""
        config = described.backbone
        if not isinstance(config, SwinConfig | SwinV2Config):
            return f"family '{config.kind}' is not Swin"
        v1 = isinstance(config, SwinConfig)
        positions = ("relative", "absolute_and_relative") if v1 else ("relative",)
        one_window = {windows.size for windows in config.windows} == {config.window}
        square = config.image_size[0] == config.image_size[1]
        checks = (
            (config.eps == EPS, f"eps {config.eps:g} in stem and merging, only {EPS:g}"),
            (config.positions in positions, f"positions '{config.positions}'"),
            (config.shift, "blocks that never shift"),
            (
                not any(side % config.stride for side in config.image_size),
                f"image_size {config.image_size}, which is no multiple of {config.stride}",
            ),
            (one_window or (not v1 and square), "stages with another window than the first"),
        )
        lacks = next((lacks for fine, lacks in checks if not fine), "")
        return f"Hugging Face's {config.kind} has no {lacks}" if lacks else check_head(described)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        entries = table(config, f"{config.kind}." if described.classifier else "", renamed=False)
        entries += pair("task.head", "classifier.") if described.classifier else []
        return write_folder(
            out, _config_json(config, described), described, write_all(entries, state)
        )


def table(config: AnySwin, stem: str, *, renamed: bool) -> list[Entry]:
    """Which tensor is which.

    Args:
        config: The backbone.
        stem: What leads their names.
        renamed: Whether the names are those of transformers 5.x in memory.
    """
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}embeddings.patch_embeddings.projection."),
        *pair("backbone.patch_norm", f"{stem}embeddings.norm."),
        *pair("backbone.norm", f"{stem}layernorm."),
    ]
    if "absolute" in config.positions:
        theirs = (f"{stem}embeddings.position_embeddings",)
        entries.append(Entry("backbone.pos_embed.weight", theirs))
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            entries += _block(config, stem, stage, block, renamed=renamed)
        if stage + 1 < len(config.depths):
            theirs, down = (
                f"{stem}encoder.layers.{stage}.downsample.",
                f"backbone.stages.{stage + 1}.downsample",
            )
            entries += pair(f"{down}.norm", f"{theirs}norm.")
            entries.append(Entry(f"{down}.reduction.weight", (f"{theirs}reduction.weight",)))
    return entries


def _block(config: AnySwin, stem: str, stage: int, block: int, *, renamed: bool) -> list[Entry]:
    layer = f"{stem}encoder.layers.{stage}.blocks.{block}."
    ours = f"backbone.stages.{stage}.blocks.{block}"
    width = config.widths[stage]
    names = RENAMED if renamed else LEGACY
    rest = names.rest(layer, ours, NORMS)
    if isinstance(config, SwinConfig):
        inside = "attention.relative_position_bias" if renamed else "attention.self"
        bias_table = (f"{layer}{inside}.relative_position_bias_table",)
        return [
            *names.qkv(layer, f"{ours}.attn", width, bias=config.qkv_bias),
            Entry(f"{ours}.attn.positions.table", bias_table),
            *rest,
        ]
    inside, mlp = f"{layer}attention.self.", f"{ours}.attn.positions.mlp"
    cpb = f"{inside}continuous_position_bias_mlp"
    weights = tuple(f"{inside}{name}.weight" for name in ("query", "key", "value"))
    scale = (f"{inside}logit_scale",)
    return [
        Entry(f"{ours}.attn.qkv.weight", weights, Joined((width, width, width))),
        Entry(f"{ours}.attn.q_bias", (f"{inside}query.bias",)),
        Entry(f"{ours}.attn.v_bias", (f"{inside}value.bias",)),
        Entry(f"{ours}.attn.logit_scale", scale, of_heads(config.heads[stage])),
        *pair(f"{mlp}.0", f"{cpb}.0."),
        Entry(f"{mlp}.2.weight", (f"{cpb}.2.weight",)),
        *rest,
    ]


def _config_json(config: AnySwin, described: Described) -> dict[str, object]:
    rows, columns = config.image_size
    family = "Swin" if isinstance(config, SwinConfig) else "Swinv2"
    table: dict[str, object] = {
        "architectures": [
            f"{family}{'ForImageClassification' if described.classifier else 'Model'}"
        ],
        "model_type": config.kind,
        "attention_probs_dropout_prob": 0.0,
        "depths": list(config.depths),
        "drop_path_rate": config.drop_path,
        "embed_dim": config.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.widths[-1],
        "image_size": rows if rows == columns else [rows, columns],
        "layer_norm_eps": config.eps,
        "mlp_ratio": config.mlp_ratio,
        "num_channels": 3,
        "num_heads": list(config.heads),
        "num_layers": len(config.depths),
        "patch_size": config.patch_size,
        "qkv_bias": True,
        "use_absolute_embeddings": "absolute" in config.positions,
        "window_size": config.window,
    }
    if isinstance(config, SwinConfig):
        return table | {"qkv_bias": config.qkv_bias}
    before = config.pretrained_windows or (0,) * len(config.depths)
    return table | {"pretrained_window_sizes": list(before)}
