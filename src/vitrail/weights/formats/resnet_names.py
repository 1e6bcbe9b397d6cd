"""ResNets as torchvision and timm name them, and as Hugging Face does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from vitrail.backbones.resnet import ResNetConfig
from vitrail.nn.convolutions import doubling
from vitrail.weights.formats.shapes import agreed
from vitrail.weights.mapping import Absent, Entry, pair
from vitrail.weights.reader import Reader

STATISTICS = ("weight", "bias", "running_mean", "running_var")
"""Of a BatchNorm, frozen or not."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A block of a ResNet.

    Attributes:
        stage: Its stage, from 0.
        index: Its place there, from 0.
        convolutions: How many it has on the branch.
        shortcut: Whether it has one beside the branch.
    """

    stage: int
    index: int
    convolutions: int
    shortcut: bool


def units(config: ResNetConfig) -> Iterator[Unit]:
    """All blocks, in their order."""
    convolutions = 3 if config.block == "bottleneck" else 2
    for stage, depth in enumerate(config.depths):
        before, after = config.channels[stage : stage + 2]
        kept = config.dilated and stage == len(config.depths) - 1
        halved = stage > 0 and not kept
        for index in range(depth):
            first = index == 0 and (halved or before != after)
            yield Unit(stage, index, convolutions, first)


def torchvision_fields(reader: Reader, stem: str = "") -> dict[str, Any]:
    """What the shapes of a ResNet under torchvision's names tell of its configuration.

    Args:
        reader: The file.
        stem: What leads the names.
    """
    checkpoint = reader.checkpoint
    own = [n.removeprefix(stem) for n in checkpoint.tensors if n.startswith(stem)]
    bottleneck = any(".conv3." in n or ".bn3." in n for n in own if n.startswith("layer"))
    stages = 0
    while reader.any(f"{stem}layer{stages + 1}."):
        stages += 1
    depths = tuple(reader.count(f"{stem}layer{stage + 1}.") for stage in range(stages))
    width = agreed(checkpoint, [f"{stem}bn1.{part}" for part in STATISTICS])
    widths = tuple(
        agreed(
            checkpoint,
            [
                f"{stem}layer{stage + 1}.{unit}.bn1.{part}"
                for unit in range(max(depth, 1))
                for part in STATISTICS
            ],
        )
        for stage, depth in enumerate(depths)
    )
    return {
        "kind": "resnet",
        "block": "bottleneck" if bottleneck else "basic",
        "depths": depths,
        "width": width,
        "widths": unless_doubled(width, widths),
    }


def unless_doubled(width: int, widths: tuple[int, ...]) -> tuple[int, ...] | None:
    """Widths of the stages, or None where they double from the root's."""
    return None if widths == doubling(width, len(widths)) else widths


def torchvision_entries(
    config: ResNetConfig, stem: str = "", *, counted: bool = True
) -> list[Entry]:
    """Which tensor is which of ours.

    Args:
        config: The model.
        stem: What leads the names.
        counted: Whether the file has `num_batches_tracked`, which inference never uses.
    """
    trunk = "backbone.trunk."
    entries = [
        Entry(f"{trunk}root.conv.weight", (f"{stem}conv1.weight",)),
        *batch_norm(f"{trunk}root.norm", f"{stem}bn1.", counted=counted),
    ]
    for unit in units(config):
        ours = f"{trunk}stages.{unit.stage}.{unit.index}."
        theirs = f"{stem}layer{unit.stage + 1}.{unit.index}."
        for n in range(1, unit.convolutions + 1):
            entries.append(Entry(f"{ours}conv{n}.weight", (f"{theirs}conv{n}.weight",)))
            entries += batch_norm(f"{ours}norm{n}", f"{theirs}bn{n}.", counted=counted)
        if unit.shortcut:
            short = f"{ours}downsample.", f"{theirs}downsample."
            entries.append(Entry(f"{short[0]}0.weight", (f"{short[1]}0.weight",)))
            entries += batch_norm(f"{short[0]}1", f"{short[1]}1.", counted=counted)
    return entries


def hf_entries(config: ResNetConfig, stem: str, *, counted: bool) -> list[Entry]:
    """The same for Hugging Face's `resnet`."""
    trunk = "backbone.trunk."

    def layer(conv: str, norm: str, theirs: str) -> list[Entry]:
        return [
            Entry(f"{conv}.weight", (f"{theirs}convolution.weight",)),
            *batch_norm(norm, f"{theirs}normalization.", counted=counted),
        ]

    entries = layer(f"{trunk}root.conv", f"{trunk}root.norm", f"{stem}embedder.embedder.")
    for unit in units(config):
        ours = f"{trunk}stages.{unit.stage}.{unit.index}."
        theirs = f"{stem}encoder.stages.{unit.stage}.layers.{unit.index}."
        for n in range(unit.convolutions):
            branch = f"{theirs}layer.{n}."
            entries += layer(f"{ours}conv{n + 1}", f"{ours}norm{n + 1}", branch)
        if unit.shortcut:
            short = f"{ours}downsample."
            entries += layer(f"{short}0", f"{short}1", f"{theirs}shortcut.")
    return entries


def batch_norm(ours: str, theirs: str, *, counted: bool) -> list[Entry]:
    """One BatchNorm."""
    batches = f"{ours}.num_batches_tracked"
    return [
        *pair(ours, theirs),
        *(Entry(f"{ours}.{n}", (f"{theirs}{n}",)) for n in STATISTICS[2:]),
        Entry(batches, (f"{theirs}num_batches_tracked",))
        if counted
        else Entry(batches, (), Absent((), torch.int64)),
    ]
