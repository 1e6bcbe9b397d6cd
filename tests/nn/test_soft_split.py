from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tiny import randomise
from vitrail.nn.soft_split import (
    PerformerTokenAttention,
    SoftmaxTokenAttention,
    SoftSplit,
    TokenAttention,
    TokenBlock,
    TokensToToken,
)

ATTENTIONS = (SoftmaxTokenAttention(12, 8), PerformerTokenAttention(12, 8, features=4))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def explicit(attention: TokenAttention, tokens: torch.Tensor) -> tuple[Any, Any]:
    """Weights of every pair of tokens and the values, written out."""
    if isinstance(attention, SoftmaxTokenAttention):
        q, k, v = (tokens @ attention.qkv.weight.T).split(8, dim=-1)
        scores = torch.einsum("bid,bjd->bij", q, k) / 12**0.5  # the width that comes in
        return scores.exp() / scores.exp().sum(dim=-1, keepdim=True), v
    assert isinstance(attention, PerformerTokenAttention)
    k, q, v = (tokens @ attention.kqv.weight.T + attention.kqv.bias).split(8, dim=-1)
    phi_q, phi_k = (
        torch.exp(torch.einsum("bnd,md->bnm", x, attention.w) - (x**2).sum(-1, keepdim=True) / 2)
        / 2
        for x in (q, k)
    )
    kernel = torch.einsum("bim,bjm->bij", phi_q, phi_k)
    return kernel / (kernel.sum(dim=-1, keepdim=True) + 1e-8), v


@settings(deadline=None, max_examples=40)
@given(
    stride=st.integers(1, 4),
    wider=st.integers(0, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
)
def test_one_patch_a_stride(stride: int, wider: int, rows: int, columns: int) -> None:
    kernel = stride + wider if stride > 1 else 1 + 2 * wider
    image = noise(2, 3, rows * stride, columns * stride)
    patches = SoftSplit(kernel, stride)(image)
    assert patches.shape == (2, rows * columns, 3 * kernel * kernel)
    padding = -(-(kernel - stride) // 2)
    padded = F.pad(image, (padding, kernel, padding, kernel))
    for i in range(rows):
        for j in range(columns):
            y, x = i * stride, j * stride
            expected = padded[:, :, y : y + kernel, x : x + kernel].flatten(1)
            assert torch.equal(patches[:, i * columns + j], expected)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 4, 2), (3, 2, 1), (3, 1, 1)])
def test_padding_is_that_of_the_paper(kernel: int, stride: int, padding: int) -> None:
    assert SoftSplit(kernel, stride).padding == padding


@pytest.mark.parametrize(("kernel", "stride"), [(3, 4), (2, 1)])
def test_patches_that_cannot_tile_are_refused(kernel: int, stride: int) -> None:
    with pytest.raises(AssertionError, match=f"{kernel}"):
        SoftSplit(kernel, stride)


