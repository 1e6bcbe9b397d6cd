"""Metrics of classification, from scores and labels alone.

`evaluate` and anyone who holds a prediction file compute the same figures with the same function:
that they agree is contract 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vitrail.config import Config
from vitrail.metrics.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from vitrail.metrics.measured import Measured
from vitrail.types import Boxes, Segments, Target

RESAMPLES = 1000


class ClassMetrics(Config):
    """Metrics of one class; `average_precision` only for multi-label data with positives."""

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None = None


class ClassificationMetrics(Measured):
    """All that is measured on one labelled set.

    Attributes:
        count: Samples measured.
        metrics: Single label: `top1`, `top5` (from six classes on), `balanced_accuracy`, `f1`
            (macro), `ece`, `nll`. Multi-label: `map` (macro average precision), `f1` (macro),
            `exact_match` (all labels right), `ece`, `nll`. Fractions from 0 to 1, but for `nll`.
        intervals: Bootstrap 95 % interval of the headline metrics, seeded: 1000 resamples, of `map`
            100.
        per_class: One row a class.
        confusion: Rows are true classes, columns predicted ones; empty for multi-label.
        reliability: Bars of the reliability diagram.
        best_temperature: Factor on the model's temperature that would fit this set best;
            1 means calibrated.
    """

    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    best_temperature: float


def classification_metrics(
    scores: Float[np.ndarray, "N C"],
    targets: Sequence[Target],
    classes: Sequence[str],
    *,
    multilabel: bool = False,
    threshold: float = 0.5,
    intervals: bool = True,
) -> ClassificationMetrics:
    """Measure predicted probabilities against labels.

    Args:
        scores: One probability a class for each sample.
        targets: One label (or tuple of labels) a sample.
        classes: Class names.
        multilabel: Whether samples have sets of labels.
        threshold: Multi-label: predicted from this probability on.
        intervals: Whether to bootstrap; validation while training does without.
    """
    assert len(scores) == len(targets) > 0, "metrics need at least one sample, one label each"
    truth = np.zeros(scores.shape, dtype=np.int64)
    for row, target in zip(truth, targets, strict=True):
        assert target is not None, "metrics need a label for every sample"
        assert not isinstance(target, str | Boxes | Segments), "neither a text nor a box is a class"
        row[[target] if isinstance(target, int) else list(target)] = 1
    if multilabel:
        return _multilabel(scores, truth, classes, threshold, intervals)
    return _single_label(scores, truth.argmax(axis=1), truth, classes, intervals)


def _single_label(
    scores: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, "N"],
    truth: Int[np.ndarray, "N C"],
    classes: Sequence[str],
    intervals: bool,  # noqa: FBT001
) -> ClassificationMetrics:
    predicted = scores.argmax(axis=1)
    bars = reliability(scores.max(axis=1), predicted == labels)
    cells, counts = _cells(scores, labels)
    metrics = {
        name: float(v[0]) for name, v in _headline(counts[None], cells, len(classes)).items()
    }
    resampled: dict[str, Float[np.ndarray, "R"]] = {}
    if intervals:
        rng = np.random.default_rng(0)
        drawn = rng.multinomial(len(labels), counts / len(labels), size=RESAMPLES)
        resampled = _headline(drawn, cells, len(classes))
    confusion = _sklearn().confusion_matrix(labels, predicted, labels=range(len(classes)))
    own = np.clip(scores[np.arange(len(labels)), labels], 1e-12, 1)
    return ClassificationMetrics(
        count=len(labels),
        metrics=metrics
        | {"ece": expected_calibration_error(bars), "nll": float(-np.log(own).mean())},
        intervals={name: interval(values, metrics[name]) for name, values in resampled.items()},
        per_class=_per_class(truth, np.eye(len(classes), dtype=np.int64)[predicted], classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=bars,
        best_temperature=fit_temperature(scores, truth, multilabel=False),
    )


def _cells(
    scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]
) -> tuple[Int[np.ndarray, "K 3"], Int[np.ndarray, "K"]]:
    """The distinct (label, predicted, label among the best five) and how often each occurs.

    The headline metrics depend on nothing else, so that a bootstrap draws counts of cells.
    """
    best = np.argpartition(-scores, 5, axis=1)[:, :5] if scores.shape[1] > 5 else labels[:, None]
    among = (best == labels[:, None]).any(axis=1)
    rows = np.stack([labels, scores.argmax(axis=1), among.astype(np.int64)], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    return cells, counts


def _headline(
    counts: Int[np.ndarray, "R K"], cells: Int[np.ndarray, "K 3"], classes: int
) -> dict[str, Float[np.ndarray, "R"]]:
    """Top-1, top-5, balanced accuracy and macro F1 for each way of counting the cells."""
    weights = counts.astype(np.float64)
    label, predicted, among = cells.T
    right = label == predicted
    total = weights.sum(axis=1)
    result = {"top1": weights @ right / total}
    if classes > 5:
        result["top5"] = weights @ among / total
    member, chosen = np.eye(classes)[label], np.eye(classes)[predicted]
    hits, true, positive = weights @ (member * right[:, None]), weights @ member, weights @ chosen
    with np.errstate(invalid="ignore"):
        recall = np.where(true > 0, hits / true, np.nan)
        f1 = np.where(true + positive > 0, 2 * hits / (true + positive), np.nan)
    result["balanced_accuracy"] = np.nanmean(recall, axis=1)
    result["f1"] = np.nanmean(f1, axis=1)
    return result


def _multilabel(
    scores: Float[np.ndarray, "N C"],
    truth: Int[np.ndarray, "N C"],
    classes: Sequence[str],
    threshold: float,
    intervals: bool,  # noqa: FBT001
) -> ClassificationMetrics:
    chosen = (scores >= threshold).astype(np.int64)
    confidence = np.where(chosen == 1, scores, 1 - scores).ravel()
    bars = reliability(confidence, (chosen == truth).ravel())
    safe = np.clip(scores, 1e-12, 1 - 1e-12)
    per_class = _per_class(truth, chosen, classes, scores)
    precisions = [c.average_precision for c in per_class if c.average_precision is not None]
    metrics = {
        "map": float(np.mean(precisions)) if precisions else 0.0,
        "f1": float(np.mean([c.f1 for c in per_class if c.support])) if truth.any() else 0.0,
        "exact_match": float((chosen == truth).all(axis=1).mean()),
        "ece": expected_calibration_error(bars),
        "nll": float(-(truth * np.log(safe) + (1 - truth) * np.log1p(-safe)).mean()),
    }
    drawn = _multilabel_intervals(scores, truth, chosen, metrics) if intervals else {}
    return ClassificationMetrics(
        count=len(scores),
        metrics=metrics,
        intervals=drawn,
        per_class=per_class,
        confusion=(),
        reliability=bars,
        best_temperature=fit_temperature(scores, truth, multilabel=True),
    )


def _per_class(
    truth: Int[np.ndarray, "N C"],
    chosen: Int[np.ndarray, "N C"],
    classes: Sequence[str],
    scores: Float[np.ndarray, "N C"] | None = None,
) -> tuple[ClassMetrics, ...]:
    sklearn = _sklearn()
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        truth, chosen, average=None, zero_division=0.0
    )
    rows: list[ClassMetrics] = []
    for i, name in enumerate(classes):
        ap = None
        if scores is not None and support[i]:
            ap = float(sklearn.average_precision_score(truth[:, i], scores[:, i]))
        rows.append(
            ClassMetrics(
                name=name,
                support=int(support[i]),
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                average_precision=ap,
            )
        )
    return tuple(rows)


def _multilabel_intervals(
    scores: Float[np.ndarray, "N C"],
    truth: Int[np.ndarray, "N C"],
    chosen: Int[np.ndarray, "N C"],
    metrics: dict[str, float],
) -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)
    right = (chosen == truth).all(axis=1)
    exact = rng.binomial(len(right), right.mean(), size=RESAMPLES) / len(right)
    values: list[float] = []
    for _ in range(RESAMPLES // 10):
        drawn = rng.integers(0, len(scores), size=len(scores))
        seen = truth[drawn].any(axis=0)
        if seen.any():
            mean = _sklearn().average_precision_score(truth[drawn][:, seen], scores[drawn][:, seen])
            values.append(float(mean))
    return {
        "exact_match": interval(exact, metrics["exact_match"]),
        "map": interval(np.asarray(values or [metrics["map"]]), metrics["map"]),
    }


def _sklearn() -> Any:
    """scikit-learn's metrics, imported when first needed: they cost a second, and have no types."""
    from sklearn import metrics  # pyright: ignore[reportMissingTypeStubs]

    return metrics


def interval(values: Float[np.ndarray, "R"], value: float) -> tuple[float, float]:
    """The 95 % percentile interval, widened to hold the value itself.

    Macro averages of few samples are biased under resampling (a class drops out), so that the
    plain percentiles may miss the value that they stand beside.
    """
    low, high = np.percentile(values, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)
