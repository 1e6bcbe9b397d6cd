"""The seam of all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.data.dataset import Dataset
from vitrail.metrics.measured import Measured
from vitrail.types import Features, Grid, Prediction, Target

Output = TypeVar("Output")
"""What a head gives: a tensor, or a tuple of tensors, one row an image."""
Encoded = TypeVar("Encoded")
"""Targets of a batch as its loss takes them."""


class Task(nn.Module, ABC, Generic[Output, Encoded]):
    """A head on a backbone: output, loss, predictions that people read, and their measure."""

    @abstractmethod
    def forward(self, features: Features) -> Output:
        """Raw output of the head."""

    @abstractmethod
    def encode(self, targets: Sequence[Target], device: torch.device | str) -> Encoded:
        """Targets of a batch as `loss` takes them."""

    @abstractmethod
    def loss(self, output: Output, targets: Encoded) -> Float[Tensor, "B"]:
        """One loss a sample; training takes the mean and names the samples that are not finite."""

    @abstractmethod
    def postprocess(
        self, output: Output, sizes: Sequence[Grid] = (), extents: Sequence[Grid] = ()
    ) -> list[Prediction]:
        """One prediction an image.

        Args:
            output: Raw output.
            sizes: Height and width of each image before it was prepared, for tasks whose answers
                lie on it.
            extents: Rows and columns of each view that show it, for tasks whose answers are maps
                of the view.
        """

    @abstractmethod
    def adapt(self, dataset: Dataset) -> Sequence[Target]:
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
