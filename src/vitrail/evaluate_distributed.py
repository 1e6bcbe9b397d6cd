"""Evaluation in several processes: each predicts its part, all measure the whole."""

from __future__ import annotations

from typing import cast

from torch import distributed

from vitrail.data.dataset import Dataset, Subset
from vitrail.data.loader import Workers
from vitrail.evaluate import Evaluation, evaluation_of
from vitrail.model import Model
from vitrail.predict import Row, predict


def evaluate_distributed(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    workers: Workers | None = None,
    intervals: bool = True,
) -> Evaluation:
    """Measure a model with all processes of the default group; each returns the same.

    Each takes every n-th image. Nothing is filled up, so that no image counts twice, and rows are
    measured in the order of the data set, so that equal scores are ranked as by one process.

    Args:
        model: With the same weights in every process.
        dataset: The same in every process.
        batch_size: Images a forward pass.
        workers: How images are decoded; measured by default.
        intervals: Whether to bootstrap intervals.

    Raises:
        DataError: as of `evaluate`.
    """
    targets = model.task.adapt(dataset)
    count, rank = distributed.get_world_size(), distributed.get_rank()
    part = Subset(dataset, range(rank, len(dataset), count))
    own = list(predict(model, part, batch_size=batch_size, workers=workers))
    parts = cast("list[list[Row]]", [[] for _ in range(count)])
    distributed.all_gather_object(parts, own)  # pyright: ignore[reportUnknownMemberType]
    rows = [parts[i % count][i // count] for i in range(len(dataset))]
    return evaluation_of(model, rows, targets, intervals=intervals)
