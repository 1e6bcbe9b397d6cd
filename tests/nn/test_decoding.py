from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vitrail.nn.decoder import Decoder, PostNormDecoderBlock, PreNormDecoderBlock
from vitrail.nn.decoding import CachedStep, Decoded, Step, UncachedStep, beam_search, greedy
from vitrail.nn.embedding import RotaryPositions, SinusoidalPositions

BEGIN, END, PADDING = 0, 1, 9


class Table(Step):
    """A model that is a table: log p of the next symbol by row, place and last symbol."""

    def __init__(self, rows: int, places: int, symbols: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(rows, places, symbols, symbols, generator=generator)
        self.table = logits.log_softmax(dim=-1)
        self.row = torch.arange(rows)
        self.calls = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        last = tokens[:, -1].where(tokens[:, -1] != PADDING, END)  # whatever follows is ignored
        return self.table[self.row, tokens.shape[1] - 1, last]

    def repeat(self, times: int) -> None:
        self.row = self.row.repeat_interleave(times)

    def select(self, rows: Tensor) -> None:
        assert torch.equal(self.row[rows], self.row), "a row moved to another sequence"


def begin(rows: int) -> Tensor:
    return torch.full((rows, 1), BEGIN)


def best_of_all(step: Table, row: int, most: int, alpha: float) -> tuple[float, list[int], float]:
    """Score, symbols and log p of the best sequence, by trying all."""
    found: list[tuple[float, list[int], float]] = []
    symbols = step.table.shape[-1]
    for length in range(1, most + 1):
        for words in product(range(symbols), repeat=length):
            closes = words[-1] == END
            if END in words[:-1] or not (closes or length == most):
                continue
            steps = zip((BEGIN, *words), words, strict=False)
            total = sum(step.table[row, i, a, b].item() for i, (a, b) in enumerate(steps))
            score = total / ((5 + length) / 6) ** alpha
            found.append((score, list(words[:-1] if closes else words), total))
    return max(found)


def written(out: Decoded) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(out.tokens, out.lengths, strict=True)]


def log_prob(step: Table, row: int, words: list[int], *, ended: bool) -> float:
    whole = [BEGIN, *words, *([END] if ended else [])]
    steps = pairwise(whole)
    return sum(step.table[row, i, a, b].item() for i, (a, b) in enumerate(steps))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(2, 6))
def test_greedy_takes_the_best_symbol_until_the_end(seed: int, most: int, symbols: int) -> None:
    step = Table(4, most, symbols, seed)
    out = greedy(step, begin(4), end=END, padding=PADDING, max_length=most)
    for row, words in enumerate(written(out)):
        expected, last = [], BEGIN
        for place in range(most):
            last = int(step.table[row, place, last].argmax())
            if last == END:
                break
            expected.append(last)
        ended = last == END
        assert words == expected
        assert bool(out.ended[row]) == ended
        assert (out.tokens[row, len(words) :] == PADDING).all()
        total = log_prob(step, row, words, ended=ended)
        assert out.log_probs[row].item() == pytest.approx(total, abs=1e-4)
    assert out.tokens.shape[1] == int(out.lengths.max())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(1, 4), st.sampled_from([0.0, 0.6, 1.0]))
def test_a_wide_beam_finds_the_best_of_all(seed: int, most: int, alpha: float) -> None:
    step = Table(2, most, 3, seed)
    out = beam_search(
        step, begin(2), beams=81, end=END, padding=PADDING, max_length=most, alpha=alpha
    )
    for row in range(2):
        _, words, total = best_of_all(step, row, most, alpha)
        assert written(out)[row] == words
        assert out.log_probs[row].item() == pytest.approx(total, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(2, 6))
def test_one_beam_is_greedy(seed: int, most: int, symbols: int) -> None:
    rules = {"end": END, "padding": PADDING, "max_length": most}
    plain = greedy(Table(4, most, symbols, seed), begin(4), **rules)
    beam = beam_search(Table(4, most, symbols, seed), begin(4), beams=1, **rules)
    assert written(beam) == written(plain)
    assert torch.equal(beam.lengths, plain.lengths)
    assert torch.equal(beam.ended, plain.ended)
    torch.testing.assert_close(beam.log_probs, plain.log_probs)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(2, 5), st.sampled_from([0.0, 0.6, 1.0]))
def test_a_beam_says_how_probable_its_answer_is(seed: int, beams: int, alpha: float) -> None:
    step = Table(3, 6, 5, seed)
    rules = {"end": END, "padding": PADDING, "max_length": 6}
    out = beam_search(step, begin(3), beams=beams, alpha=alpha, **rules)
    for row, words in enumerate(written(out)):
        total = log_prob(step, row, words, ended=bool(out.ended[row]))
        assert out.log_probs[row].item() == pytest.approx(total, abs=1e-4)
        assert END not in words
        alone = Table(3, 6, 5, seed)
        alone.table, alone.row = alone.table[row : row + 1], torch.arange(1)
        single = beam_search(alone, begin(1), beams=beams, alpha=alpha, **rules)
        assert written(single)[0] == words, "a batch is its sequences"


