"""Metrics of transcription, from the texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int

from vitrail.config import Config
from vitrail.metrics.classification import RESAMPLES, interval
from vitrail.metrics.measured import Measured
from vitrail.types import Target


class LengthMetrics(Config):
    """Metrics of the samples whose true text has one length.

    Attributes:
        length: Symbols of the true text.
        count: Samples.
        exact_match: Share of them that was read without an error.
        cer: Their character error rate.
    """

    length: int
    count: int
    exact_match: float
    cer: float


class TranscriptionMetrics(Measured):
    """All that is measured on one set of texts.

    Attributes:
        count: Samples measured.
        metrics: `exact_match`, the share of texts without an error, and `cer`, the character error
            rate: edit distances (Levenshtein 1966) over symbols of the true texts, both summed over
            all samples. 0 is perfect; more symbols than there are can make it exceed 1.
        intervals: Bootstrap 95 % interval of both, 1000 resamples, seeded.
        per_length: One row a length of the true text, shortest first.
    """

    per_length: tuple[LengthMetrics, ...]


def transcription_metrics(
    texts: Sequence[str], targets: Sequence[Target], *, intervals: bool = True
) -> TranscriptionMetrics:
    """Measure predicted texts against true ones.

    Args:
        texts: One predicted text a sample; it may be empty.
        targets: One true text a sample, of at least one symbol.
        intervals: Whether to bootstrap; validation while training does without.
    """
    assert len(texts) == len(targets) > 0, "metrics need at least one sample, one text each"
    truth = [target for target in targets if isinstance(target, str) and target]
    assert len(truth) == len(targets), "metrics need a text for every sample"
    lengths = np.array([len(text) for text in truth], dtype=np.int64)
    errors = _edit_distances(texts, truth)
    # The metrics depend on nothing else, so that a bootstrap draws counts of distinct pairs.
    cells, counts = np.unique(np.stack([lengths, errors], axis=1), axis=0, return_counts=True)
    metrics = {name: float(values[0]) for name, values in _headline(counts[None], cells).items()}
    resampled: dict[str, Float[np.ndarray, "R"]] = {}
    if intervals:
        rng = np.random.default_rng(0)
        drawn = rng.multinomial(len(truth), counts / len(truth), size=RESAMPLES)
        resampled = _headline(drawn, cells)
    rows: list[LengthMetrics] = []
    for length in np.unique(lengths).tolist():
        own = counts * (cells[:, 0] == length)
        values = {name: float(v[0]) for name, v in _headline(own[None], cells).items()}
        rows.append(LengthMetrics(length=length, count=int(own.sum()), **values))
    return TranscriptionMetrics(
        count=len(truth),
        metrics=metrics,
        intervals={name: interval(values, metrics[name]) for name, values in resampled.items()},
        per_length=tuple(rows),
    )


def _headline(
    counts: Int[np.ndarray, "R K"], cells: Int[np.ndarray, "K 2"]
) -> dict[str, Float[np.ndarray, "R"]]:
    """Exact match and character error rate for each way of counting (length, errors)."""
    lengths, errors = cells.T
    return {
        "exact_match": counts @ (errors == 0) / counts.sum(axis=1),
        "cer": counts @ errors / (counts @ lengths),
    }


def _edit_distances(texts: Sequence[str], truth: Sequence[str]) -> Int[np.ndarray, "N"]:
    from torchmetrics.functional.text import edit_distance

    distances = cast("Any", edit_distance(list(texts), list(truth), reduction="none"))
    return np.atleast_1d(np.asarray(distances.tolist(), dtype=np.int64))
