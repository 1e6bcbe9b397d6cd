"""The longest chain of dependent operations of a network, read off torch's own graph."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


def longest_chain(output: Tensor) -> int:
    """Operations on the longest path through the autograd graph that leads to a tensor.

    Each operation of that path needs the result of the one before it, whatever the hardware. A
    fused kernel, such as one of attention, is one operation.
    """
    start: Any = output.grad_fn
    length: dict[Any, int] = {}
    stack: list[tuple[Any, bool]] = [(start, False)]
    while stack:
        node, seen = stack.pop()
        if node in length:
            continue
        before = [parent for parent, _ in node.next_functions if parent is not None]
        if seen:
            length[node] = 1 + max((length[parent] for parent in before), default=0)
        else:
            stack.append((node, True))
            stack += [(parent, False) for parent in before if parent not in length]
    return length[start]


def chain_of(model: nn.Module, images: Tensor) -> int:
    """Longest chain from the weights and images of a model to its output, in training mode.

    oneDNN is off meanwhile: it would hide the time steps of an LSTM in one operation.
    """
    training = model.training
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of Intel GPUs when the switch is touched
        with torch.backends.mkldnn.flags(enabled=False):
            chain = longest_chain(model(images))
    model.train(training)
    return chain
