"""What the validation part alone can tell of a trained model: temperature and thresholds."""

from __future__ import annotations

from collections.abc import Callable

from vitrail.data.dataset import Dataset
from vitrail.evaluate import Evaluation, evaluate
from vitrail.metrics.classification import ClassificationMetrics
from vitrail.metrics.detection import DetectionMetrics
from vitrail.metrics.segmentation import SegmentationMetrics
from vitrail.model import Model
from vitrail.tasks import TaskConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Skipped

LEAST = 1e-3
"""A threshold stays so far from 0 and 1."""
EDGES = (0.35, 0.4, 0.45, 0.5)
"""Probabilities at which the edges of objects are tried, beside the one that the model has."""


def calibrate(
    model: Model, val: Dataset, listener: Callable[[str], None]
) -> tuple[Model, tuple[Skipped, ...]]:
    """The model with what fits, and bad samples found on the way.

    A classifier gets the temperature that fits. A detector, and a segmenter of one class or of
    objects, gets the threshold with the best F1; objects then the edge at which all of them
    together cover the truth best: small masks that are not sure of their edge come out too small.

    Args:
        model: The best weights.
        val: Validation part.
        listener: Told what is going on.
    """
    task = model.config.task
    match task:
        case ClassifyConfig():
            listener("fitting the temperature on the validation part")
            found = evaluate(model, val, intervals=False)
            assert isinstance(found.result, ClassificationMetrics)
            changes = {"temperature": task.temperature * found.result.best_temperature}
            return _changed(model, task, changes), found.quarantined
        case DetectConfig():
            listener("fitting the threshold on the validation part")
            found = evaluate(model, val, intervals=False)
            return _changed(model, task, _threshold(found)), found.quarantined
        case SegmentConfig() if task.binary or task.answer == "instance":
            listener("fitting the threshold on the validation part")
            found = evaluate(model, val, intervals=False)
            if task.answer == "instance":
                return _edged(model, val, found), found.quarantined
            return _changed(model, task, _threshold(found)), found.quarantined
        case _:
            return model, ()


def _threshold(found: Evaluation) -> dict[str, float]:
    assert isinstance(found.result, DetectionMetrics | SegmentationMetrics)
    threshold = found.result.threshold
    return {} if threshold is None else {"threshold": min(max(threshold, LEAST), 1 - LEAST)}


def _edged(model: Model, val: Dataset, found: Evaluation) -> Model:
    """The model whose objects together cover the truth best, each edge with its own threshold.

    The score of an object is a mean over its pixels, so that it changes with the edge.
    """
    task = model.config.task
    assert isinstance(task, SegmentConfig)
    models = [_changed(model, task, _threshold(found))]
    for edge in EDGES:
        if edge != task.mask_threshold:
            other = _changed(model, task, {"mask_threshold": edge})
            again = evaluate(other, val, intervals=False)
            models.append(_changed(other, other.config.task, _threshold(again)))
    return max(models, key=lambda one: evaluate(one, val, intervals=False).metrics["dice"])


def _changed(model: Model, task: TaskConfig, changes: dict[str, float]) -> Model:
    """The same weights under another configuration of the task."""
    config = model.config.model_copy(update={"task": task.model_copy(update=changes)})
    other = Model(config).to(next(model.parameters()).device)
    other.load_state_dict(model.state_dict())
    return other.eval()
