from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from tiny import randomise
from vitrail.backbones.t2t import (
    T2T,
    T2TConfig,
    TokenBlockConfig,
    TokenPerformerConfig,
    TokenTransformerConfig,
)
from vitrail.backbones.t2t_sizes import PUBLISHED, SMALL
from vitrail.backbones.t2t_sizes import T2T as VARIANTS
from vitrail.cost import count_cost
from vitrail.errors import ImageSizeError

TOKEN_BLOCKS = (TokenTransformerConfig(), TokenPerformerConfig(features=4))
assert {type(block) for block in TOKEN_BLOCKS} == set(get_args(get_args(TokenBlockConfig)[0]))

SIZES = ((8, 12), (7, 13), (16, 5), (4, 4))

FIGURES = {
    "t2t_vit_7": (4_310_222, 4_255_694, 1.147),
    "t2t_vit_10": (5_889_230, 5_834_702, 1.516),
    "t2t_vit_12": (6_941_902, 6_887_374, 1.763),
    "t2t_vit_14": (21_545_550, 21_465_806, 4.783),
    "t2t_vit_19": (39_177_422, 39_085_070, 8.480),
    "t2t_vit_24": (64_105_934, 64_000_974, 13.662),
    "t2t_vit_14_384": (21_691_470, None, 16.370),
    "t2t_vit_t_14": (21_541_070, 21_465_422, 6.089),
    "t2t_vit_t_19": (39_172_942, 39_084_686, 9.785),
    "t2t_vit_t_24": (64_101_454, 64_000_590, 14.967),
    "t2t_vit_14_resnext": (21_545_550, None, None),
    "t2t_vit_14_wide": (25_156_302, None, None),
}
"""Parameters, those that train, and GMACs of the owners' code with 1000 classes."""


def tiny(**changes: Any) -> T2TConfig:
    """Two blocks of width 16 on a grid of 2 x 3 patches of stride 4."""
    table: dict[str, Any] = {
        "image_size": (8, 12),
        "splits": ({"kernel": 3, "stride": 2}, {"kernel": 3, "stride": 2}),
        "token_block": TOKEN_BLOCKS[0],
        "token_width": 8,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
    }
    return T2TConfig(**(table | changes))