def test_an_unpadded_map_is_refused() -> None:
    for size in ((5, 4), (4, 5)):
        with pytest.raises(AssertionError, match="multiple of the stride"):
            SoftSplit(3, 2)(noise(1, 1, *size))


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda part: type(part).__name__)
def test_attention_is_the_written_out_formula(attention: TokenAttention) -> None:
    randomise(attention)
    tokens = noise(2, 5, 12)
    with torch.no_grad():
        weights, v = explicit(attention, tokens)
        mixed, values = attention(tokens)
        torch.testing.assert_close(values, v)
        torch.testing.assert_close(mixed, attention.proj(weights @ v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_probe_sees_what_the_path_amounts_to(kind: int) -> None:
    """Also for Performer, whose path forms no matrix."""
    attention = (SoftmaxTokenAttention(12, 8), PerformerTokenAttention(12, 8, features=4))[kind]
    randomise(attention)
    seen: list[Any] = []
    attention.probe = lambda weights, v, out: seen.append((weights, v, out))
    tokens = noise(2, 5, 12)
    with torch.no_grad():
        attention(tokens)
        expected, values = explicit(attention, tokens)
    weights, v, out = seen.pop()
    torch.testing.assert_close(weights.rows(), expected[:, None])
    torch.testing.assert_close(v, values[:, None])
    torch.testing.assert_close(weights.rows() @ v, out)


def test_random_features_are_orthogonal_and_stay() -> None:
    attention = PerformerTokenAttention(12, 8, features=4)
    torch.testing.assert_close(attention.w @ attention.w.T, 4 * torch.eye(4))
    assert not attention.w.requires_grad
    assert "w" in attention.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_performer_is_computed_in_float32_under_autocast(dtype: torch.dtype) -> None:
    attention = randomise(PerformerTokenAttention(12, 8, features=4))
    attention.proj = nn.Identity()
    tokens = noise(2, 5, 12).to(dtype)
    with torch.no_grad():
        expected = attention(tokens.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            given = attention(tokens)
    for got, want in zip(given, expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_features_of_any_size_are_finite(size: float) -> None:
    attention = PerformerTokenAttention(12, 8, features=4)
    tokens = (noise(2, 5, 12) * size).requires_grad_()
    mixed, _ = attention(tokens)
    mixed.sum().backward()
    assert bool(mixed.isfinite().all())
    assert tokens.grad is not None
    assert bool(tokens.grad.isfinite().all())


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda part: type(part).__name__)
def test_a_block_runs_in_bfloat16(attention: TokenAttention) -> None:
    block = randomise(TokenBlock(12, 8, attention, eps=1e-5), std=0.1).eval()
    tokens = noise(2, 5, 12)
    with torch.no_grad():
        expected = block(tokens)
        got = block.bfloat16()(tokens.bfloat16())
    block.float()
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda part: type(part).__name__)
def test_the_values_are_the_skip_path(attention: TokenAttention) -> None:
    block = randomise(TokenBlock(12, 8, attention, eps=1e-5, dropout=0.5)).eval()
    tokens = noise(2, 5, 12)
    with torch.no_grad():
        normal = F.layer_norm(tokens, (12,), block.norm1.weight, block.norm1.bias, eps=1e-5)
        mixed, values = attention(normal)
        tokens_after = values + mixed
        inner = F.layer_norm(tokens_after, (8,), block.norm2.weight, block.norm2.bias, eps=1e-5)
        expected = tokens_after + block.mlp(inner)
        torch.testing.assert_close(block(tokens), expected)
        assert not torch.equal(block.train()(tokens), expected)


@pytest.mark.parametrize("size", [(8, 8), (8, 16), (7, 9), (1, 1), (17, 3)])
def test_tokens_to_token_serves_any_size(size: tuple[int, int]) -> None:
    blocks = [
        TokenBlock(27, 8, SoftmaxTokenAttention(27, 8), eps=1e-5),
        TokenBlock(72, 8, PerformerTokenAttention(72, 8, features=4), eps=1e-5),
    ]
    stem = randomise(TokensToToken(16, [(3, 2), (3, 2), (3, 1)], blocks, dim=72)).eval()
    assert stem.stride == 4
    image = noise(2, 3, *size)
    rows, columns = (-(-side // 4) for side in size)
    with torch.no_grad():
        cells = F.pad(image, (0, 4 * columns - size[1], 0, 4 * rows - size[0]))
        for (kernel, stride), block, scale in zip([(3, 2), (3, 2)], blocks, (2, 1), strict=True):
            tokens = block(F.unfold(cells, kernel, padding=1, stride=stride).transpose(1, 2))
            cells = tokens.transpose(1, 2).reshape(2, 8, scale * rows, scale * columns)
        # The last split and the projection are one convolution.
        expected = F.conv2d(
            cells, stem.project.weight.view(16, 8, 3, 3), stem.project.bias, padding=1
        )
        torch.testing.assert_close(stem(image), expected, rtol=1e-4, atol=1e-4)


def test_a_split_alone_needs_no_block() -> None:
    stem = TokensToToken(16, [(7, 4)], [], dim=147)
    assert stem(noise(1, 3, 9, 12)).shape == (1, 16, 3, 3)
    with pytest.raises(AssertionError, match="between each split"):
        TokensToToken(16, [(3, 2), (3, 2)], [], dim=27)
