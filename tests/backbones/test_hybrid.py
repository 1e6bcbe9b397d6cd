from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tiny import randomise
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.backbones.hybrid_sizes import HYBRID, PUBLISHED
from vitrail.backbones.resnet import ImageNetRootConfig, SmallRootConfig
from vitrail.backbones.vit import Learned1dConfig
from vitrail.errors import ImageSizeError

FIGURES = {
    "vit_tiny_r_s16_p8_224": (6_337_704, 0.434),
    "vit_tiny_r_s16_p8_384": (6_355_944, 1.327),
    "vit_small_r26_s32_224": (36_431_912, 3.464),
    "vit_small_r26_s32_384": (36_468_392, 10.264),
    "vit_base_r50_s16_224": (97_890_112, 21.535),
    "vit_base_r50_s16_384": (98_950_952, 67.156),
    "vit_large_r50_s32_224": (328_994_856, 19.413),
    "vit_large_r50_s32_384": (329_092_136, 57.136),
}


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def tiny(**changes: Any) -> HybridConfig:
    table: dict[str, Any] = {
        "image_size": (8, 12),
        "root": SmallRootConfig(),
        "resnet_depths": (1, 1),
        "resnet_width": 4,
        "groups": 2,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    return HybridConfig(**(table | changes))


def test_every_published_hybrid_is_named() -> None:
    assert PUBLISHED.keys() == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_published_sizes(name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    variant = HYBRID[name]
    with torch.device("meta"):
        backbone = Hybrid(variant.config).eval()
        classes = variant.classes
        head = nn.Linear(backbone.pooled_width, classes) if classes else nn.Identity()
        image = torch.zeros(1, 3, *variant.config.image_size)
    assert sum(p.numel() for m in (backbone, head) for p in m.parameters()) == FIGURES[name][0]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        head(backbone(image).pooled)
    assert counter.get_total_flops() / 2e9 == pytest.approx(FIGURES[name][1], rel=0.001)


@pytest.mark.parametrize("root", [SmallRootConfig(), ImageNetRootConfig()])
@pytest.mark.parametrize("depths", [(), (1, 1)])
@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_any_image_size(root: Any, depths: tuple[int, ...], patch_size: int, pool: str) -> None:
    config = tiny(
        image_size=(16, 16), root=root, resnet_depths=depths, patch_size=patch_size, pool=pool
    )
    backbone = randomise(Hybrid(config), std=0.2)
    assert backbone.strides[-1] == config.stride
    assert list(backbone.strides) == sorted(set(backbone.strides))
    for height, width in ((16, 16), (17, 35), (32, 16)):
        features = backbone(images(height, width))
        for found, channels, stride in zip(
            features.maps, backbone.channels, backbone.strides, strict=True
        ):
            assert found.shape == (2, channels, -(-height // stride), -(-width // stride))
        patches = features.tokens[:, backbone.prefix :]
        assert torch.equal(features.maps[-1].flatten(2), patches.transpose(1, 2))
        expected = features.tokens[:, 0] if pool == "class" else features.tokens.mean(dim=1)
        torch.testing.assert_close(features.pooled, expected)
        weights = torch.randn(features.pooled.shape, generator=torch.Generator().manual_seed(1))
        (features.pooled * weights).sum().backward()
        for name, parameter in backbone.named_parameters():
            if parameter.numel():
                assert parameter.grad is not None, name
                assert bool(parameter.grad.isfinite().all()), name


def test_maps_are_those_of_the_stages_finer_than_the_patches() -> None:
    backbone = randomise(Hybrid(tiny(resnet_depths=(1, 1, 1))), std=0.2).eval()
    assert backbone.strides == (1, 2, 4)
    assert backbone.channels == (16, 32, 16)
    x = images(8, 12)
    with torch.no_grad():
        found, stages = backbone(x).maps, backbone.resnet(x)
    assert torch.equal(found[0], stages[0])
    assert torch.equal(found[1], stages[1])


def test_the_class_token_can_have_no_position() -> None:
    backbone = Hybrid(tiny(positions=Learned1dConfig(prefix=False)))
    assert backbone.pos_embed.weight.shape == (1, 24, 16)
    assert backbone(images(8, 12)).tokens.shape == (2, 25, 16)


def test_layers_begin_at_the_root_and_end_at_the_last_block() -> None:
    backbone = Hybrid(tiny(drop_path=0.2))
    stages, blocks = backbone.resnet.stages, backbone.blocks
    assert backbone.layers() == [
        [backbone.resnet.root],
        [stages[0][0]],
        [stages[1][0]],
        [backbone.patch_embed, backbone.pos_embed],
        [blocks[0]],
        [blocks[1]],
    ]
    assert [block.drop_path.rate for block in blocks] == [0, 0.2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"groups": 3}, "resnet_width 4 is not a multiple of groups 3"),
        ({"width": 18, "positions": {"start": "sincos_2d"}}, "divisible by 4: 18"),
        ({"image_size": (1, 12)}, "at least 2 x 2"),
        ({"pool": "attention"}, "pool"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**wrong)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(ImageSizeError, match="at least 2 x 2"):
        Hybrid(tiny())(images(1, 12))