def images(height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def frozen(backbone: T2T) -> set[str]:
    return {name for name, p in backbone.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("token_block", TOKEN_BLOCKS, ids=lambda block: block.kind)
def test_any_image_size(token_block: Any) -> None:
    backbone = randomise(T2T(tiny(token_block=token_block)), std=0.2)
    for height, width in SIZES:
        features = backbone(images(height, width))
        rows, columns = -(-height // 4), -(-width // 4)
        assert features.maps[0].shape == (2, 16, rows, columns)
        assert features.tokens.shape == (2, 1 + rows * columns, 16)
        assert torch.equal(features.pooled, features.tokens[:, 0])
        assert torch.equal(features.maps[0].flatten(2), features.tokens[:, 1:].transpose(1, 2))
        (features.pooled * torch.randn_like(features.pooled)).sum().backward()
        for name, parameter in backbone.named_parameters():
            assert (parameter.grad is None) == (name in frozen(backbone)), name
        backbone.zero_grad()


def test_only_the_sinusoid_and_the_random_features_stay() -> None:
    assert frozen(T2T(tiny())) == {"pos_embed.weight"}
    backbone = T2T(tiny(token_block=TOKEN_BLOCKS[1]))
    assert frozen(backbone) == {"pos_embed.weight", "patch_embed.blocks.0.attn.w"}


def test_an_image_smaller_than_the_stride_is_refused() -> None:
    backbone = T2T(tiny())
    with pytest.raises(ImageSizeError, match="at least 4 x 4"):
        backbone(images(3, 12))


def test_positions_are_the_sinusoid_with_the_class_token_at_zero() -> None:
    table = T2T(tiny()).pos_embed.weight
    assert table.shape == (1, 7, 16)
    for place in range(7):
        for j in range(16):
            angle = place / 10_000 ** (2 * (j // 2) / 16)
            expected = math.cos(angle) if j % 2 else math.sin(angle)
            assert table[0, place, j].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (16, 8)])
def test_tokens_are_patches_and_positions_behind_the_class_token(size: tuple[int, int]) -> None:
    """What enters the blocks, seen through an encoder of no effect; another grid is stretched."""
    backbone = randomise(T2T(tiny(depth=1))).eval()
    with torch.no_grad():
        for linear in (backbone.blocks[0].attn.proj, backbone.blocks[0].mlp.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
        x = images(*size)
        grid = (size[0] // 4, size[1] // 4)
        patches = backbone.patch_embed(x).flatten(2).transpose(1, 2)
        place = backbone.pos_embed.weight
        stretched = F.interpolate(
            place[:, 1:].transpose(1, 2).reshape(1, 16, 2, 3), size=grid, mode="bicubic"
        )
        patches = patches + stretched.flatten(2).transpose(1, 2)
        first = (backbone.prefix_token + place[:, :1]).expand(2, -1, -1)
        expected = F.layer_norm(
            torch.cat([first, patches], dim=1),
            (16,),
            backbone.norm.weight,
            backbone.norm.bias,
            eps=1e-5,
        )
        torch.testing.assert_close(backbone(x).tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("token_block", TOKEN_BLOCKS, ids=lambda block: block.kind)
def test_a_batch_is_its_images(token_block: Any) -> None:
    backbone = randomise(T2T(tiny(token_block=token_block)), std=0.2).eval()
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(backbone(x).pooled[1:], backbone(x[1:]).pooled)


def test_blocks_have_no_bias_for_queries_and_drop_path_grows_with_depth() -> None:
    backbone = T2T(tiny(depth=5, drop_path=0.2))
    rates = [block.drop_path.rate for block in backbone.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert all(block.attn.qkv.bias is None for block in backbone.blocks)
    norms = [module for module in backbone.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}


def test_layers_are_the_stem_and_one_group_a_block() -> None:
    backbone = T2T(tiny(depth=3))
    groups = backbone.layers()
    assert groups[0] == [backbone.patch_embed, backbone.pos_embed]
    assert list(groups[1:]) == [[block] for block in backbone.blocks]


def test_linear_maps_start_as_in_the_other_families() -> None:
    """Xavier uniform: a study that compares families must not compare their first weights."""
    torch.manual_seed(0)
    backbone = T2T(tiny(width=64))
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            limit = (6 / sum(module.weight.shape)) ** 0.5
            assert module.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.1)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_owners(name: str) -> None:
    config = VARIANTS[name].config
    with torch.device("meta"):
        backbone, head = T2T(config).eval(), nn.Linear(config.width, 1000)
    parameters = [*backbone.parameters(), *head.parameters()]
    total, trained, gmacs = FIGURES[name]
    assert sum(p.numel() for p in parameters) == total
    if trained is not None:
        assert sum(p.numel() for p in parameters if p.requires_grad) == trained
    if gmacs is not None:
        macs = count_cost(backbone, config.image_size).macs + 1000 * config.width
        assert macs / 1e9 == pytest.approx(gmacs, abs=0.0006)


def test_every_published_variant_is_there() -> None:
    assert set(PUBLISHED) == set(FIGURES)
    assert set(VARIANTS) == set(PUBLISHED) | set(SMALL)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_is_written_and_read(name: str) -> None:
    config = VARIANTS[name].config
    assert T2TConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", SMALL)
def test_presets_keep_enough_tokens(name: str) -> None:
    config = SMALL[name]
    assert min(config.grid) >= 4
    found = T2T(config)(images(*config.image_size)).maps[0]
    assert found.shape == (2, config.width, *config.grid)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"splits": ()}, "at least 1"),
        ({"splits": ({"kernel": 3, "stride": 4},)}, "kernel 3 is smaller than stride 4"),
        ({"splits": ({"kernel": 4, "stride": 1},)}, "stride 1 needs an odd kernel, got 4"),
        ({"token_block": {"kind": "performer"}}, "features 32 cannot be orthogonal"),
        ({"token_block": {"kind": "linformer"}}, "linformer"),
        ({"image_size": (3, 12)}, "at least 4 x 4"),
        ({"drop_path": 1.0}, "less than 1"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**wrong)
