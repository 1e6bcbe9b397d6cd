from __future__ import annotations

import torch
from torch import nn

from tiny import randomise
from vitrail.nn.blocks import Mlp
from vitrail.nn.pooling import AttentionPool, ClassTokenPool, MeanPool


def tokens() -> torch.Tensor:
    return torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))


def test_class_token_stands_first() -> None:
    x = tokens()
    assert torch.equal(ClassTokenPool()(x), x[:, 0])


def test_mean_leaves_out_the_prefix() -> None:
    x = tokens()
    torch.testing.assert_close(MeanPool(prefix=2)(x), sum(x[:, i] for i in range(2, 7)) / 5)
    torch.testing.assert_close(MeanPool(prefix=0)(x), x.mean(dim=1))


def test_attention_pool_is_multi_head_attention_of_one_query_then_a_residual_mlp() -> None:
    pool = randomise(AttentionPool(12, 3, Mlp(12, 24)))
    seen: list[torch.Tensor] = []
    pool.probe = lambda weights, v, out: seen.append(weights.rows() @ v - out)
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([pool.q.weight, pool.kv.weight]))
        reference.in_proj_bias.copy_(torch.cat([pool.q.bias, pool.kv.bias]))
        reference.out_proj.load_state_dict(pool.proj.state_dict())
        x = tokens()
        out = reference(pool.latent.expand(2, 1, 12), x, x, need_weights=False)[0][:, 0]
        expected = out + pool.mlp(pool.norm(out))
        torch.testing.assert_close(pool(x), expected, rtol=1e-5, atol=1e-5)
    assert len(seen) == 1
    assert seen[0].abs().max() < 1e-5


def test_attention_pool_ignores_the_order_of_tokens() -> None:
    pool = randomise(AttentionPool(12, 3, Mlp(12, 24)))
    x = tokens()
    torch.testing.assert_close(pool(x), pool(x.flip(1)), rtol=1e-5, atol=1e-5)
