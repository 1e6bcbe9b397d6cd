from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tiny import randomise
from vitrail.nn.convolutions import (
    BasicBlock,
    Bottleneck,
    ResidualBlock,
    Root,
    SameMaxPool2d,
    StandardisedConv2d,
    Style,
    TimmStandardisedConv2d,
    Trunk,
    batch_norm_style,
    doubling,
    group_norm_style,
    same_padding,
)

STYLES = [batch_norm_style(), group_norm_style(2)]
BLOCKS: list[type[ResidualBlock]] = [BasicBlock, Bottleneck]


def maps(channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_same_padding_gives_a_cell_for_each_started_stride(
    size: int, kernel: int, stride: int
) -> None:
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in (0, 1)


def test_same_padding_is_tensorflows() -> None:
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(112, 3, 2) == (0, 1)
    assert same_padding(113, 3, 2) == (1, 1)
    assert same_padding(56, 3, 1) == (1, 1)
    assert same_padding(56, 1, 2) == (0, 0)


@pytest.mark.parametrize("kind", [StandardisedConv2d, TimmStandardisedConv2d])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 6)])
def test_standardised_convolution_is_what_it_says(
    kind: type[StandardisedConv2d], kernel: int, stride: int, size: tuple[int, int]
) -> None:
    # Small kernels, so that the two roundings differ.
    conv = randomise(kind(3, 4, kernel, stride), seed=1, std=1e-3)
    x = maps(3, *size)
    flat = conv.weight.flatten(1)
    mean = flat.sum(1, keepdim=True) / flat.shape[1]
    variance = ((flat - mean) ** 2).sum(1, keepdim=True) / flat.shape[1]
    plain = kind is StandardisedConv2d
    divisor = variance**0.5 + 1e-5 if plain else (variance + 1e-8) ** 0.5
    kernels = ((flat - mean) / divisor).view_as(conv.weight)
    rows, columns = (same_padding(n, kernel, stride) for n in size)
    expected = F.conv2d(F.pad(x, (*columns, *rows)), kernels, stride=stride)
    torch.testing.assert_close(conv(x), expected)
    assert expected.shape[2:] == tuple(-(-n // stride) for n in size)


def test_standardised_convolution_ignores_scale_and_shift_of_its_kernels() -> None:
    conv = randomise(StandardisedConv2d(3, 4, 3, 2))
    x = maps(3, 6, 6)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(5).add_(2)
    torch.testing.assert_close(conv(x), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [StandardisedConv2d, TimmStandardisedConv2d])
def test_equal_weights_have_a_gradient(kind: type[StandardisedConv2d]) -> None:
    conv = kind(3, 4, 3, 1)
    nn.init.ones_(conv.weight)
    conv(maps(3, 6, 6)).square().sum().backward()
    assert conv.weight.grad is not None
    assert bool(conv.weight.grad.isfinite().all())


@given(st.integers(1, 12), st.integers(1, 12))
def test_maximum_is_that_of_the_same_rule(height: int, width: int) -> None:
    x = maps(2, height, width) - 10  # zeros in the padding would show
    rows, columns = same_padding(height, 3, 2), same_padding(width, 3, 2)
    padded = F.pad(x, (*columns, *rows), value=float("-inf"))
    assert torch.equal(SameMaxPool2d()(x), F.max_pool2d(padded, 3, 2))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("before", "stride"), [(16, 1), (16, 2), (8, 1)])
def test_a_fresh_block_hands_on_its_input(
    kind: type[ResidualBlock], style: Style, before: int, stride: int
) -> None:
    block = kind(before, 16 // kind.expansion, stride, style, drop_path=0.0).eval()
    x = maps(before, 7, 6)
    assert isinstance(block.downsample, nn.Identity) == (before == 16 and stride == 1)
    assert torch.equal(block(x), F.relu(block.downsample(x)))
    assert block(x).shape == (2, 16, -(-7 // stride), -(-6 // stride))


def norm(x: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
    """BatchNorm in evaluation, by its formula."""
    mean, var, gain, shift = (
        table[:, None, None]
        for table in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / (var + 1e-5) ** 0.5 * gain + shift


def by_hand(x: torch.Tensor, block: Bottleneck, stride: int) -> torch.Tensor:
    """A bottleneck without convolutions: unfolded patches times matrices."""

    def conv(x: torch.Tensor, layer: nn.Conv2d, stride: int) -> torch.Tensor:
        k = layer.weight.shape[2]
        patches = F.unfold(x, k, padding=k // 2, stride=stride)
        out = torch.einsum("dk,bkn->bdn", layer.weight.flatten(1), patches)
        return out.unflatten(2, (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))

    y = norm(conv(x, block.conv1, 1), block.norm1).clamp_min(0)
    y = norm(conv(y, block.conv2, stride), block.norm2).clamp_min(0)
    y = norm(conv(y, block.conv3, 1), block.norm3)
    shortcut = norm(conv(x, block.downsample[0], stride), block.downsample[1])
    return (y + shortcut).clamp_min(0)


@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_equals_a_computation_by_hand(stride: int) -> None:
    block = randomise(Bottleneck(6, 4, stride, batch_norm_style(), drop_path=0.0)).eval()
    with torch.no_grad():
        for index, layer in enumerate(m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            layer.running_mean.normal_(generator=torch.Generator().manual_seed(index))
            layer.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(index))
        x = maps(6, 7, 8)
        torch.testing.assert_close(block(x), by_hand(x, block, stride), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", BLOCKS)
def test_dropping_leaves_the_shortcut(kind: type[ResidualBlock]) -> None:
    block = randomise(kind(16, 16 // kind.expansion, 1, STYLES[1], drop_path=1 - 1e-9)).train()
    x = maps(16, 4, 4)
    assert torch.equal(block(x), F.relu(x))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("depths", [(), (1,), (1, 2, 1)])
def test_trunk_gives_a_map_a_stage(style: Style, small: bool, depths: tuple[int, ...]) -> None:
    trunk = Trunk(
        Root(4, style, small=small),
        Bottleneck,
        depths,
        doubling(4, len(depths)),
        style,
        drop_path=0.2,
    )
    strides = tuple((1 if small else 4) * 2**i for i in range(max(len(depths), 1)))
    assert trunk.strides == strides
    assert trunk.channels == (tuple(16 * 2**i for i in range(len(depths))) or (4,))
    for height, width in ((16, 32), (33, 17), (19, 16)):
        found = [m.shape[1:] for m in trunk(maps(3, height, width))]
        assert found == [
            (c, -(-height // s), -(-width // s))
            for c, s in zip(trunk.channels, strides, strict=True)
        ]
    assert len(trunk.layers()) == 1 + sum(depths)


def test_drop_path_grows_over_the_blocks_of_all_stages() -> None:
    style = STYLES[0]
    trunk = Trunk(
        Root(4, style, small=True), BasicBlock, (2, 1, 2), (4, 8, 16), style, drop_path=0.2
    )
    blocks: list[Any] = [block for stage in trunk.stages for block in stage]
    assert [b.drop_path.rate for b in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_convolutions_start_at_kaimings_fan_out() -> None:
    torch.manual_seed(0)
    for style in STYLES:
        weight = style.conv(32, 64, 3, 1).weight
        assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
