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
from vitrail.nn.probe import AttentionWeights, KernelWeights, SoftmaxWeights


@contextmanager
def held_attention(model: Model) -> Generator[None]:
    """Inside, no gradient flows through attention weights (the rule for attention heads)."""

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del layer, v, out
        assert isinstance(weights, SoftmaxWeights | KernelWeights)
        for part in (weights.q, weights.k):
            if part.requires_grad:
                part.register_hook(torch.zeros_like)  # pyright: ignore[reportUnknownMemberType]

    with watching(attention_layers(model.backbone), watch):
        yield


@contextmanager
def held_norms(model: Model) -> Generator[None]:
    """Inside, no gradient flows through the deviations of norms (the rule for LayerNorm)."""
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
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
            groups, weight = x.reshape(*x.shape[: -len(norm.normalized_shape)], -1), norm.weight
        case nn.GroupNorm():
            groups = x.reshape(len(x), norm.num_groups, -1)
            weight = norm.weight.view(-1, *[1] * (x.ndim - 2))
        case _:
            raise AssertionError(f"a norm unknown here: {type(norm).__name__}")
    deviation = (groups.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt().detach()
    passed = ((groups - groups.mean(dim=-1, keepdim=True)) / deviation).reshape(x.shape) * weight
    return out.detach() + (passed - passed.detach())
