"""Gradients with attention weights or norms held fixed (Ali et al. 2022, section 4).

A Transformer's plain gradient mostly tells how softmax and norms would react to a change. With both
held, what is left is nearly linear: how what was passed on became the logit. Values stay what they
are.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitrail.explain.layers import AttentionLayer, attention_layers, watching
from vitrail.model import Model
from vitrail.nn.probe import AttentionWeights, KernelWeights, SampledWeights, SoftmaxWeights
from vitrail.nn.projector import ChannelNorm


@contextmanager
def held_attention(model: Model) -> Generator[None]:
    """Inside, no gradient flows through attention weights (the rule for attention heads)."""

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del layer, v, out
        for part in _parts(weights):
            if part.requires_grad:
                part.register_hook(torch.zeros_like)  # pyright: ignore[reportUnknownMemberType]

    with watching(attention_layers(model), watch):
        yield


def _parts(weights: AttentionWeights) -> tuple[Tensor, Tensor]:
    """What weights follow from."""
    match weights:
        case SoftmaxWeights(q=q, k=k) | KernelWeights(q=q, k=k):
            return q, k
        case SampledWeights(places=places, shares=shares):
            return places, shares
        case _:
            raise AssertionError(f"weights unknown here: {type(weights).__name__}")


@contextmanager
def held_norms(model: Model) -> Generator[None]:
    """Inside, no gradient flows through the deviations of norms (the rule for LayerNorm)."""
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm | ChannelNorm)]
    hooks = [norm.register_forward_hook(_hold) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hold(norm: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
    """The same values, with the gradient of a norm whose deviations are constants."""
    (x,) = given
    match norm:
        case nn.LayerNorm():
            axes = tuple(range(-len(norm.normalized_shape), 0))
            passed = _held_norm(x, axes, norm.eps) * norm.weight
        case nn.GroupNorm():
            groups = _held_norm(x.reshape(len(x), norm.num_groups, -1), (-1,), norm.eps)
            passed = groups.reshape(x.shape) * norm.weight.view(-1, *[1] * (x.ndim - 2))
        case ChannelNorm():
            passed = _held_norm(x, (1,), norm.eps) * norm.weight[:, None, None]
        case _:
            raise AssertionError(f"a norm unknown here: {type(norm).__name__}")
    return out.detach() + (passed - passed.detach())


def _held_norm(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    deviation = (x.var(dim=axes, correction=0, keepdim=True) + eps).sqrt().detach()
    return (x - x.mean(dim=axes, keepdim=True)) / deviation
