from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tiny import POOLS, POSITIONS, STEMS, randomise, tiny_config
from vitrail.backbones import build_backbone
from vitrail.backbones.vit import IN_ATTENTION, Learned1dConfig, NoPositionsConfig, ViTConfig

SIZES = ((8, 12), (7, 13), (16, 5), (4, 4))


def images(height: int = 8, width: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def shuffle(x: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Move the 4 x 4 patches of an 8 x 12 image."""
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, order]
    return patches.unflatten(2, (2, 3)).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


@pytest.mark.parametrize(
    ("stem", "positions", "pool"),
    list(product(STEMS, POSITIONS, POOLS)),
    ids=lambda value: getattr(value, "__name__", None) or getattr(value, "kind", value),
)
def test_any_image_size(stem: Any, positions: Any, pool: str) -> None:
    config = tiny_config(stem=stem, positions=positions(), pool=pool)
    backbone = randomise(build_backbone(config), std=0.2)
    for height, width in SIZES:
        features = backbone(images(height, width))
        rows, columns = -(-height // 4), -(-width // 4)
        assert features.maps[0].shape == (2, 16, rows, columns)
        assert features.tokens.shape == (2, 1 + rows * columns, 16)
        assert features.pooled.shape == (2, backbone.pooled_width)
        assert torch.equal(
            features.maps[0].flatten(2), features.tokens[:, backbone.prefix :].transpose(1, 2)
        )
        weights = torch.randn(features.pooled.shape, generator=torch.Generator().manual_seed(1))
        (features.pooled * weights).sum().backward()
        for name, parameter in backbone.named_parameters():
            if parameter.numel():
                assert parameter.grad is not None, name
                assert bool(parameter.grad.isfinite().all()), name
        backbone.zero_grad()


def test_class_token_and_mean_are_pooled_side_by_side() -> None:
    config = tiny_config(pool="class_and_mean", registers=2)
    features = randomise(build_backbone(config)).eval()(images())
    assert config.pooled_width == 32
    assert torch.equal(features.pooled[:, :16], features.tokens[:, 0])
    torch.testing.assert_close(features.pooled[:, 16:], features.tokens[:, 3:].mean(dim=1))


def test_swiglu_takes_the_place_of_the_mlp() -> None:
    backbone = build_backbone(tiny_config(activation="swiglu", mlp_ratio=1.5))
    assert backbone.blocks[0].mlp.fc1.weight.shape == (48, 16)
    assert backbone(images()).pooled.shape == (2, 16)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("norm_after_pool", [False, True])
@pytest.mark.parametrize(
    ("class_token", "registers"), [(True, 0), (True, 2), (False, 0), (False, 2)]
)
def test_prefix_tokens(norm: str, norm_after_pool: bool, class_token: bool, registers: int) -> None:
    config = tiny_config(
        norm=norm,
        norm_after_pool=norm_after_pool,
        class_token=class_token,
        registers=registers,
        pool="mean",
        layer_scale=0.1,
        qk_norm=True,
        drop_path=0.3,
    )
    backbone = randomise(build_backbone(config)).eval()
    assert backbone.prefix == class_token + registers
    features = backbone(images())
    assert features.tokens.shape == (2, backbone.prefix + 6, 16)
    mean = features.tokens[:, backbone.prefix :].mean(dim=1)
    torch.testing.assert_close(features.pooled, backbone.fc_norm(mean))


@pytest.mark.parametrize("positions", POSITIONS)
def test_without_prefix_tokens_no_parameter_is_idle(positions: Any) -> None:
    config = tiny_config(class_token=False, pool="mean", positions=positions())
    backbone = build_backbone(config)
    features = backbone(images())
    (features.pooled * torch.randn_like(features.pooled)).sum().backward()
    idle = [name for name, p in backbone.named_parameters() if p.numel() and p.grad is None]
    assert not idle


def test_tokens_are_patches_and_positions_behind_the_class_token() -> None:
    """Equation 1 of the paper, seen through an encoder of no effect."""
    config = tiny_config(depth=1, registers=1)
    backbone = randomise(build_backbone(config))
    with torch.no_grad():
        for linear in (backbone.blocks[0].attn.proj, backbone.blocks[0].mlp.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
    x = images()
    patches = backbone.patch_embed(x).flatten(2).transpose(1, 2)
    sequence = torch.cat([backbone.prefix_token.expand(2, -1, -1), patches], dim=1)
    expected = backbone.norm(sequence + backbone.pos_embed.weight)
    torch.testing.assert_close(backbone(x).tokens, expected)


def test_positions_of_the_prefix_can_be_left_out() -> None:
    backbone = build_backbone(tiny_config(positions=Learned1dConfig(prefix=False), registers=3))
    assert backbone.pos_embed.weight.shape == (1, 6, 16)
    assert backbone(images()).tokens.shape == (2, 10, 16)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)))
def test_without_positions_the_encoder_is_permutation_equivariant(order: list[int]) -> None:
    backbone = randomise(build_backbone(tiny_config(positions=NoPositionsConfig()))).eval()
    with torch.no_grad():
        plain, moved = backbone(images()), backbone(shuffle(images(), order))
    torch.testing.assert_close(
        moved.tokens[:, 1:], plain.tokens[:, 1:][:, order], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(moved.pooled, plain.pooled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", [kind for kind in POSITIONS if kind is not NoPositionsConfig])
def test_with_positions_it_is_not(positions: Any) -> None:
    backbone = randomise(build_backbone(tiny_config(positions=positions()))).eval()
    order = [3, 1, 2, 0, 4, 5]
    with torch.no_grad():
        plain, moved = backbone(images()), backbone(shuffle(images(), order))
    assert (moved.tokens[:, 1:] - plain.tokens[:, 1:][:, order]).abs().max() > 1e-3
    assert (moved.pooled - plain.pooled).abs().max() > 1e-3


@pytest.mark.parametrize("where", ["layers", "layers_shared"])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize(
    "positions", [kind for kind in POSITIONS if kind().kind not in ("none", *IN_ATTENTION)]
)
def test_positions_in_every_layer(where: str, class_token: bool, positions: Any) -> None:
    """Each block sees the output of the one before plus a place; the first sees the stem's."""
    config = tiny_config(
        positions=positions(), positions_in=where, depth=3, class_token=class_token, pool="mean"
    )
    backbone = randomise(build_backbone(config), std=0.1).eval()
    tables = [backbone.pos_embed] * 3
    if where == "layers":
        tables = [backbone.pos_embed, *backbone.layer_pos_embed]
        assert len({id(table) for table in tables}) == 3
    x, grid, prefix = images(), (2, 3), int(class_token)
    tokens = backbone.patch_embed(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([backbone.prefix_token.expand(2, -1, -1), tokens], dim=1)
    for block, table in zip(backbone.blocks, tables, strict=True):
        place = torch.zeros(1, prefix + 6, 16)
        place[:, prefix:] = table.table(grid)
        if table.prefix_table() is not None:
            place[:, :prefix] = table.prefix_table()
        tokens = block(tokens + place, grid)
    features = backbone(x)
    torch.testing.assert_close(features.tokens, backbone.norm(tokens))
    assert backbone(images(7, 13)).maps[0].shape == (2, 16, 2, 4), "any size"
    features.pooled.square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.numel())


def test_positions_of_a_layer_belong_to_it() -> None:
    backbone = build_backbone(tiny_config(depth=3, positions_in="layers"))
    names = [name for name, _ in backbone.named_parameters() if "pos_embed" in name]
    assert names == ["pos_embed.weight", *(f"layer_pos_embed.{i}.weight" for i in range(2))]
    assert backbone.layers()[1] == [backbone.blocks[0]]
    assert backbone.layers()[3] == [backbone.blocks[2], backbone.layer_pos_embed[1]]
    shared = build_backbone(tiny_config(depth=3, positions_in="layers_shared"))
    assert list(shared.state_dict()) == list(build_backbone(tiny_config(depth=3)).state_dict())


def test_a_batch_is_its_images() -> None:
    backbone = randomise(build_backbone(tiny_config())).eval()
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(backbone(x).pooled[1:], backbone(x[1:]).pooled)


def test_drop_path_grows_with_depth() -> None:
    backbone = build_backbone(tiny_config(depth=5, drop_path=0.2))
    rates = [block.drop_path.rate for block in backbone.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert build_backbone(tiny_config(depth=1, drop_path=0.2)).blocks[0].drop_path.rate == 0


def test_layers_are_the_stem_and_one_group_a_block() -> None:
    backbone = build_backbone(tiny_config(depth=3))
    groups = backbone.layers()
    assert groups[0] == [backbone.patch_embed, backbone.pos_embed]
    assert list(groups[1:]) == [[block] for block in backbone.blocks]


def test_linear_maps_start_at_xavier_uniform() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(tiny_config(width=64))
    for block in backbone.blocks:
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            limit = (6 / sum(linear.weight.shape)) ** 0.5
            assert linear.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
            assert linear.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
            assert not linear.bias.any()
    assert backbone.prefix_token.std().item() == pytest.approx(0.02, rel=0.4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"class_token": False}, "pool = 'class' needs class_token = true"),
        ({"heads": 8, "positions": {"kind": "rotary_2d"}}, "divisible by 4, got 2"),
        ({"width": 18, "positions": {"kind": "sincos_2d"}}, "width divisible by 4: 18"),
        ({"stem": {"kind": "conv", "widths": (4,), "strides": (2, 2)}}, "one stride for each"),
        ({"drop_path": 1.0}, "less than 1"),
        ({"positions": {"kind": "spiral"}}, "spiral"),
        ({"positions": {"kind": "none"}, "positions_in": "layers"}, "'none' is not"),
        ({"image_size": (0, 8)}, "image_size"),
        ({"layer_scale": float("nan")}, "finite"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_config(**wrong)


def test_grid_counts_started_patches() -> None:
    config = ViTConfig(image_size=(30, 33))
    assert config.grid == (2, 3)
    assert config.prefix == 1
