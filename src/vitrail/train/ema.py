"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """The average of all floating-point weights and running statistics.

    Early on the decay is held at (1 + step) / (10 + step), so that the fresh weights are soon
    forgotten.

    Args:
        model: The model that is followed.
        decay: Share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over an average that was saved.

        Raises:
            KeyError: it is that of another model.
        """
        for name, average in self.state.items():
            average.copy_(state[name])

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after an optimizer step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - decay)
            else:
                self.state[name].copy_(tensor)
