from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tiny import randomise
from vitrail.backbones.resnet import ImageNetRootConfig, ResNet, ResNetConfig, SmallRootConfig
from vitrail.backbones.resnet_sizes import RESNET
from vitrail.errors import ImageSizeError

FIGURES = {"resnet18": (11_689_512, 1.814), "resnet50": (25_557_032, 4.089)}


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def tiny(**changes: Any) -> ResNetConfig:
    table: dict[str, Any] = {"image_size": (8, 12), "root": SmallRootConfig(), "width": 4}
    return ResNetConfig(**(table | {"block": "basic", "depths": (1, 1)} | changes))


@pytest.mark.parametrize("name", FIGURES)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        backbone = ResNet(RESNET[name].config)
        head = nn.Linear(backbone.pooled_width, 1000)
    params = sum(p.numel() for part in (backbone, head) for p in part.parameters())
    assert params == FIGURES[name][0]
    assert macs(backbone, head) / 1e9 == pytest.approx(FIGURES[name][1], rel=0.001)
    assert backbone.strides == (4, 8, 16, 32)


def macs(backbone: ResNet, head: nn.Module) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, *backbone.config.image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        head(backbone.eval()(image).pooled)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("root", [SmallRootConfig(), ImageNetRootConfig()])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_any_image_size(root: Any, block: str) -> None:
    backbone = randomise(
        ResNet(tiny(image_size=(8, 8), root=root, block=block, drop_path=0.1)), std=0.2
    )
    for height, width in ((8, 12), (9, 31), (17, 8)):
        features = backbone(images(height, width))
        for found, channels, stride in zip(
            features.maps, backbone.channels, backbone.strides, strict=True
        ):
            assert found.shape == (2, channels, -(-height // stride), -(-width // stride))
        last = features.maps[-1]
        assert torch.equal(features.tokens, last.flatten(2).transpose(1, 2))
        torch.testing.assert_close(features.pooled, last.mean(dim=(2, 3)))
        features.pooled.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_refusals() -> None:
    with pytest.raises(ImageSizeError, match="at least 2 x 2"):
        ResNet(tiny())(images(1, 9))
    for wrong in ({"depths": ()}, {"block": "wide"}, {"image_size": (1, 9)}, {"root": {"kind": 1}}):
        with pytest.raises(ValidationError):
            tiny(**wrong)


def test_layers_are_the_root_and_one_group_a_block() -> None:
    backbone = ResNet(tiny(depths=(2, 1)))
    stages = backbone.trunk.stages
    assert backbone.layers() == [
        [backbone.trunk.root],
        [stages[0][0]],
        [stages[0][1]],
        [stages[1][0]],
    ]


def test_a_batch_is_its_images_in_evaluation() -> None:
    backbone = randomise(ResNet(tiny()), std=0.2).eval()
    x = images(8, 12)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x).pooled[1:], backbone(x[1:]).pooled)


def test_widths_need_not_double() -> None:
    backbone = ResNet(tiny(widths=(3, 5), block="bottleneck")).eval()
    assert backbone.channels == (12, 20)
    assert ResNetConfig(widths=(4, 8, 12, 16), width=8).channels == (8, 16, 32, 48, 64)
    with pytest.raises(ValidationError, match="1 widths for 2 stages"):
        tiny(widths=(3,))
    assert tiny(widths=(4, 8)).planes == tiny().planes


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_dilated_stage_sees_the_same_neighbours_on_a_finer_map(block: str) -> None:
    """The same weights with and without: every second place is what the stride would have given."""
    config = tiny(block=block, depths=(1, 2))
    plain, fine = (
        randomise(ResNet(config.model_copy(update={"dilated": dilated}))).eval()
        for dilated in (False, True)
    )
    assert plain.state_dict().keys() == fine.state_dict().keys()
    fine.load_state_dict(plain.state_dict())
    assert (plain.strides, fine.strides) == ((1, 2), (1, 1))
    with torch.no_grad():
        expected, found = (b(images(8, 12)).maps[-1] for b in (plain, fine))
    assert found.shape[2:] == (8, 12)
    torch.testing.assert_close(found[..., ::2, ::2], expected, rtol=1e-4, atol=1e-5)
    assert fine.config.stride == 1
