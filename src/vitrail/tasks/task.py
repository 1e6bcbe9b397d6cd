"""The seam of all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vitrail.data.dataset import Dataset
from vitrail.metrics.measured import Measured
from vitrail.types import Features, Prediction, Target


class Task(nn.Module, ABC):
    """A head on a backbone: output, loss, predictions that people read, and their measure."""

    @abstractmethod
    def forward(self, features: Features) -> Float[Tensor, "B ..."]:
        """Raw output of the head."""

    @abstractmethod
    def encode(
        self, targets: Sequence[Target], device: torch.device | str
    ) -> Shaped[Tensor, "B ..."]:
        """Targets of a batch as the tensor that `loss` takes."""

    @abstractmethod
    def loss(
        self, output: Float[Tensor, "B ..."], targets: Shaped[Tensor, "B ..."]
    ) -> Float[Tensor, "B"]:
        """One loss a sample; training takes the mean and names the samples that are not finite."""

    @abstractmethod
    def postprocess(self, output: Float[Tensor, "B ..."]) -> list[Prediction]:
        """One prediction an image."""

    @abstractmethod
    def adapt(self, dataset: Dataset) -> list[Target]:
        """The targets of labelled data in the model's own terms.

        Raises:
            DataError: the data do not fit the model; one line with the way out.
        """

    @abstractmethod
    def measure(
        self, predictions: Sequence[Prediction], targets: Sequence[Target], *, intervals: bool
    ) -> Measured:
        """Metrics of predictions against targets that `adapt` gave.

        Args:
            predictions: One an image.
            targets: One an image.
            intervals: Whether to bootstrap 95 % intervals.
        """
