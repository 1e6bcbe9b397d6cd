"""Writing a sequence symbol by symbol: greedy, or with a beam.

Both work on any `Step`, a function from the symbols so far to the logits of the next. `CachedStep`
and `UncachedStep` run a decoder; they differ in cost only (linear and quadratic in the length).
Put the model in evaluation mode first: dropout would make every step another model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.nn.decoder import Decoder


class Step(ABC):
    """The next symbol, for several sequences that grow together."""

    @abstractmethod
    def __call__(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Logits of the symbol after the last one, for all symbols so far."""

    @abstractmethod
    def repeat(self, times: int) -> None:
        """Follow every sequence by copies of it: rows 0 0 1 1 2 2 for two times."""

    @abstractmethod
    def select(self, rows: Int[Tensor, " B"]) -> None:
        """Row i goes on from row `rows[i]`, a copy of the same sequence."""


class CachedStep(Step):
    """Each symbol is read once; keys and values of the earlier ones are kept.

    Args:
        decoder: In evaluation mode.
        memory: What it reads.
        memory_mask: True at the memory's tokens, False at padding.
        capacity: Symbols to make room for: those of the prompt and all but the last to be written.
    """

    def __init__(
        self,
        decoder: Decoder,
        memory: Float[Tensor, "B N D"],
        memory_mask: Bool[Tensor, "B N"] | None = None,
        *,
        capacity: int,
    ) -> None:
        self.decoder = decoder
        with torch.no_grad():
            self.cache = decoder.start(memory, memory_mask, capacity=capacity)

    @torch.no_grad()
    def __call__(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Read what is new."""
        hidden = self.decoder.extend(tokens[:, self.cache.length :], self.cache)
        return self.decoder.logits(hidden[:, -1:])[:, 0]

    def repeat(self, times: int) -> None:
        """Copy what was read, and the memory."""
        self.cache.repeat(times)

    def select(self, rows: Int[Tensor, " B"]) -> None:
        """Go on from what those rows have read."""
        self.cache.select(rows)


class UncachedStep(Step):
    """All symbols are read again at every step: the plain definition, to check the cache against.

    Args:
        decoder: In evaluation mode.
        memory: What it reads.
        memory_mask: True at the memory's tokens, False at padding.
    """

    def __init__(
        self,
        decoder: Decoder,
        memory: Float[Tensor, "B N D"],
        memory_mask: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        self.decoder, self.memory, self.memory_mask = decoder, memory, memory_mask

    @torch.no_grad()
    def __call__(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Read everything."""
        hidden = self.decoder.hidden(tokens, self.memory, self.memory_mask)
        return self.decoder.logits(hidden[:, -1:])[:, 0]

    def repeat(self, times: int) -> None:
        """Copy the memory."""
        self.memory = self.memory.repeat_interleave(times, dim=0)
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask.repeat_interleave(times, dim=0)

    def select(self, rows: Int[Tensor, " B"]) -> None:
        """Nothing to do: copies of a sequence have the same memory."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was written, without the prompt.

    Attributes:
        tokens: The symbols before the end symbol, then padding; T is the longest of `lengths`.
        lengths: How many there are in each sequence.
        log_probs: log p(symbols | prompt, memory), 0 or less; the end symbol counts if it came.
        ended: Whether the end symbol came; otherwise the sequence was cut off.
    """

    tokens: Int[Tensor, "B T"]
    lengths: Int[Tensor, " B"]
    log_probs: Float[Tensor, " B"]
    ended: Bool[Tensor, " B"]


@torch.no_grad()
def greedy(
    step: Step, prompt: Int[Tensor, "B P"], *, end: int, padding: int, max_length: int
) -> Decoded:
    """The most probable symbol at each step, until every sequence has ended.

    Args:
        step: The model.
        prompt: Symbols to begin with, at least one each: the begin symbol.
        end: The end symbol.
        padding: Fills the place after a sequence; a symbol that the model can read.
        max_length: Most symbols to write, the end symbol included.

    Raises:
        ValueError: the prompt has no symbols, or `max_length` is below 1.
    """
    _insist(prompt, max_length)
    B, P = prompt.shape
    tokens, ended = prompt, torch.zeros(B, dtype=torch.bool, device=prompt.device)
    lengths, total = torch.zeros_like(prompt[:, 0]), torch.zeros(B, device=prompt.device)
    for _ in range(max_length):
        best, symbol = step(tokens).float().log_softmax(dim=-1).max(dim=-1)
        total = torch.where(ended, total, total + best)
        ended = ended | (symbol == end)
        lengths = lengths + ~ended
        tokens = torch.cat([tokens, symbol.masked_fill(ended, padding)[:, None]], dim=1)
        if ended.all():
            break
    return Decoded(tokens[:, P : P + int(lengths.max())], lengths, total, ended)


@torch.no_grad()
def beam_search(
    step: Step,
    prompt: Int[Tensor, "B P"],
    *,
    beams: int,
    end: int,
    padding: int,
    max_length: int,
    alpha: float = 0.6,
) -> Decoded:
    """The best of the sequences found by keeping the `beams` most probable beginnings.

    Sequences are compared by log p / ((5 + n) / 6)^alpha for n symbols with the end symbol (Wu et
    al. 2016, equation 14): without it the short ones win. A search is over once `beams` sequences
    have ended, or no beginning can overtake the best of them. One beam is `greedy`.

    Args:
        step: The model; it is left with `beams` rows a sequence.
        prompt: Symbols to begin with, at least one each: the begin symbol.
        beams: Beginnings to keep, K.
        end: The end symbol.
        padding: Fills the place after a sequence; a symbol that the model can read.
        max_length: Most symbols to write, the end symbol included.
        alpha: Length normalisation, 0 or more; 0 for none, 0.6 in Vaswani et al. 2017, section 6.1.

    Raises:
        ValueError: the prompt has no symbols, or `max_length` or `beams` is below 1.
    """
    _insist(prompt, max_length)
    if beams < 1:
        raise ValueError(f"beams = {beams}: search with at least 1")
    (B, P), K = prompt.shape, beams
    step.repeat(K)
    tokens = prompt[:, None].expand(B, K, P)
    first_row = torch.arange(B, device=prompt.device)[:, None] * K
    # All beams begin equal: only the first may be continued, or each would find the same.
    sums = torch.full((B, K), -torch.inf, device=prompt.device)
    sums[:, 0] = 0
    best = _Best(prompt, max_length, padding)
    closed = torch.zeros_like(prompt[:, 0])
    for n in range(1, max_length + 1):
        log_probs = step(tokens.flatten(0, 1)).float().log_softmax(dim=-1).reshape(B, K, -1)
        # At most K of the best 2K end, so that K are left to go on.
        ranked, place = (sums[..., None] + log_probs).flatten(1).topk(2 * K, dim=1)
        beam, symbol = place // log_probs.shape[-1], place % log_probs.shape[-1]
        ends = (symbol == end) & ranked.isfinite()
        closing = torch.where(ends, ranked, -torch.inf)[:, :K]
        best.offer(tokens[:, :, P:], beam[:, :K], closing, _penalty(n, alpha), ended=True)
        closed = closed + ends[:, :K].sum(dim=1)
        sums, chosen = torch.where(symbol == end, -torch.inf, ranked).topk(K, dim=1)
        beam, symbol = beam.gather(1, chosen), symbol.gather(1, chosen)
        step.select((first_row + beam).flatten())
        tokens = torch.cat([_rows(tokens, beam), symbol[..., None]], dim=2)
        attainable = sums[:, 0] / _penalty(max_length, alpha)
        best.over |= (closed >= K) | (best.score >= attainable)
        if best.over.all():
            break
    own = torch.arange(K, device=prompt.device).expand(B, K)
    best.offer(tokens[:, :, P:], own, sums, _penalty(max_length, alpha), ended=False)
    return best.decoded()


class _Best:
    """The best sequence so far of each search, until that search is over."""

    def __init__(self, prompt: Int[Tensor, "B P"], max_length: int, padding: int) -> None:
        B, device = prompt.shape[0], prompt.device
        self.over = torch.zeros(B, dtype=torch.bool, device=device)
        self.score = torch.full((B,), -torch.inf, device=device)
        self._tokens = prompt.new_full((B, max_length), padding)
        self._lengths = prompt.new_zeros(B)
        self._total = torch.zeros(B, device=device)
        self._ended = torch.zeros(B, dtype=torch.bool, device=device)

    def offer(
        self,
        tokens: Int[Tensor, "B K T"],
        beam: Int[Tensor, "B K"],
        sums: Float[Tensor, "B K"],
        penalty: float,
        *,
        ended: bool,
    ) -> None:
        """Take the best of these candidates, of one length, where it is better than what is held.

        Args:
            tokens: Symbols of each beam.
            beam: The beam of each candidate.
            sums: log p of each candidate; minus infinity for none.
            penalty: What to divide it by.
            ended: Whether the end symbol follows the tokens.
        """
        total, index = sums.max(dim=1)
        better = ~self.over & (total / penalty > self.score)
        T = tokens.shape[2]
        winner = _rows(tokens, beam.gather(1, index[:, None]))[:, 0]
        # A later candidate is longer, so nothing of the one before is left behind.
        self._tokens[:, :T] = torch.where(better[:, None], winner, self._tokens[:, :T])
        self._lengths.masked_fill_(better, T)
        self._total = torch.where(better, total, self._total)
        self.score = torch.where(better, total / penalty, self.score)
        self._ended = torch.where(better, ended, self._ended)

    def decoded(self) -> Decoded:
        """What was found."""
        longest = int(self._lengths.max())
        return Decoded(self._tokens[:, :longest], self._lengths, self._total, self._ended)


def _rows(tokens: Int[Tensor, "B K T"], beam: Int[Tensor, "B R"]) -> Int[Tensor, "B R T"]:
    """The symbols of those beams."""
    return tokens.gather(1, beam[..., None].expand(-1, -1, tokens.shape[2]))


def _penalty(symbols: int, alpha: float) -> float:
    return ((5 + symbols) / 6) ** alpha


def _insist(prompt: Int[Tensor, "B P"], max_length: int) -> None:
    if prompt.shape[1] == 0:
        raise ValueError("the prompt has no symbols: begin it with the begin symbol")
    if max_length < 1:
        raise ValueError(f"max_length = {max_length}: give room for at least the end symbol")
