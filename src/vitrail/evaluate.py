"""Evaluation: predictions beside labels. It runs `predict`, so that both give the same answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from vitrail.data.dataset import Dataset, Picked
from vitrail.data.loader import Workers
from vitrail.data.open import Split, open_source
from vitrail.data.recognise import Wanted
from vitrail.errors import DataError
from vitrail.metrics.measured import Measured
from vitrail.model import Model
from vitrail.predict import Row, predict
from vitrail.types import Skipped, Target
from vitrail.weights.modelfile import Provenance


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model does on a labelled set.

    Attributes:
        count: Samples measured; the quarantined are not among them.
        result: Metrics, intervals, and what else belongs to the task: per-class rows, confusion
            and calibration, or rows by length.
        rows: The prediction of every sample, errors included, as `predict` gave it.
        quarantined: Samples that could not be read, with the reason.
    """

    count: int
    result: Measured
    rows: tuple[Row, ...]
    quarantined: tuple[Skipped, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Metric names and values."""
        return self.result.metrics


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    workers: Workers | None = None,
    intervals: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a model on a labelled data set.

    Args:
        model: The model; it is put into evaluation mode.
        dataset: Labelled; classes and symbols are matched by name, in whatever order.
        batch_size: Images a forward pass.
        workers: How images are decoded; measured by default.
        intervals: Whether to bootstrap intervals.
        progress: Called after each image with the number done.

    Raises:
        DataError: the data do not fit the model (an unknown class or symbol, several labels an
            image where the model gives one, a sample without a label), or no sample can be read.
    """
    targets = model.task.adapt(dataset)
    rows = tuple(
        _counted(predict(model, dataset, batch_size=batch_size, workers=workers), progress)
    )
    return evaluation_of(model, rows, targets, intervals=intervals)


def evaluation_of(
    model: Model, rows: Sequence[Row], targets: Sequence[Target], *, intervals: bool = True
) -> Evaluation:
    """Measure the rows of a data set.

    Args:
        model: The model that gave them.
        rows: One a sample, errors included.
        targets: One a sample, in the model's own terms.
        intervals: Whether to bootstrap intervals.

    Raises:
        DataError: all rows are errors.
    """
    good = [i for i, row in enumerate(rows) if row.prediction is not None]
    if not good:
        raise DataError(f"none of the {len(rows)} samples can be read; `vitrail check` lists why")
    result = metrics_of(model, [rows[i] for i in good], Picked(targets, good), intervals=intervals)
    bad = tuple(Skipped(row.path, row.error) for row in rows if row.error is not None)
    return Evaluation(len(good), result, tuple(rows), bad)


def choose_split(
    data: str, split: str, provenance: Provenance, *, task: Wanted | None = None
) -> tuple[Split, str]:
    """Which part of a data set an evaluation is about.

    `auto` takes a test part that the data itself brings; on the very data that the model was
    trained on the part that was held back; else everything.

    Returns:
        The split, and a sentence for people.
    """
    if split != "auto":
        return cast("Split", split), f"measuring split '{split}' as asked"
    try:
        source = open_source(data, seed=provenance.seed, task=task)
    except DataError:
        # Nothing to train on, of one class for example, may still be measured as a whole.
        return "all", "measuring all images"
    if "test" in source.published:
        return "test", "measuring the data's own test part"
    if source.fingerprint == provenance.fingerprint:
        return "test", "measuring the fifth of the data that training held back"
    return "all", "measuring all images"


def metrics_of(
    model: Model, rows: Sequence[Row], targets: Sequence[Target], *, intervals: bool = True
) -> Measured:
    """Metrics of prediction rows against targets in the model's own terms."""
    predictions = [row.prediction for row in rows if row.prediction is not None]
    return model.task.measure(predictions, targets, intervals=intervals)


def _counted(rows: Iterator[Row], progress: Callable[[int], None] | None) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        if progress is not None:
            progress(done)
        yield row