def test_a_beam_finds_what_greedy_misses_and_alpha_favours_length() -> None:
    """2 looks best at first and leads nowhere; 3 is followed by a sure end."""
    step = Table(1, 3, 4, 0)
    p = torch.full((3, 4, 4), 1e-6)
    p[0, BEGIN] = torch.tensor([1e-6, 0.28, 0.40, 0.32])
    p[1, 2] = torch.tensor([1e-6, 0.34, 0.33, 0.33])
    p[1, 3] = torch.tensor([1e-6, 0.85, 1e-6, 0.15])
    p[2] = 0.25
    step.table = p.log()[None]
    rules = {"end": END, "padding": PADDING, "max_length": 3}
    assert written(greedy(step, begin(1), **rules)) == [[2]]
    assert written(beam_search(step, begin(1), beams=3, alpha=0.0, **rules)) == [[]]
    step.row = torch.arange(1)
    assert written(beam_search(step, begin(1), beams=3, alpha=1.0, **rules)) == [[3]]


def test_it_stops_when_all_have_ended() -> None:
    step = Table(2, 50, 3, 0)
    step.table[:, 2:, :, END] = 100
    step.table = step.table.log_softmax(dim=-1)
    for beams in (0, 2):
        step.calls, step.row = 0, torch.arange(2)
        rules = {"end": END, "padding": PADDING, "max_length": 50}
        out = (
            beam_search(step, begin(2), beams=beams, **rules)
            if beams
            else greedy(step, begin(2), **rules)
        )
        assert step.calls <= 4
        assert out.ended.all()


def test_a_prompt_may_be_longer_and_is_not_repeated() -> None:
    step = Table(1, 8, 4, 3)
    prompt = torch.tensor([[BEGIN, 2, 3]])
    out = greedy(step, prompt, end=END, padding=PADDING, max_length=2)
    assert out.tokens[0, 0] == step.table[0, 2, 3].argmax() or out.lengths[0] == 0
    assert out.tokens.shape[1] <= 2


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_what_cannot_be_searched_is_refused(search: str) -> None:
    def run(prompt: Tensor, max_length: int, beams: int = 2) -> Decoded:
        step, rules = Table(1, 3, 3, 0), {"end": END, "padding": PADDING, "max_length": max_length}
        if search == "greedy" and beams == 2:
            return greedy(step, prompt, **rules)
        return beam_search(step, prompt, beams=beams, **rules)

    with pytest.raises(ValueError, match="the prompt has no symbols"):
        run(torch.zeros(1, 0, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="max_length = 0: give room"):
        run(begin(1), 0)
    with pytest.raises(ValueError, match="beams = 0: search with at least 1"):
        run(begin(1), 3, beams=0)


def as_if_trained(module: nn.Module) -> nn.Module:
    """Random weights of the size that training leaves: norms near 1, variances kept."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(noise * 1.5 * parameter.shape[1] ** -0.5)
            else:
                parameter.copy_(0.1 * noise + float("norm" in name and name.endswith("weight")))
    return module


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("block", [PreNormDecoderBlock, PostNormDecoderBlock])
def test_cached_and_uncached_write_the_same(block: type, positions: str) -> None:
    rows, most = 100, 16
    places = RotaryPositions(16) if positions == "rotary" else SinusoidalPositions()
    layers = [block(64, 4, 128) for _ in range(2)]
    decoder = Decoder(13, 64, layers, places, norm=nn.LayerNorm(64))
    decoder = as_if_trained(decoder).eval()
    memory = torch.randn(rows, 9, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.randint(1, 10, (rows, 1), generator=torch.Generator())
    rules = {"end": END, "padding": PADDING, "max_length": most}
    for beams in (0, 4):
        outs = []
        for step in (
            CachedStep(decoder, memory, mask, capacity=most),
            UncachedStep(decoder, memory, mask),
        ):
            if beams:
                outs.append(beam_search(step, begin(rows), beams=beams, **rules))
            else:
                outs.append(greedy(step, begin(rows), **rules))
        cached, uncached = outs
        assert torch.equal(cached.tokens, uncached.tokens)
        assert torch.equal(cached.lengths, uncached.lengths)
        assert torch.equal(cached.ended, uncached.ended)
        torch.testing.assert_close(cached.log_probs, uncached.log_probs, rtol=1e-4, atol=1e-4)
        assert len({tuple(row) for row in cached.tokens.tolist()}) > rows // 4, "they differ"


def test_the_cache_must_be_large_enough() -> None:
    layers = [PreNormDecoderBlock(16, 2, 32)]
    decoder = Decoder(13, 16, layers, SinusoidalPositions(), norm=nn.LayerNorm(16)).eval()
    step = CachedStep(decoder, torch.randn(2, 3, 16), capacity=4)
    with pytest.raises(ValueError, match=r"5 symbols does not fit .* start it with a larger"):
        greedy(step, begin(2), end=12, padding=PADDING, max_length=9)
