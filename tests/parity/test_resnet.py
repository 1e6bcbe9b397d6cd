"""Our ResNet has torchvision's parameters, name by name and shape by shape."""

from __future__ import annotations

import re

import pytest
import torch

from vitrail.backbones.resnet import ResNet
from vitrail.backbones.resnet_sizes import RESNET

RULES = (
    (r"^trunk\.root\.conv\.", "conv1."),
    (r"^trunk\.root\.norm\.", "bn1."),
    (r"^trunk\.stages\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}."),
    (r"\.norm(\d)\.", r".bn\1."),
)
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def torchvision_name(name: str) -> str:
    for pattern, new in RULES:
        name = re.sub(pattern, new, name)
    return name


def torchvision_table(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes as `torchvision.models.resnet` builds them, without the head `fc`."""
    wide = name == "resnet50"
    table: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(at: str, channels: int) -> None:
        table.update({f"{at}.{part}": (channels,) for part in BATCH_NORM})
        table[f"{at}.num_batches_tracked"] = ()

    norm("bn1", 64)
    before = 64
    for stage, depth in enumerate((3, 4, 6, 3) if wide else (2, 2, 2, 2)):
        planes = 64 * 2**stage
        after = 4 * planes if wide else planes
        for unit in range(depth):
            at = f"layer{stage + 1}.{unit}"
            shapes = (
                [(planes, before, 1), (planes, planes, 3), (after, planes, 1)]
                if wide
                else [(planes, before, 3), (planes, planes, 3)]
            )
            for number, (out, into, kernel) in enumerate(shapes, start=1):
                table[f"{at}.conv{number}.weight"] = (out, into, kernel, kernel)
                norm(f"{at}.bn{number}", out)
            if unit == 0 and before != after:
                table[f"{at}.downsample.0.weight"] = (after, before, 1, 1)
                norm(f"{at}.downsample.1", after)
            before = after
    return table


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_map_one_to_one(name: str) -> None:
    with torch.device("meta"):
        ours = ResNet(RESNET[name].config).state_dict()
    found = {torchvision_name(key): tuple(value.shape) for key, value in ours.items()}
    assert len(found) == len(ours)
    assert found == torchvision_table(name)
