from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tiny import randomise
from vitrail.nn.decoder import Decoder, PostNormDecoderBlock, PreNormDecoderBlock
from vitrail.nn.embedding import (
    RotaryPositions,
    SequencePositions,
    SinusoidalPositions,
    TokenEmbedding,
)
from vitrail.nn.probe import AttentionWeights, SoftmaxWeights
from vitrail.nn.sequence_attention import CausalAttention, CrossAttention, SelfAttention

POSITIONS: dict[str, SequencePositions] = {
    "sinusoidal": SinusoidalPositions(),
    "rotary": RotaryPositions(8),
}
BLOCKS = {"pre": PreNormDecoderBlock, "post": PostNormDecoderBlock}

every_position = pytest.mark.parametrize("positions", POSITIONS)
every_block = pytest.mark.parametrize("block", BLOCKS)


def decoder(block: str = "pre", positions: str = "sinusoidal", **options: Any) -> Decoder:
    """Two layers of width 16 over 11 symbols, with weights that matter."""
    layers = [BLOCKS[block](16, 2, 32) for _ in range(2)]
    built = Decoder(11, 16, layers, POSITIONS[positions], norm=nn.LayerNorm(16), **options)
    return randomise(built, std=0.3).eval()


def symbols(rows: int = 3, count: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(0, 11, (rows, count), generator=torch.Generator().manual_seed(seed))


def vectors(rows: int = 3, count: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(rows, count, 16, generator=torch.Generator().manual_seed(seed))


def test_the_embedding_is_scaled() -> None:
    embedding = TokenEmbedding(5, 16)
    picked = embedding(torch.tensor([[3, 1]]))
    assert torch.equal(picked[0], embedding.weight[[3, 1]] * 4)
    assert TokenEmbedding(2000, 64).weight.std().item() == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("dim", [6, 7])
@pytest.mark.parametrize("start", [0, 5])
def test_the_sinusoid_is_the_formula(dim: int, start: int) -> None:
    table, rotation = SinusoidalPositions()(torch.zeros(1, 4, dim), start)
    assert rotation is None
    for row in range(4):
        for column in range(dim):
            angle = (start + row) / 10_000 ** (2 * (column // 2) / dim)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[0, row, column].item() == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 300), st.integers(0, 40), st.integers(0, 2**16))
def test_rotated_scores_depend_on_the_distance_only(start: int, gap: int, seed: int) -> None:
    layer = randomise(SelfAttention(16, 2)).eval()
    x = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(seed))

    def score(places: tuple[int, int]) -> float:
        rotations = [RotaryPositions(8)(x[:, i : i + 1], p)[1] for i, p in enumerate(places)]
        q = layer._project(x[:, :1], rotations[0])[0]
        k = layer._project(x[:, 1:], rotations[1])[1]
        return (q * k)[0, 0].sum().item()

    here, there = score((start, start + gap)), score((0, gap))
    assert here == pytest.approx(there, rel=1e-2, abs=1e-2)


def test_rotary_positions_are_float32_whatever_the_precision() -> None:
    tokens = torch.zeros(1, 2, 16, dtype=torch.bfloat16)
    rotation = RotaryPositions(8).bfloat16()(tokens, 500)[1]
    assert rotation is not None
    assert rotation[0][1, 0].item() == pytest.approx(math.cos(501), abs=1e-4)
    with pytest.raises(AssertionError, match="even head width, got 7"):
        RotaryPositions(7)


def written_out(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Equation 1 for two heads; `seen` says which keys a query may use."""
    heads = []
    for h in (slice(0, 8), slice(8, 16)):
        scores = torch.einsum("bid,bjd->bij", q[..., h], k[..., h]) / 8**0.5
        weights = scores.exp() * seen
        heads.append(torch.einsum("bij,bjd->bid", weights / weights.sum(-1, True), v[..., h]))
    return torch.cat(heads, dim=-1)


@torch.no_grad()
def test_the_three_attentions_are_the_formula() -> None:
    x, memory = vectors(count=4), vectors(count=5, seed=2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    bias = torch.zeros(3, 1, 1, 5).masked_fill(~mask[:, None, None], -torch.inf)
    both, causal, cross = (
        randomise(kind(16, 2)).eval() for kind in (SelfAttention, CausalAttention, CrossAttention)
    )
    expected = both.proj(written_out(*both.qkv(memory).split(16, -1), mask[:, None]))
    torch.testing.assert_close(both(memory, None, bias), expected, rtol=1e-4, atol=1e-4)
    earlier = torch.ones(4, 4).tril()
    expected = causal.proj(written_out(*causal.qkv(x).split(16, -1), earlier))
    torch.testing.assert_close(causal(x, None, None), expected, rtol=1e-4, atol=1e-4)
    k, v = cross.kv(memory).split(16, -1)
    expected = cross.proj(written_out(cross.q(x), k, v, mask[:, None]))
    torch.testing.assert_close(cross(x, cross.read(memory, bias)), expected, rtol=1e-4, atol=1e-4)


@every_position
@every_block
@torch.no_grad()
def test_a_symbol_changes_nothing_before_it(block: str, positions: str) -> None:
    model, tokens, memory = decoder(block, positions), symbols(), vectors()
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = model(tokens, memory), model(changed, memory)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=1e-5, atol=1e-5)
    assert (after[:, 4:] - before[:, 4:]).abs().amax(dim=(0, 2)).min() > 1e-3


@every_position
@every_block
@torch.no_grad()
def test_padding_of_the_memory_changes_nothing(block: str, positions: str) -> None:
    model, tokens, memory = decoder(block, positions), symbols(), vectors()
    padded = torch.cat([memory, 100 * vectors(count=3, seed=5)], dim=1)
    mask = (torch.arange(8) < 5).expand(3, 8)
    torch.testing.assert_close(
        model(tokens, padded, mask), model(tokens, memory), rtol=1e-4, atol=1e-4
    )
    assert model(tokens, padded, torch.zeros_like(mask)).isfinite().all()


@every_position
@torch.no_grad()
def test_order_matters(positions: str) -> None:
    model, memory = decoder(positions=positions), vectors(1)
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    assert (model(one, memory) - model(other, memory))[:, -1].abs().max() > 1e-3


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.sampled_from(sorted(POSITIONS)),
    st.sampled_from(sorted(BLOCKS)),
)
def test_a_cache_gives_the_same_in_pieces_of_any_length(
    pieces: list[int], positions: str, block: str
) -> None:
    model, memory = decoder(block, positions), vectors()
    tokens = symbols(count=sum(pieces))
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    with torch.no_grad():
        cache = model.start(memory, mask, capacity=sum(pieces))
        hidden = [model.extend(piece, cache) for piece in tokens.split(pieces, dim=1)]
        whole = model.hidden(tokens, memory, mask)
    assert cache.length == sum(pieces)
    torch.testing.assert_close(torch.cat(hidden, dim=1), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_rows_of_a_cache_are_copied_and_chosen() -> None:
    model, tokens, memory = decoder(), symbols(2), vectors(2)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    cache = model.start(memory, mask, capacity=7)
    model.extend(tokens[:, :3], cache)
    cache.repeat(2)
    cache.select(torch.tensor([1, 0, 3, 2]))
    rows = torch.tensor([0, 0, 1, 1])
    expected = model.hidden(tokens[rows], memory[rows], mask[rows])[:, 3:]
    torch.testing.assert_close(model.extend(tokens[rows, 3:], cache), expected)


@torch.no_grad()
def test_what_does_not_fit_is_refused() -> None:
    model = decoder()
    cache = model.start(vectors(), capacity=4)
    model.extend(symbols(count=3), cache)
    with pytest.raises(ValueError, match=r"of 5 symbols does not fit the cache, .* room for 4"):
        model.extend(symbols(count=2), cache)
    with pytest.raises(ValueError, match="no symbols: begin it with the begin symbol"):
        model(symbols(count=0), vectors())


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_learns(tied: bool) -> None:
    model = decoder(tied=tied).train()
    logits = model(symbols(), vectors())
    (logits * torch.randn_like(logits)).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert ("generator.weight" in model.state_dict()) == (not tied)


@torch.no_grad()
def test_a_tied_generator_is_the_embedding() -> None:
    model, tokens, memory = decoder(tied=True), symbols(), vectors()
    hidden = model.hidden(tokens, memory)
    expected = hidden @ model.embedding.weight.T + model.generator.bias
    torch.testing.assert_close(model(tokens, memory), expected)


def test_the_probe_sees_the_masks() -> None:
    model = decoder()
    seen: list[tuple[float, bool]] = []

    def probe(weights: AttentionWeights, v: torch.Tensor, out: torch.Tensor) -> None:
        assert isinstance(weights, SoftmaxWeights)
        error = (weights.rows() @ v - out).abs().max().item()
        seen.append((error, weights.bias is not None))

    for block in model.blocks:
        block.attn.probe = block.cross.probe = probe
    with torch.no_grad():
        model(symbols(), vectors(), (torch.arange(5) < 3).expand(3, 5))
        cache = model.start(vectors(), capacity=1)
        model.extend(symbols(count=1), cache)
    assert [masked for _, masked in seen] == [True] * 4 + [False] * 4
    assert max(error for error, _ in seen) < 1e-4


@torch.no_grad()
def test_bfloat16_is_served() -> None:
    model = decoder(positions="rotary").bfloat16()
    mask = (torch.arange(5) < 3).expand(3, 5)
    logits = model(symbols(), vectors().bfloat16(), mask)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
