"""Hugging Face `eomt` (transformers `EomtForUniversalSegmentation`).

One list of blocks: the last `num_blocks` of them have the queries in front. Here the first ones are
a ViT without its last norm, and the rest is the head. `attn_mask_probs` is no parameter, but it
decides whether queries see their own masks alone, and becomes a part of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.config import build, merge
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.joint_segmenters import EomtReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf import HfReader, LayerNames, write_folder
from vitrail.weights.formats.hf_dinov2 import gated_hidden
from vitrail.weights.formats.hf_eomt_processor import (
    check_eomt_processor,
    cuts_windows,
    eomt_processor_json,
    read_eomt_processor,
)
from vitrail.weights.formats.hf_settings import LARGEST, Settings
from vitrail.weights.formats.shapes import outputs
from vitrail.weights.mapping import Derived, Entry, Joined, Reshaped, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

NAMES = LayerNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    out="attention.out_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)
HEAD = "task.segmenter"
NO_OBJECT = 0.1
"""Weight of "no segment" in their loss."""

COCO_THINGS, COCO_PANOPTIC, ADE_PANOPTIC = 80, 133, 150
"""Numbers of classes by which published models are told: COCO's things come first of all."""


class HfEomtReader(HfReader):
    """An `eomt` folder."""

    types: ClassVar[tuple[str, ...]] = ("eomt",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.settings.table = {"image_size": 640, **self.settings.table}

    def describe(self, given: Given) -> Described:
        """The model, from `config.json`, the processor and the chances of masks."""
        settings = self.settings
        patch, image_size, notes = self.patch_and_image(16)
        depth, last = settings.whole("num_hidden_layers", 24), settings.whole("num_blocks", 4)
        self.insist_layers("layers", depth, "num_hidden_layers")
        if last >= depth:
            raise settings.wrong("num_blocks", f"fewer than num_hidden_layers = {depth}")
        shared = self._shared()
        known = {
            **shared,
            "image_size": image_size,
            "stem": {"kind": "patch", "patch_size": patch},
            "positions": {"kind": "learned_1d", "prefix": False},
            "width": settings.whole("hidden_size", 1024),
            "depth": depth - last,
            "registers": settings.whole("num_register_tokens", 4, least=0),
            "final_norm": False,
        }
        backbone, variant, more = settle(ViTConfig, known, {}, given, self.checkpoint)
        readout = {
            "kind": "eomt",
            **shared,
            "queries": settings.whole("num_queries", 200),
            "depth": last,
            "head_activation": self.activation(),
            "upscale": settings.whole("num_upscale_blocks", 2, least=0),
            "mask_probs": self._chances(last),
        }
        task, told = self._task(readout, given)
        preprocess, prepared = self.preprocess(image_size)
        return Described(
            backbone=backbone,
            task=task,
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more, *told, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        joined = self.any(f"{self.stem}layers.0.mlp.weights_in.")
        return table(described, self.stem, joined=joined)

    def derived(self, described: Described) -> list[Derived]:
        """The chances, which are in the configuration, and weights of their loss."""
        task, readout = _parts(described)
        weights = torch.ones(len(task.classes) + 1)
        weights[-1] = self.settings.number("no_object_weight", NO_OBJECT)
        return [
            Derived(f"{self.stem}attn_mask_probs", (readout.depth,), torch.tensor(readout.chances)),
            Derived(f"{self.stem}criterion.empty_weight", tuple(weights.shape), weights),
        ]

    def preprocess(self, image_size: tuple[int, int]) -> tuple[Preprocess, tuple[str, ...]]:
        """From `preprocessor_config.json`, else as its class does at the model's own size."""
        patch = self.settings.side_or_sides("patch_size", 16)[0]
        processor = self._processor()
        if self.checkpoint.preprocessor:
            return read_eomt_processor(processor, patch)
        processor.table = {"size": {"shortest_edge": image_size[0], "longest_edge": image_size[1]}}
        note = "no preprocessor_config.json: images are prepared as EomtImageProcessor does"
        preprocess, notes = read_eomt_processor(processor, patch)
        return preprocess, (note, *notes)

    def _processor(self) -> Settings:
        source = f"{self.checkpoint.path}: preprocessor_config.json"
        return Settings(source, self.checkpoint.preprocessor)

    def _shared(self) -> dict[str, Any]:
        """What all blocks have alike."""
        settings, width = self.settings, self.settings.whole("hidden_size", 1024)
        gated = settings.flag("use_swiglu_ffn", default=False)
        hidden = int(width * settings.number("mlp_ratio", 4.0, most=1e3))
        return {
            "heads": settings.whole("num_attention_heads", 16),
            "mlp_ratio": (gated_hidden(hidden) if gated else hidden) / width,
            "activation": "swiglu" if gated else self.activation(),
            "eps": settings.number("layer_norm_eps", 1e-6, most=1.0),
            "layer_scale": settings.number("layerscale_value", 1.0),
        }

    def _chances(self, blocks: int) -> tuple[float, ...]:
        name = f"{self.stem}attn_mask_probs"
        if self.shape(name, 1) != (blocks,):
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor '{name}' has {self.shape(name)[0]} values for "
                f"num_blocks = {blocks}"
            )
        chances = self.checkpoint.tensors[name].read().float()
        if not bool(((chances >= 0) & (chances <= 1)).all()):
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor '{name}' holds no probabilities from 0 to 1"
            )
        return tuple(float(chance) for chance in chances)

    def _task(
        self, readout: Mapping[str, Any], given: Given
    ) -> tuple[SegmentConfig, tuple[str, ...]]:
        path, head = self.checkpoint.path, f"{self.stem}class_predictor"
        count = outputs(self.checkpoint, (f"{head}.weight", f"{head}.bias")) - 1
        if not 1 <= count <= LARGEST:
            raise CheckpointError(f"{path}: tensor '{head}.bias' names {count} classes")
        notes: tuple[str, ...] = ()
        fields: dict[str, Any] = {"answer": "instance"}
        if cuts_windows(self._processor()):
            fields = {"answer": "semantic"}
        elif count == COCO_PANOPTIC:
            things = tuple(i < COCO_THINGS for i in range(count))
            fields = {"answer": "panoptic", "things": things}
        elif count == ADE_PANOPTIC:
            fields = {"answer": "panoptic"}
        elif count != COCO_THINGS:
            notes = (
                "the files do not tell what is answered; objects are taken, "
                "--set task.answer=semantic or panoptic gives others",
            )
        table = {
            "classes": self.class_names(count, given, self.labels()),
            "background": fields["answer"] != "semantic",
            "readout": readout,
            **fields,
        }
        return build(SegmentConfig, merge(table, given.task), source=str(path)), notes


