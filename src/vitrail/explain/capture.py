"""Attention weights beside the fused path (contract 6)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.nn.attention import Attention


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One attention layer of one forward pass.

    Attributes:
        weights: softmax(q kᵀ · scale + bias) in float32; every row sums to 1.
        error: Largest difference between `weights @ v` and what the fused kernel gave, relative
            to the largest value of the latter: the proof that these weights were used.
    """

    weights: Float[Tensor, "B h N N"]
    error: float


@dataclass(slots=True)
class AttentionRecord:
    """What `capture` saw, layer by layer, in the order in which the layers ran."""

    layers: list[LayerAttention] = field(default_factory=list[LayerAttention])

    @property
    def max_error(self) -> float:
        """The worst error of all layers."""
        return max((layer.error for layer in self.layers), default=0.0)


@contextmanager
def capture(model: nn.Module, layers: Sequence[int] | None = None) -> Generator[AttentionRecord]:
    """Record attention while the model runs its fast path.

    Args:
        model: Any module that holds `Attention` parts.
        layers: Which of them, counted from 0 (negative from the end); None for all.

    Yields:
        The record; it fills up as the model is called inside the `with` block.
    """
    found = [module for module in model.modules() if isinstance(module, Attention)]
    wanted = found if layers is None else [found[i] for i in layers]
    record = AttentionRecord()

    def probe(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, out: Tensor
    ) -> None:
        scores = (q.float() @ k.float().transpose(-2, -1)) * scale
        weights = (scores if bias is None else scores + bias.float()).softmax(dim=-1)
        again = weights @ v.float()
        reference = out.float()
        norm = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        error = ((again - reference).abs().max() / norm).item()
        record.layers.append(LayerAttention(weights, error))

    for module in wanted:
        module.probe = probe
    try:
        yield record
    finally:
        for module in wanted:
            module.probe = None
