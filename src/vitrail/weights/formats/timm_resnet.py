"""ResNets of timm and torchvision, whose tensors have the same names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.backbones.resnet import ResNetConfig
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.timm_config import TimmConfig
from vitrail.weights.formats.timm_folder import refuses_preprocess, write_folder
from vitrail.weights.formats.timm_reader import TimmReader
from vitrail.weights.mapping import Absent, Entry, pair, write_all
from vitrail.weights.reader import Described, Given, Reader, settle

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet26": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Plain ResNets; others of timm's have parts without weights, which no tensor betrays."""

NEUTRAL: dict[str, Any] = {
    "global_pool": "avg",
    "output_stride": 32,
    "cardinality": 1,
    "base_width": 64,
    "stem_width": 64,
    "stem_type": "",
    "replace_stem_pool": False,
    "avg_down": False,
    "down_kernel_size": 1,
    "act_layer": "relu",
}


class ResNetReader(Reader):
    """What both libraries' ResNets have in common."""

    def backbone(self, given: Given, known: Mapping[str, Any]) -> tuple[ResNetConfig, str]:
        """The configuration, from shapes and what is known beside them, and its variant."""
        bottleneck = any(".conv3." in n or ".bn3." in n for n in self.checkpoint.tensors)
        stages = 0
        while self.any(f"layer{stages + 1}."):
            stages += 1
        table = {
            "kind": "resnet",
            "block": "bottleneck" if bottleneck else "basic",
            "depths": tuple(self.count(f"layer{stage + 1}.") for stage in range(stages)),
            "width": self.shape("bn1.bias", 1)[0],
            **known,
        }
        config, variant, _ = settle(ResNetConfig, table, {}, given, self.checkpoint)
        return config, variant

    def entries(self, described: Described) -> list[Entry]:
        """The whole table; files from before 2018 do not count batches."""
        assert isinstance(described.backbone, ResNetConfig)
        counted = any(n.endswith(".num_batches_tracked") for n in self.checkpoint.tensors)
        return resnet_entries(described.backbone, described.task, counted=counted)


class TimmResNetReader(ResNetReader, TimmReader):
    """timm's plain ResNets."""

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Names of a ResNet, and `config.json` or safetensors around them."""
        own = "architecture" in checkpoint.config or checkpoint.container == "safetensors"
        return own and "model_type" not in checkpoint.config and has_resnet_names(checkpoint)

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` where there is one, else from shapes."""
        config = TimmConfig.of(self.checkpoint)
        if config.architecture and config.architecture not in DEPTHS:
            raise CheckpointError(
                f"{config.path}: architecture '{config.architecture}' is not supported; "
                f"of timm's ResNets {', '.join(DEPTHS)} are"
            )
        if config.architecture:
            config = config.with_defaults({"layers": DEPTHS[config.architecture]})
        config.insist({"layers", "in_chans", "num_classes"}, NEUTRAL)
        size = config.image_size() or (224, 224)
        depths = config.wholes("layers")
        known = {"image_size": size} | ({} if depths is None else {"depths": depths})
        backbone, variant = self.backbone(given, known)
        return self.finish(config, (backbone, variant, ()), given, "fc.")


def has_resnet_names(checkpoint: Checkpoint) -> bool:
    """Whether the first convolution and stages are called as in torchvision."""
    starts = ("conv1.", "bn1.", "layer1.0.")
    return sum(any(n.startswith(s) for n in checkpoint.tensors) for s in starts) >= 2


def resnet_entries(
    backbone: ResNetConfig, task: ClassifyConfig | None, *, counted: bool = True
) -> list[Entry]:
    """Which tensor is which of ours.

    Args:
        backbone: The model.
        task: Its head.
        counted: Whether the file has `num_batches_tracked`, which inference never uses.
    """
    trunk = "backbone.trunk."
    entries = [
        Entry(f"{trunk}root.conv.weight", ("conv1.weight",)),
        *_norm(f"{trunk}root.norm", "bn1.", counted=counted),
    ]
    convolutions = "123" if backbone.block == "bottleneck" else "12"
    for stage, depth in enumerate(backbone.depths):
        for unit in range(depth):
            ours, theirs = f"{trunk}stages.{stage}.{unit}.", f"layer{stage + 1}.{unit}."
            for n in convolutions:
                entries.append(Entry(f"{ours}conv{n}.weight", (f"{theirs}conv{n}.weight",)))
                entries += _norm(f"{ours}norm{n}", f"{theirs}bn{n}.", counted=counted)
            if unit == 0 and (stage > 0 or backbone.block == "bottleneck"):
                short = f"{ours}downsample.", f"{theirs}downsample."
                entries.append(Entry(f"{short[0]}0.weight", (f"{short[1]}0.weight",)))
                entries += _norm(f"{short[0]}1", f"{short[1]}1.", counted=counted)
    if task is not None:
        entries += pair("task.head", "fc.")
    return entries


def _norm(ours: str, theirs: str, *, counted: bool) -> list[Entry]:
    """One BatchNorm."""
    statistics = ("running_mean", "running_var")
    batches = f"{ours}.num_batches_tracked"
    return [
        *pair(ours, theirs),
        *(Entry(f"{ours}.{n}", (f"{theirs}{n}",)) for n in statistics),
        Entry(batches, (f"{theirs}num_batches_tracked",))
        if counted
        else Entry(batches, (), Absent((), torch.int64)),
    ]


def refuses_resnet(described: Described) -> str:
    """What a plain ResNet of both libraries cannot be, or an empty string."""
    backbone, task = described.backbone, described.task
    assert isinstance(backbone, ResNetConfig)
    faults = {
        "its ResNets begin with a 7x7 convolution": backbone.root.kind != "imagenet",
        "its ResNets have 64 channels in the first of four stages": backbone.width != 64
        or len(backbone.depths) != 4,
        "it has no layer before the head": task is not None and task.hidden is not None,
    }
    return next((fault for fault, holds in faults.items() if holds), "")


def refuses_timm_resnet(described: Described) -> str:
    """The same, and how images are prepared."""
    return refuses_resnet(described) or refuses_preprocess(described.preprocess)


def write_resnet(described: Described, state: Mapping[str, Tensor], out: Path) -> list[str]:
    """A folder that timm loads."""
    backbone = described.backbone
    assert isinstance(backbone, ResNetConfig)
    wide = backbone.block == "bottleneck"
    tensors = write_all(resnet_entries(backbone, described.task), state)
    args = {"layers": list(backbone.depths), "global_pool": "avg"}
    features = 2048 if wide else 512
    return write_folder(described, "resnet50" if wide else "resnet18", args, features, tensors, out)
