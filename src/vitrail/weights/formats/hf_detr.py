"""Hugging Face `detr` (transformers `DetrForObjectDetection`).

LayerNorm and the frozen BatchNorm have epsilon 1e-5. The backbone is a ResNet of timm's, whose
sizes its tensors tell, or of Hugging Face itself, whose sizes are in `backbone_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor

from vitrail.backbones.resnet import ResNetConfig
from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import (
    DenseConfig,
    LearnedConfig,
    LinearProjectorConfig,
    QueryReadout,
)
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.detr_names import DetrNames
from vitrail.weights.formats.hf import write_folder
from vitrail.weights.formats.hf_detection import (
    LONG,
    SHORT,
    HfDetectorReader,
    check_detection_processor,
    detection_processor_json,
    usual_size,
)
from vitrail.weights.formats.hf_settings import Settings
from vitrail.weights.formats.resnet_names import (
    hf_entries,
    torchvision_entries,
    torchvision_fields,
    unless_doubled,
)
from vitrail.weights.formats.timm_resnet import DEPTHS
from vitrail.weights.mapping import Entry, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

HEAD = "class_labels_classifier"


class HfDetrReader(HfDetectorReader):
    """A `detr` folder with the heads of a detector."""

    types: ClassVar[tuple[str, ...]] = ("detr",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.renamed = any(".self_attn.o_proj." in name for name in checkpoint.tensors)
        inner = (
            "" if self.renamed and not self.any("model.backbone.conv_encoder.") else "conv_encoder."
        )
        self.trunk = f"model.backbone.{inner}model."
        self.own_resnet = self.any(f"{self.trunk}embedder.", f"{self.trunk}encoder.")
        self.counted = any(n.endswith("num_batches_tracked") for n in checkpoint.tensors)

    def describe(self, given: Given) -> Described:
        """The model, from `config.json`; a ResNet of timm's from its shapes."""
        settings = self.settings
        settings.insist("num_channels", wanted=3, why="images have three colours")
        settings.insist("position_embedding_type", wanted="sine", why="places are told by sines")
        settings.insist("activation_function", wanted="relu", why="DETR's MLPs have a ReLU")
        settings.insist(
            "auxiliary_loss", wanted=False, why="transformers then norms every layer's result twice"
        )
        preprocess, prepared = self.preprocess((SHORT, LONG))
        known = self._own_resnet() if self.own_resnet else self._timm_resnet()
        known = {"image_size": usual_size(preprocess), **known}
        backbone, variant, notes = settle(ResNetConfig, known, {}, given, self.checkpoint)
        fields = {
            "readout": self._readout(),
            "scoring": "softmax",
            "max_detections": settings.whole("num_queries", 100),
        }
        return Described(
            backbone=backbone,
            task=self.detector(fields, HEAD, given),
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config, task = described.backbone, described.task
        assert isinstance(config, ResNetConfig)
        assert isinstance(task, DetectConfig)
        assert isinstance(task.readout, QueryReadout)
        named = hf_entries if self.own_resnet else torchvision_entries
        table = named(config, self.trunk, counted=self.counted)
        return table + hf_names(renamed=self.renamed).entries(task.readout)

    def _readout(self) -> dict[str, Any]:
        whole = self.settings.whole
        for part in ("encoder", "decoder"):
            depth, stem = whole(f"{part}_layers", 6, least=0), f"model.{part}.layers."
            if self.count(stem) < depth:
                raise CheckpointError(
                    f"{self.settings.source}: {part}_layers = {depth}, but the weights have "
                    f"{self.count(stem)}: tensors of '{stem}{self.count(stem)}' are missing"
                )
        heads, depth = whole("decoder_attention_heads", 8), whole("encoder_layers", 6, least=0)
        encoder = {
            "depth": depth,
            "heads": whole("encoder_attention_heads", 8),
            "hidden": whole("encoder_ffn_dim", 2048),
        }
        return detr_readout(
            width=whole("d_model", 256),
            depth=whole("decoder_layers", 6),
            heads=heads,
            hidden=whole("decoder_ffn_dim", 2048),
            queries=whole("num_queries", 100),
            encoder=encoder if depth else None,
        )

    def _own_resnet(self) -> dict[str, Any]:
        """Of Hugging Face itself; its class has defaults, too."""
        inner = self._inner("backbone_config")
        for name in ("downsample_in_first_stage", "downsample_in_bottleneck"):
            inner.insist(name, wanted=False, why="a ResNet halves maps where torchvision's does")
        inner.insist("hidden_act", wanted="relu", why="a ResNet has ReLUs")
        inner.insist("num_channels", wanted=3, why="images have three colours")
        block = inner.text("layer_type", "bottleneck")
        if block not in ("basic", "bottleneck"):
            raise inner.wrong("layer_type", "'basic' or 'bottleneck'")
        width = inner.whole("embedding_size", 64)
        sizes = inner.wholes("hidden_sizes", (256, 512, 1024, 2048))
        factor = 4 if block == "bottleneck" else 1
        if any(size % factor for size in sizes):
            raise inner.wrong("hidden_sizes", "multiples of 4")
        depths = inner.wholes("depths", (3, 4, 6, 3))
        last = f"stage{len(depths)}"
        if inner.table.get("out_features", [last]) not in ([last], None):
            raise inner.wrong("out_features", f"['{last}'], the last map,")
        return {
            "kind": "resnet",
            "block": block,
            "depths": depths,
            "width": width,
            "widths": unless_doubled(width, tuple(size // factor for size in sizes)),
            "dilated": False,
        }

    def _timm_resnet(self) -> dict[str, Any]:
        inner = self._inner("backbone_config")
        name = inner.text("backbone", self.settings.text("backbone", "resnet50"))
        name = name.split(".", maxsplit=1)[0]
        if name not in DEPTHS:
            raise CheckpointError(
                f"{self.settings.source}: backbone = '{name}' is not supported; of timm's "
                f"{', '.join(DEPTHS)} are"
            )
        dilated = self.settings.flag("dilation", default=False)
        for extra in (inner, self._inner("backbone_kwargs")):
            stride = extra.whole("output_stride", 32)
            if stride not in (16, 32):
                raise extra.wrong("output_stride", "16 or 32")
            dilated = dilated or stride == 16
        return {**torchvision_fields(self, self.trunk), "dilated": dilated}

    def _inner(self, name: str) -> Settings:
        """A table within `config.json`."""
        inner = self.settings.table.get(name)
        table: Mapping[str, Any] = {}
        if isinstance(inner, Mapping):
            table = cast("Mapping[str, Any]", inner)
        return Settings(f"{self.settings.source}: {name}", table)


class HfDetrWriter(Writer):
    """A `detr` folder that transformers itself loads, with names of its own ResNet."""

    name = "hf"
    task = "detect"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the family cannot express."""
        reason = refuses_detr(described)
        if reason:
            return reason
        assert isinstance(described.backbone, ResNetConfig)
        if described.backbone.dilated:
            return "Hugging Face's own ResNet is not dilated"
        return check_detection_processor(described.preprocess)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        config, task = described.backbone, described.task
        assert isinstance(config, ResNetConfig)
        assert isinstance(task, DetectConfig)
        assert isinstance(task.readout, QueryReadout)
        table = hf_entries(config, "model.backbone.conv_encoder.model.", counted=False)
        table += hf_names(renamed=False).entries(task.readout)
        processor = detection_processor_json(described.preprocess, "DetrImageProcessor")
        tensors = write_all(table, state)
        return write_folder(out, _config_json(config, task.readout), described, tensors, processor)


def detr_readout(
    *,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    queries: int,
    encoder: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Fields of the readout that makes a DETR."""
    return {
        "kind": "queries",
        "projector": {"kind": "linear"},
        "encoder": encoder,
        "queries": {"kind": "learned", "count": queries},
        "attention": {"kind": "dense", "heads": heads},
        "width": width,
        "depth": depth,
        "heads": heads,
        "hidden": hidden,
    }


def refuses_detr(described: Described) -> str:
    """Why a detector is no DETR on a ResNet, or an empty string."""
    config, task = described.backbone, described.task
    if not isinstance(config, ResNetConfig):
        return f"DETR reads a ResNet, this is a '{config.kind}'"
    if not isinstance(task, DetectConfig) or not isinstance(task.readout, QueryReadout):
        return "DETR has a decoder of queries"
    readout = task.readout
    faults = {
        "its ResNet begins with a 7x7 convolution": config.root.kind != "imagenet",
        "DETR has a 1x1 convolution before its encoder": not isinstance(
            readout.projector, LinearProjectorConfig
        ),
        "DETR's queries are learned": not isinstance(readout.queries, LearnedConfig),
        "DETR's queries read all cells": not isinstance(readout.attention, DenseConfig),
        "DETR has as many heads among the queries as to the map": readout.attention.heads
        != readout.heads,
        "DETR scores with a softmax": task.scoring != "softmax",
    }
    return next((fault for fault, holds in faults.items() if holds), "")


def hf_names(*, renamed: bool) -> DetrNames:
    """Hugging Face's, as files have them, or `renamed` as in the memory of transformers 5.x."""
    out = "o_proj" if renamed else "out_proj"

    def attention(ours: str, theirs: str) -> list[Entry]:
        maps = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "proj": out}
        return [e for o, t in maps.items() for e in pair(f"{ours}.{o}", f"{theirs}{t}.")]

    inner = "mlp." if renamed else ""
    return DetrNames(
        encoder="model.encoder.layers.",
        decoder="model.decoder.layers.",
        norm="model.decoder.layernorm.",
        own="self_attn.",
        cross="encoder_attn.",
        norms=("self_attn_layer_norm.", "encoder_attn_layer_norm.", "final_layer_norm."),
        encoder_end="final_layer_norm.",
        fc1=f"{inner}fc1.",
        fc2=f"{inner}fc2.",
        project="model.input_projection.",
        queries="model.query_position_embeddings.weight",
        classify=f"{HEAD}.",
        locate="bbox_predictor.layers.",
        attention=attention,
    )


def _config_json(config: ResNetConfig, readout: QueryReadout) -> dict[str, Any]:
    encoder = readout.encoder
    return {
        "architectures": ["DetrForObjectDetection"],
        "model_type": "detr",
        "activation_function": "relu",
        "backbone": None,
        "backbone_config": {
            "model_type": "resnet",
            "depths": list(config.depths),
            "embedding_size": config.width,
            "hidden_sizes": list(config.channels[1:]),
            "layer_type": config.block,
            "out_features": [f"stage{len(config.depths)}"],
        },
        "d_model": readout.width,
        "decoder_attention_heads": readout.heads,
        "decoder_ffn_dim": readout.hidden,
        "decoder_layers": readout.depth,
        "encoder_attention_heads": encoder.heads if encoder else readout.heads,
        "encoder_ffn_dim": encoder.hidden if encoder else readout.hidden,
        "encoder_layers": encoder.depth if encoder else 0,
        "is_encoder_decoder": True,
        "num_queries": readout.queries.count,
        "use_pretrained_backbone": False,
        "use_timm_backbone": False,
    }
