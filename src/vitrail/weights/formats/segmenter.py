"""rstrudel/segmenter: `.pth` files with `variant.yml` beside them.

The encoder is a ViT with timm's names and LayerNorm epsilon 1e-5, whatever it was before; positions
are stretched bilinearly. Heads are in no tensor: they come from `variant.yml`, else from the
published ViT with the same shapes. The decoder has one for every 64 channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.config import build, merge
from vitrail.data.preprocess import HALF, IMAGENET_MEAN, IMAGENET_STD, Fit, Preprocess
from vitrail.data.tiles import Windows
from vitrail.errors import CheckpointError
from vitrail.tasks.joint_segmenters import SegmenterReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import LinearReadout
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.segmenter_classes import CLASSES
from vitrail.weights.formats.segmenter_variant import NAME, read_variant
from vitrail.weights.formats.shapes import agreed, insist, insist_told, outputs, position_grid
from vitrail.weights.mapping import (
    PAIR,
    Derived,
    Entry,
    Joined,
    Reshaped,
    Transposed,
    pair,
    write_all,
)
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

ENCODER, DECODER = "encoder.", "decoder."
HEAD = "task.segmenter"
EPS = 1e-5
HEAD_WIDTH = 64
"""Channels a head of the decoder."""
EXPANSION = 4
"""Hidden width of every MLP over its width."""
ENCODER_CLASSES = 1000
"""Outputs of the encoder's own classifier, which nothing reads."""
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


