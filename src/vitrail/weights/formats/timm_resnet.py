"""ResNets of timm and torchvision, whose tensors have the same names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.backbones.resnet import ResNetConfig
from vitrail.errors import CheckpointError
from vitrail.nn.convolutions import doubling
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.resnet_names import torchvision_entries, torchvision_fields
from vitrail.weights.formats.timm_config import TimmConfig
from vitrail.weights.formats.timm_folder import refuses_preprocess, write_folder
from vitrail.weights.formats.timm_reader import TimmReader
from vitrail.weights.mapping import Entry, pair, write_all
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
        table = {**torchvision_fields(self), **known}
        config, variant, _ = settle(ResNetConfig, table, {}, given, self.checkpoint)
        return config, variant

    def entries(self, described: Described) -> list[Entry]:
        """The whole table; files from before 2018 do not count batches."""
        assert isinstance(described.backbone, ResNetConfig)
        counted = any(n.endswith(".num_batches_tracked") for n in self.checkpoint.tensors)
        return resnet_entries(described.backbone, described.classifier, counted=counted)


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
    head = [] if task is None else pair("task.head", "fc.")
    return torchvision_entries(backbone, counted=counted) + head


def refuses_resnet(described: Described) -> str:
    """What a plain ResNet of both libraries cannot be, or an empty string."""
    backbone, task = described.backbone, described.classifier
    assert isinstance(backbone, ResNetConfig)
    faults = {
        "its ResNets begin with a 7x7 convolution": backbone.root.kind != "imagenet",
        "its ResNets have 64 channels in the first of four stages": backbone.width != 64
        or backbone.planes != doubling(64, 4),
        "its ResNets are not dilated": backbone.dilated,
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
    tensors = write_all(resnet_entries(backbone, described.classifier), state)
    args = {"layers": list(backbone.depths), "global_pool": "avg"}
    features = 2048 if wide else 512
    return write_folder(described, "resnet50" if wide else "resnet18", args, features, tensors, out)
