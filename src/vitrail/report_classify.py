"""What the report of a classifier shows: metrics by class, confusion, calibration, worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.dataset import Dataset, Source
from vitrail.evaluate import Evaluation
from vitrail.explain.capture import capture
from vitrail.explain.gradcam import describe_evidence
from vitrail.explain.layers import attention_layers
from vitrail.explain.method import Method
from vitrail.explain.methods import default_method
from vitrail.metrics.classification import ClassificationMetrics
from vitrail.model import Model
from vitrail.report_figures import reliability_plot
from vitrail.report_pictures import Picture, overlay, picture
from vitrail.report_samples import as_pixels, label_names, percent, prepared
from vitrail.tasks.classify import ClassifyConfig
from vitrail.types import Classification

MATRIX_CLASSES, PAIRS = 30, 20
"""Most classes of a matrix, and pairs of confused classes, that are shown."""

METRICS = {
    "top1": ("Top-1 accuracy", "the best label is right"),
    "top5": ("Top-5 accuracy", "the right label is among the best five"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the recall of all classes"),
    "f1": ("F1, macro", "precision and recall in one, mean over classes"),
    "map": ("Mean average precision", "how well each class ranks its images first, mean"),
    "exact_match": ("Exact match", "all labels of an image are right"),
    "ece": ("Calibration error (ECE)", "gap between confidence and truth; less is better"),
    "nll": ("Negative log-likelihood", "nats an image; less is better"),
}
"""Plain names and meanings of the metrics, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        id: Name of the sample.
        true: Its labels.
        predicted: Labels given.
        confidence: Probability of the wrong answer: of the label given; multi-label: that the
            model gives to the side on which it is wrong.
        detail: What else there is to say.
        image: As the model saw it.
        looked: What spoke for the label it gave, by the model's default method.
    """

    id: str
    true: str
    predicted: str
    confidence: float
    detail: str
    image: Picture
    looked: Picture


def classification_context(
    model: Model, source: Source, evaluation: Evaluation, result: ClassificationMetrics
) -> dict[str, Any]:
    """What `classify.html` needs beyond what every report has."""
    task = model.config.task
    assert isinstance(task, ClassifyConfig)
    method = default_method(model)
    attends = bool(attention_layers(model))
    mistakes, error = worst_mistakes(model, source.splits["test"], evaluation)
    several = ", several labels an image" if task.multilabel else ""
    return {
        "task": task,
        "result": result,
        "content": f"{len(task.classes)} classes{several}",
        "headline": _headline(result, task),
        "confusion": _confusion(result),
        "pairs": _confused_pairs(result),
        "reliability": reliability_plot("reliability", result.reliability, "Reliability"),
        "mistakes": mistakes,
        "capture_error": error,
        "method": method,
        "looking": "" if attends else describe_evidence(model.config.backbone),
    }


def _headline(result: ClassificationMetrics, task: ClassifyConfig) -> dict[str, Any]:
    """The one figure, its interval, and what they mean in words."""
    name = "map" if task.multilabel else "top1"
    right = round(result.metrics["exact_match" if task.multilabel else "top1"] * result.count)
    frequent = max(result.per_class, key=lambda row: row.support)
    return {
        "label": METRICS[name][0],
        "value": result.metrics[name],
        "interval": result.intervals[name],
        "digits": 1 if result.count < 2000 else 2,
        "right": right,
        "wrong": result.count - right,
        "frequent": frequent.name,
        "baseline": frequent.support / result.count,
    }


def _confusion(result: ClassificationMetrics) -> list[dict[str, Any]]:
    """Rows of the matrix: true class, and for each predicted class its count and share."""
    if not result.confusion or len(result.per_class) > MATRIX_CLASSES:
        return []
    return [
        {
            "name": row.name,
            "cells": [(count, count / max(sum(counts), 1)) for count in counts],
        }
        for row, counts in zip(result.per_class, result.confusion, strict=True)
    ]


def _confused_pairs(result: ClassificationMetrics) -> list[dict[str, Any]]:
    """True and predicted class with the number of images, most first."""
    names = [row.name for row in result.per_class]
    pairs = [
        {"true": names[i], "predicted": names[j], "count": count, "share": count / sum(counts)}
        for i, counts in enumerate(result.confusion)
        for j, count in enumerate(counts)
        if i != j and count
    ]
    most = PAIRS if len(names) > MATRIX_CLASSES else 5
    return sorted(pairs, key=lambda pair: -cast("int", pair["count"]))[:most]


def worst_mistakes(
    model: Model, test: Dataset, evaluation: Evaluation, *, most: int = 12
) -> tuple[list[Mistake], float | None]:
    """The most confident errors, and the largest error of the attention shown.

    Args:
        model: A classifier in evaluation mode.
        test: What was evaluated; the samples shown are read again.
        evaluation: One row a sample of `test`, in its order.
        most: Errors to show at most.

    Returns:
        The error is None where no attention is shown.
    """
    task = model.config.task
    assert isinstance(task, ClassifyConfig)
    wrong: list[tuple[_Wrong, int]] = []
    for i, row in enumerate(evaluation.rows):
        if isinstance(row.prediction, Classification):
            found = _wrong(task, row.prediction, label_names(test, test.targets[i]))
            if found is not None:
                wrong.append((found, i))
    wrong.sort(key=lambda entry: -entry[0].confidence)
    method = default_method(model)
    shown: list[Mistake] = []
    worst: float | None = None
    for found, i in wrong:
        if len(shown) == most:
            break
        image = prepared(model, test, i)
        if image is None:
            continue
        heat, error = _looked_at(model, method, image, task.classes.index(found.about))
        worst = worst if error is None else max(worst or 0.0, error)
        shown.append(
            Mistake(
                id=test.ids[i],
                true=", ".join(label_names(test, test.targets[i])) or "no label",
                predicted=found.predicted,
                confidence=found.confidence,
                detail=found.detail,
                image=picture(as_pixels(image)),
                looked=overlay(as_pixels(image), heat),
            )
        )
    return shown, worst


@dataclass(frozen=True, slots=True)
class _Wrong:
    """How confident a wrong prediction is, on which class it is wrong, and what to say of it."""

    confidence: float
    about: str
    predicted: str
    detail: str


def _wrong(task: ClassifyConfig, prediction: Classification, true: Sequence[str]) -> _Wrong | None:
    """None for a right one."""
    named = prediction.label.replace(";", ", ") or "no label"
    if not task.multilabel:
        if prediction.label in true:
            return None
        detail = f"{percent(prediction.scores[true[0]])} for the true label"
        return _Wrong(prediction.score, prediction.label, named, detail)
    sides = {
        name: score if score >= task.threshold else 1 - score
        for name, score in prediction.scores.items()
        if (score >= task.threshold) != (name in true)
    }
    if not sides:
        return None
    worst = max(sides, key=sides.__getitem__)
    detail = f"{'missed' if worst in true else 'wrongly named'}: {worst}"
    return _Wrong(sides[worst], worst, named, detail)


def _looked_at(
    model: Model, method: Method, image: Tensor, about: int
) -> tuple[NDArray[Any], float | None]:
    """What spoke for a class in one prepared image, and how exact the attention behind it is."""
    images = image[None].to(next(model.parameters()).device)
    heat: NDArray[Any] = method.explain(model, images, [about])[0].float().numpy(force=True)
    if not attention_layers(model):
        return heat, None
    with torch.no_grad(), capture(model) as record:
        model(images)
    return heat, record.max_error