class SegmenterFile(Reader):
    """Segmenter as its authors publish it."""

    name = "official"
    publisher_licence = "MIT"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.variant = read_variant(checkpoint.path)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """An encoder with patches beside a decoder of masks."""
        names = checkpoint.tensors
        encoder = any(n.startswith(f"{ENCODER}blocks.0.") for n in names)
        decoder = any(n.startswith((f"{DECODER}head.", f"{DECODER}mask_norm.")) for n in names)
        return encoder and decoder and not checkpoint.config

    def describe(self, given: Given) -> Described:
        """Sizes from the shapes, the rest from `variant.yml`."""
        known, unknown = self._encoder(given)
        backbone, variant, notes = settle(ViTConfig, known, unknown, given, self.checkpoint)
        insist_told(self.checkpoint, backbone, known, (*unknown, "heads"))
        if self.variant.root is None:
            notes = (*notes, f"no {NAME} beside the weights: heads and preprocessing as usual")
        return Described(
            backbone=backbone,
            task=self._task(given, backbone.width),
            preprocess=self._preprocess(backbone),
            variant=variant,
            notes=notes,
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        return entries(described)

    def derived(self, described: Described) -> list[Derived]:
        """The encoder's own classifiers, which nothing reads."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        found: list[Derived] = []
        for head in ("head", "head_dist") if config.distillation_token else ("head",):
            names = [f"{ENCODER}{head}.{part}" for part in PAIR]
            there = self.checkpoint.tensors
            shapes = [there[name].shape for name in reversed(names) if name in there]
            count = shapes[0][0] if shapes and shapes[0] else ENCODER_CLASSES
            found += [Derived(names[0], (count, config.width)), Derived(names[1], (count,))]
        return found

    def _encoder(self, given: Given) -> tuple[dict[str, Any], dict[str, str]]:
        """Fields of the backbone that are known, and those that are not with an example."""
        found, told = self.checkpoint, self.variant
        depth = told.whole("net_kwargs", "n_layers") or self.count(f"{ENCODER}blocks.")
        blocks = [f"{ENCODER}blocks.{i}." for i in range(depth)]
        norms = [f"{b}norm{j}.{part}" for b in blocks for j in (1, 2) for part in PAIR]
        width = agreed(found, norms)
        hidden = agreed(found, [f"{b}mlp.fc1.bias" for b in blocks])
        weight = f"{ENCODER}patch_embed.proj.weight"
        shape = insist(found, weight, (width, 3, None, None), f"the width is {width}")
        if shape[2] != shape[3]:
            raise CheckpointError(f"{found.path}: tensor '{weight}': patches that are no squares")
        distilled = f"{ENCODER}dist_token" in found.tensors
        tokens = [f"{ENCODER}{name}" for name in ("cls_token", "dist_token")[: 1 + distilled]]
        for name in (*tokens, f"{ENCODER}pos_embed"):
            insist(found, name, (1, None, width), f"the width is {width}")
        size = told.sides("net_kwargs", "image_size")
        beside = Given(backbone={"image_size": size} if size else {})
        own = given if "image_size" in given.backbone else beside
        grid, _ = position_grid(found, own, shape[2], f"{ENCODER}pos_embed", [len(tokens)], tokens)
        known: dict[str, Any] = {
            "image_size": (grid[0] * shape[2], grid[1] * shape[2]),
            "stem": PatchStemConfig(patch_size=shape[2]).model_dump(),
            "positions": Learned1dConfig(resampling="bilinear").model_dump(),
            "width": width,
            "depth": depth,
            "mlp_ratio": hidden / width,
            "eps": EPS,
            "distillation_token": distilled,
        }
        heads = told.whole("net_kwargs", "n_heads")
        return (known, {"heads": "6"}) if heads is None else ({**known, "heads": heads}, {})

    def _task(self, given: Given, width: int) -> SegmentConfig:
        path, found = self.checkpoint.path, self.checkpoint
        if self.any(f"{DECODER}mask_norm."):
            count = agreed(found, [f"{DECODER}mask_norm.{part}" for part in PAIR])
            readout = self._mask_transformer(width)
        else:
            count = outputs(found, [f"{DECODER}head.{part}" for part in PAIR])
            readout = {"kind": "linear"}
        names = CLASSES.get(self.variant.text("dataset_kwargs", "dataset") or "", ())
        named = dict(enumerate(names)) if len(names) == count else {}
        table = {
            "classes": self.class_names(count, given, named),
            "background": False,
            "readout": readout,
        }
        return build(SegmentConfig, merge(table, given.task), source=str(path))

    def _mask_transformer(self, encoder: int) -> dict[str, Any]:
        found, told = self.checkpoint, self.variant
        depth = told.whole("net_kwargs", "decoder", "n_layers") or self.count(f"{DECODER}blocks.")
        blocks = [f"{DECODER}blocks.{i}." for i in range(max(depth, 1))]
        width = agreed(found, [f"{DECODER}decoder_norm.{part}" for part in PAIR])
        insist(found, f"{DECODER}proj_dec.weight", (width, encoder), "the widths are others")
        return {
            "kind": "segmenter",
            "width": width,
            "depth": depth,
            "heads": max(1, width // HEAD_WIDTH),
            "hidden": agreed(found, [f"{b}mlp.fc1.bias" for b in blocks]),
            "eps": EPS,
        }

    def _preprocess(self, backbone: ViTConfig) -> Preprocess:
        told = self.variant
        colours = told.text("dataset_kwargs", "normalization")
        colours = colours or told.text("net_kwargs", "normalization")
        deit = colours == "deit" or (colours is None and backbone.distillation_token)
        return Preprocess(
            resize=self._windows(backbone),
            interpolation="bilinear",
            antialias=False,
            mean=IMAGENET_MEAN if deit else HALF,
            std=IMAGENET_STD if deit else HALF,
        )

    def _windows(self, backbone: ViTConfig) -> Windows:
        """As the authors evaluate; without a word of it, windows of the model's own size."""
        told = self.variant
        side = told.whole("inference_kwargs", "window_size") or min(backbone.image_size)
        short = told.whole("inference_kwargs", "im_size") or side
        table = {
            "side": side,
            "short": short if short > side else None,
            "stride": told.whole("inference_kwargs", "window_stride") or side,
        }
        return build(Windows, table, source=f"{told.path}: inference_kwargs")


class SegmenterWriter(Writer):
    """A `.pth` and its `variant.yml`, which the authors' code loads."""

    name = "official"
    task = "segment"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the authors' code has no switch for."""
        config, task = described.backbone, described.task
        if not isinstance(config, ViTConfig):
            return f"Segmenter's code has no {config.kind}"
        if not isinstance(task, SegmentConfig) or task.background:
            return "Segmenter has a class for every pixel, and no background beside them"
        return _encoder_differs(config) or _decoder_differs(config, task) or _colours(described)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write both files.

        Raises:
            CheckpointError: another model's `variant.yml` stands in the folder.
        """
        config, task = described.backbone, described.task
        assert isinstance(config, ViTConfig)
        assert isinstance(task, SegmentConfig)
        beside = Path(out).with_name(NAME)
        if beside.exists():
            raise CheckpointError(
                f"{beside}: exists already and belongs to another model; give --out in a folder of "
                "its own"
            )
        tensors = write_all(entries(described), state)
        for head in ("head", "head_dist") if config.distillation_token else ("head",):
            tensors[f"{ENCODER}{head}.weight"] = torch.zeros(ENCODER_CLASSES, config.width)
            tensors[f"{ENCODER}{head}.bias"] = torch.zeros(ENCODER_CLASSES)
        file = io.BytesIO()
        torch.save({"model": tensors, "n_cls": len(task.classes)}, file)
        write_atomically(Path(out), file.getvalue())
        text = yaml.safe_dump(_variant_table(described), sort_keys=True)
        write_atomically(beside, text.encode())
        return [out, str(beside)]


def entries(described: Described) -> list[Entry]:
    """The table; it follows from the description alone."""
    config, task = described.backbone, described.task
    assert isinstance(config, ViTConfig)
    assert isinstance(task, SegmentConfig)
    leading = ("cls_token", "dist_token")[: 1 + config.distillation_token]
    joined = Joined((1,) * len(leading), axis=1)
    table = [
        Entry("backbone.prefix_token", tuple(f"{ENCODER}{name}" for name in leading), joined),
        Entry("backbone.pos_embed.weight", (f"{ENCODER}pos_embed",)),
        *pair("backbone.patch_embed.proj", f"{ENCODER}patch_embed.proj."),
        *pair("backbone.norm", f"{ENCODER}norm."),
        *_blocks("backbone.blocks", f"{ENCODER}blocks", config.depth),
    ]
    if isinstance(task.readout, LinearReadout):
        count = len(task.classes)
        layout = Reshaped((count, config.width, 1, 1), (count, config.width))
        return table + pair(f"{HEAD}.head", f"{DECODER}head.", layout)
    assert isinstance(task.readout, SegmenterReadout)
    return [
        *table,
        *pair(f"{HEAD}.project", f"{DECODER}proj_dec."),
        Entry(f"{HEAD}.queries", (f"{DECODER}cls_emb",)),
        *_blocks(f"{HEAD}.blocks", f"{DECODER}blocks", task.readout.depth),
        *pair(f"{HEAD}.norm", f"{DECODER}decoder_norm."),
        Entry(f"{HEAD}.patch_proj.weight", (f"{DECODER}proj_patch",), Transposed()),
        Entry(f"{HEAD}.query_proj.weight", (f"{DECODER}proj_classes",), Transposed()),
        *pair(f"{HEAD}.mask_norm", f"{DECODER}mask_norm."),
    ]


def _blocks(ours: str, theirs: str, depth: int) -> list[Entry]:
    return [
        entry
        for i in range(depth)
        for layer in LAYERS
        for entry in pair(f"{ours}.{i}.{layer}", f"{theirs}.{i}.{layer}.")
    ]


def _encoder_differs(config: ViTConfig) -> str:
    """Why the authors' ViT is not like this one, or an empty string."""
    wanted = ViTConfig(
        image_size=config.image_size,
        stem=config.stem,
        positions=Learned1dConfig(resampling="bilinear"),
        mlp_ratio=EXPANSION,
        eps=EPS,
        **config.model_dump(include={"width", "depth", "heads", "drop_path", "distillation_token"}),
    ).model_dump()
    own = config.model_dump()
    for positions in (own["positions"], wanted["positions"]):
        positions.pop("start", None)
    faults = [f"{key} is {own[key]}" for key in wanted if own[key] != wanted[key]]
    if not isinstance(config.stem, PatchStemConfig):
        faults.append(f"stem is {config.stem.kind}")
    if any(side % config.stride for side in config.image_size):
        faults.append(f"image_size {config.image_size} is no multiple of the patch")
    return "; ".join(faults)


def _decoder_differs(config: ViTConfig, task: SegmentConfig) -> str:
    match task.readout:
        case LinearReadout(logits="cell"):
            return ""
        case SegmenterReadout() as readout:
            width = config.width
            wanted = (width, max(1, width // HEAD_WIDTH), EXPANSION * width, EPS)
            own = (readout.width, readout.heads, readout.hidden, readout.eps)
            return "" if own == wanted else f"the decoder is {own}, there it would be {wanted}"
        case readout:
            return f"Segmenter has no readout '{readout.kind}'"


def _colours(described: Described) -> str:
    mean, std = described.preprocess.mean, described.preprocess.std
    known = (HALF, HALF), (IMAGENET_MEAN, IMAGENET_STD)
    return "" if (mean, std) in known else "mean and std are neither 0.5 nor those of ImageNet"


def _variant_table(described: Described) -> dict[str, Any]:
    config, task, colours = described.backbone, described.task, described.preprocess.mean
    assert isinstance(config, ViTConfig)
    assert isinstance(task, SegmentConfig)
    normalization = "vit" if colours == HALF else "deit"
    decoder: dict[str, Any] = {"name": "linear"}
    if isinstance(task.readout, SegmenterReadout):
        decoder = {
            "name": "mask_transformer",
            "n_layers": task.readout.depth,
            "drop_path_rate": 0.0,
            "dropout": 0.1,
        }
    names = {classes: name for name, classes in CLASSES.items()}
    side = config.image_size[0]
    rule = described.preprocess.resize
    windows = rule if isinstance(rule, Windows) else Windows(side=side)
    if isinstance(rule, Fit):
        windows = Windows(side=min(side, rule.short), short=rule.short)
    return {
        "dataset_kwargs": {
            "dataset": names.get(task.classes, "unknown"),
            "normalization": normalization,
        },
        "inference_kwargs": {
            "im_size": windows.short or windows.side,
            "window_size": windows.side,
            "window_stride": windows.stride or windows.side,
        },
        "net_kwargs": {
            "backbone": described.variant or "vit_base_patch16_384",
            "d_model": config.width,
            "decoder": decoder,
            "distilled": config.distillation_token,
            "drop_path_rate": config.drop_path,
            "dropout": 0.0,
            "image_size": list(config.image_size),
            "n_cls": len(task.classes),
            "n_heads": config.heads,
            "n_layers": config.depth,
            "normalization": normalization,
            "patch_size": config.stride,
        },
    }