class HfEomtWriter(Writer):
    """An `eomt` folder that transformers itself loads."""

    name = "hf"
    task = "segment"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the family cannot express."""
        config, task = described.backbone, described.task
        if not isinstance(task, SegmentConfig) or not isinstance(task.readout, EomtReadout):
            return "Hugging Face has no such head for segmentation but EoMT's"
        if not isinstance(config, ViTConfig):
            return f"family '{config.kind}' is not EoMT's"
        return _differs(config, task.readout) or check_eomt_processor(
            described.preprocess, config.stride
        )

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        task, readout = _parts(described)
        tensors = write_all(table(described, "", joined=False), state)
        tensors["attn_mask_probs"] = torch.tensor(readout.chances)
        tensors["criterion.empty_weight"] = torch.ones(len(task.classes) + 1)
        tensors["criterion.empty_weight"][-1] = NO_OBJECT
        processor = eomt_processor_json(described.preprocess)
        return write_folder(out, _config_json(described), described, tensors, processor)


def table(described: Described, stem: str, *, joined: bool) -> list[Entry]:
    """Which tensor is which.

    Args:
        described: The model.
        stem: What leads their names.
        joined: Whether gate and value of a gated MLP are one matrix (transformers 4.x).
    """
    config, (_, readout) = described.backbone, _parts(described)
    assert isinstance(config, ViTConfig)
    width, places = config.width, config.grid[0] * config.grid[1]
    tokens = (f"{stem}embeddings.cls_token", f"{stem}embeddings.register_tokens")
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}embeddings.patch_embeddings.projection."),
        Entry("backbone.prefix_token", tokens, Joined((1, config.registers), axis=1)),
        Entry(
            "backbone.pos_embed.weight",
            (f"{stem}embeddings.position_embeddings.weight",),
            Reshaped((1, places, width), (places, width)),
        ),
        Entry(
            f"{HEAD}.queries",
            (f"{stem}query.weight",),
            Reshaped((1, readout.queries, width), (readout.queries, width)),
        ),
    ]
    for i in range(config.depth + readout.depth):
        own = i - config.depth
        ours = f"backbone.blocks.{i}" if own < 0 else f"{HEAD}.blocks.{own}"
        entries += _block(f"{stem}layers.{i}.", ours, config, joined=joined)
    for i in range(readout.upscale):
        entries += _upscale(f"{stem}upscale_block.block.{i}.", f"{HEAD}.upscale.{i}")
    for layer in ("fc1", "fc2", "fc3"):
        entries += pair(f"{HEAD}.mask_head.{layer}", f"{stem}mask_head.{layer}.")
    entries += pair(f"{HEAD}.norm", f"{stem}layernorm.")
    return entries + pair(f"{HEAD}.classify", f"{stem}class_predictor.")


def _block(layer: str, ours: str, config: ViTConfig, *, joined: bool) -> list[Entry]:
    entries = NAMES.qkv(layer, f"{ours}.attn", config.width, bias=True)
    rest = NAMES.rest(layer, ours, ("norm1", "norm2"))
    if config.activation == "swiglu":
        rest = [entry for entry in rest if ".mlp." not in entry.ours]
        rest += _gated(layer, ours, config, joined=joined)
    gammas = [Entry(f"{ours}.ls{j}.gamma", (f"{layer}layer_scale{j}.lambda1",)) for j in (1, 2)]
    return [*entries, *rest, *gammas]


def _gated(layer: str, ours: str, config: ViTConfig, *, joined: bool) -> list[Entry]:
    if joined:
        first = pair(f"{ours}.mlp.fc1", f"{layer}mlp.weights_in.")
        return first + pair(f"{ours}.mlp.fc2", f"{layer}mlp.weights_out.")
    hidden = round(config.width * config.mlp_ratio)
    first = [
        Entry(
            f"{ours}.mlp.fc1.{kind}",
            (f"{layer}mlp.gate_proj.{kind}", f"{layer}mlp.up_proj.{kind}"),
            Joined((hidden, hidden)),
        )
        for kind in ("weight", "bias")
    ]
    return first + pair(f"{ours}.mlp.fc2", f"{layer}mlp.down_proj.")


def _upscale(block: str, ours: str) -> list[Entry]:
    return [
        *pair(f"{ours}.enlarge", f"{block}conv1."),
        Entry(f"{ours}.conv.weight", (f"{block}conv2.weight",)),
        *pair(f"{ours}.norm", f"{block}layernorm2d."),
    ]


def _parts(described: Described) -> tuple[SegmentConfig, EomtReadout]:
    task = described.task
    assert isinstance(task, SegmentConfig)
    assert isinstance(task.readout, EomtReadout)
    return task, task.readout


def _differs(config: ViTConfig, readout: EomtReadout) -> str:
    """Why backbone and head are not one list of blocks of theirs, or an empty string."""
    rows, columns = config.image_size
    alike = (config.heads, config.mlp_ratio, config.activation, config.eps)
    tokens = config.class_token and not (config.distillation_token or config.detection_tokens)
    checks = (
        (isinstance(config.stem, PatchStemConfig), f"stem '{config.stem.kind}'"),
        (_after_patches(config), f"positions '{config.positions.kind}' like these"),
        (config.norm == "pre" and not config.qk_norm, "norms elsewhere than before the branches"),
        (not config.final_norm, "norm between the blocks before and after the queries come in"),
        (config.qkv_bias, "attention without a bias"),
        (config.layer_scale is not None and readout.layer_scale is not None, "lack of LayerScale"),
        (tokens and config.pool == "class", "tokens but class token and registers"),
        (rows == columns and rows % config.stride == 0, f"images of {rows} x {columns} pixels"),
        (
            alike == (readout.heads, readout.mlp_ratio, readout.activation, readout.eps),
            "blocks that differ from one another",
        ),
        (
            config.activation in ("swiglu", readout.head_activation),
            "other activation in the head than in the blocks",
        ),
        (_ratio(config) is not None, f"mlp_ratio {config.mlp_ratio:g}"),
    )
    lacks = next((lacks for fine, lacks in checks if not fine), "")
    return f"EoMT in Hugging Face has no {lacks}" if lacks else ""


def _after_patches(config: ViTConfig) -> bool:
    learned = isinstance(config.positions, Learned1dConfig) and not config.positions.prefix
    return learned and config.positions_in == "stem"


def _ratio(config: ViTConfig) -> int | None:
    """The `mlp_ratio` of theirs, a whole number, that leads to this MLP."""
    gated = config.activation == "swiglu"
    for ratio in range(1, 65):
        hidden = ratio * config.width
        hidden = gated_hidden(hidden) if gated else hidden
        if isclose(hidden, config.width * config.mlp_ratio, abs_tol=0.5):
            return ratio
    return None


def _config_json(described: Described) -> dict[str, object]:
    config, (_, readout) = described.backbone, _parts(described)
    assert isinstance(config, ViTConfig)
    return {
        "architectures": ["EomtForUniversalSegmentation"],
        "model_type": "eomt",
        "hidden_act": "gelu_pytorch_tanh" if readout.head_activation == "gelu_tanh" else "gelu",
        "hidden_size": config.width,
        "image_size": config.image_size[0],
        "layer_norm_eps": config.eps,
        "layerscale_value": config.layer_scale,
        "mlp_ratio": _ratio(config),
        "no_object_weight": NO_OBJECT,
        "num_attention_heads": config.heads,
        "num_blocks": readout.depth,
        "num_channels": 3,
        "num_hidden_layers": config.depth + readout.depth,
        "num_queries": readout.queries,
        "num_register_tokens": config.registers,
        "num_upscale_blocks": readout.upscale,
        "patch_size": config.stride,
        "use_swiglu_ffn": config.activation == "swiglu",
    }
