"""The seam of all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.types import Features, Prediction, Target


class Task(nn.Module, ABC):
    """A head on a backbone: output, loss, and predictions that people read."""

    @abstractmethod
    def forward(self, features: Features) -> Float[Tensor, "B C"]:
        """Raw output of the head."""

    @abstractmethod
    def encode(self, targets: Sequence[Target], device: torch.device | str) -> Float[Tensor, "B C"]:
        """Targets of a batch as the tensor that `loss` takes; mixing may average its rows."""

    @abstractmethod
    def loss(
        self, output: Float[Tensor, "B C"], targets: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B"]:
        """One loss a sample; training takes the mean and names the samples that are not finite."""

    @abstractmethod
    def postprocess(self, output: Float[Tensor, "B C"]) -> list[Prediction]:
        """One prediction an image."""
