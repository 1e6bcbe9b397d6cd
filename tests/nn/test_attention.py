from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tiny import randomise
from vitrail.nn.attention import Attention
from vitrail.nn.positions import AxialRotary, Placeless, RelativeBias2d

GRID = (2, 3)


def attention(positions: nn.Module, **options: bool) -> Attention:
    return randomise(Attention(16, 2, positions, **options)).eval()


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_is_the_written_out_formula(qk_norm: bool, qkv_bias: bool) -> None:
    layer = attention(Placeless(), qk_norm=qk_norm, qkv_bias=qkv_bias)
    assert (layer.qkv.bias is not None) == qkv_bias
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        q, k, v = layer.qkv(x).split(16, dim=-1)
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            qh, kh = layer.q_norm(q[..., h]), layer.k_norm(k[..., h])
            scores = torch.einsum("bid,bjd->bij", qh, kh) / 8**0.5
            weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
            heads.append(torch.einsum("bij,bjd->bid", weights, v[..., h]))
        expected = layer.proj(torch.cat(heads, dim=-1))
        torch.testing.assert_close(layer(x, GRID), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)))
def test_without_positions_is_permutation_equivariant(order: list[int]) -> None:
    layer = attention(Placeless())
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x[:, order], GRID), layer(x, GRID)[:, order], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    "positions",
    [AxialRotary(8, prefix=0), RelativeBias2d(2, GRID, prefix=0)],
    ids=["rotary", "bias"],
)
def test_with_positions_is_not_permutation_equivariant(positions: nn.Module) -> None:
    layer = attention(positions)
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(3))
    order = [1, 0, 2, 3, 4, 5]
    with torch.no_grad():
        difference = (layer(x[:, order], GRID) - layer(x, GRID)[:, order]).abs().max()
    assert difference > 1e-3


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(AssertionError, match="width 16 is not a multiple of 3 heads"):
        Attention(16, 3, Placeless())
