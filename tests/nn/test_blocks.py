from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tiny import randomise
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import (
    Block,
    LayerScale,
    Mlp,
    PostNormBlock,
    PreNormBlock,
    StochasticDepth,
    SwiGlu,
)
from vitrail.nn.positions import Placeless

GRID = (2, 2)


def block(kind: type[Block], *, layer_scale: float | None, drop_path: float = 0.0) -> Block:
    attention = Attention(8, 2, Placeless())
    built = kind(8, attention, Mlp(8, 16), eps=1e-5, layer_scale=layer_scale, drop_path=drop_path)
    return randomise(built).eval()


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm as Ba et al. 2016 write it."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_pre_norm_is_the_formula(layer_scale: float | None) -> None:
    part = block(PreNormBlock, layer_scale=layer_scale)
    x = tokens()
    g1 = part.ls1.gamma if layer_scale else 1.0
    g2 = part.ls2.gamma if layer_scale else 1.0
    with torch.no_grad():
        middle = x + g1 * part.attn(norm(x, part.norm1.weight, part.norm1.bias), GRID)
        expected = middle + g2 * part.mlp(norm(middle, part.norm2.weight, part.norm2.bias))
        torch.testing.assert_close(part(x, GRID), expected)


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_post_norm_is_the_formula(layer_scale: float | None) -> None:
    part = block(PostNormBlock, layer_scale=layer_scale)
    x = tokens()
    g1 = part.ls1.gamma if layer_scale else 1.0
    g2 = part.ls2.gamma if layer_scale else 1.0
    with torch.no_grad():
        middle = norm(x + g1 * part.attn(x, GRID), part.norm1.weight, part.norm1.bias)
        expected = norm(middle + g2 * part.mlp(middle), part.norm2.weight, part.norm2.bias)
        torch.testing.assert_close(part(x, GRID), expected)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_mlp_is_the_formula(activation: str) -> None:
    mlp = randomise(Mlp(8, 16, activation=activation))
    x = tokens() * 3
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    if activation == "gelu":
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    else:
        inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
        hidden = 0.5 * hidden * (1 + torch.tanh(inner))
    torch.testing.assert_close(mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_layer_scale_starts_at_its_value_and_scales_each_channel() -> None:
    scale = LayerScale(8, 0.25)
    x = tokens()
    assert torch.equal(scale(x), x * 0.25)
    with torch.no_grad():
        scale.gamma.copy_(torch.arange(8.0))
    assert torch.equal(scale(x)[..., 3], x[..., 3] * 3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    count = 20_000
    x = torch.ones(count, 2, 3)
    out = StochasticDepth(rate).train()(x)
    dropped = (out == 0).flatten(1).all(dim=1)
    kept = torch.isclose(out, torch.tensor(1 / (1 - rate))).flatten(1).all(dim=1)
    assert bool((dropped | kept).all())
    four_sigma = 4 * math.sqrt(rate / (1 - rate) / count)
    assert abs(out.mean().item() - 1) < four_sigma


def test_stochastic_depth_is_the_identity_in_evaluation_and_at_zero() -> None:
    x = tokens()
    assert StochasticDepth(0.5).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x
    with pytest.raises(AssertionError, match="not in"):
        StochasticDepth(1.0)


def test_a_dropped_block_passes_its_input() -> None:
    part = block(PreNormBlock, layer_scale=None, drop_path=1 - 1e-9).train()
    x = tokens()
    assert torch.equal(part(x, GRID), x)


def test_swiglu_gates_the_second_map_with_the_first() -> None:
    part = randomise(SwiGlu(8, 12))
    x = tokens()
    gate, value = (
        x @ part.fc1.weight[rows].T + part.fc1.bias[rows] for rows in (slice(12), slice(12, None))
    )
    expected = (gate * gate.sigmoid() * value) @ part.fc2.weight.T + part.fc2.bias
    torch.testing.assert_close(part(x), expected)
