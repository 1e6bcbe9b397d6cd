"""Metrics of detection: COCO's, and what helps to choose a threshold and to see mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vitrail.config import Config
from vitrail.metrics.detection_confusion import confusion
from vitrail.metrics.detection_curves import Curve, curve
from vitrail.metrics.detection_intervals import precision_intervals
from vitrail.metrics.detection_matches import SIZES, Evaluated, match
from vitrail.metrics.measured import Measured
from vitrail.types import Boxes, Detection

UNSURE = 0.5
"""Threshold of the confusion matrix where no detection is right, so that none is best."""


class ClassDetection(Config):
    """Metrics of one class.

    Attributes:
        name: Its name.
        support: Objects to be found; crowds are not counted.
        ap: Average precision, mean over IoU 0.5 to 0.95; None without support, as the next two.
        ap50: Average precision at IoU 0.5.
        ar: Recall of the 100 surest detections an image, mean over IoU 0.5 to 0.95.
        curve: Precision and recall by threshold, with the threshold of the best F1.
    """

    name: str
    support: int
    ap: float | None
    ap50: float | None
    ar: float | None
    curve: Curve


class DetectionMetrics(Measured):
    """All that is measured on one labelled set.

    Attributes:
        count: Images measured.
        metrics: COCO's, fractions from 0 to 1: `map` (mean over IoU 0.5 to 0.95 and classes),
            `map50`, `map75`, `mar_100` (recall of the 100 surest a class and image), and
            `map_small`, `map_medium`, `map_large` where there are objects of that size. Classes
            without objects do not count; without any object the first four are 0.
        intervals: Bootstrap 95 % interval of `map` and `map50`: images are drawn, seeded, 200
            times, less often on large data.
        objects: Objects to be found.
        crowds: Crowds, which are neither found nor missed.
        detections: Detections given.
        per_class: One row a class.
        overall: Precision and recall by threshold over all classes, each object counted once.
        threshold: Score of the best F1 in `overall`, at which `confusion` is counted. It is chosen
            on the very images that are measured.
        confusion: At IoU 0.5. Rows are true classes, columns predicted ones; the last row is
            background taken for objects, the last column objects not found.
    """

    objects: int
    crowds: int
    detections: int
    per_class: tuple[ClassDetection, ...]
    overall: Curve
    threshold: float
    confusion: tuple[tuple[int, ...], ...]


def detection_metrics(
    predictions: Sequence[Detection],
    targets: Sequence[Boxes],
    classes: Sequence[str],
    *,
    intervals: bool = True,
) -> DetectionMetrics:
    """Measure detections against objects.

    Args:
        predictions: One an image, in pixels of the original image.
        targets: One an image, in the same pixels; labels are indices of `classes`.
        classes: Class names, all that the predictions use.
        intervals: Whether to bootstrap; validation while training does without.
    """
    assert len(predictions) == len(targets) > 0, "metrics need at least one image, one answer each"
    found = match(predictions, targets, classes)
    overall = curve(found.matches)
    threshold = UNSURE if overall.best is None else overall.best.threshold
    metrics = _metrics(found)
    headline = {name: metrics[name] for name in ("map", "map50")}
    return DetectionMetrics(
        count=len(targets),
        metrics=metrics,
        intervals=precision_intervals(found.matches, headline) if intervals else {},
        objects=sum(int(each.objects.sum()) for each in found.matches),
        crowds=sum(box.crowd for target in targets for box in target.items),
        detections=sum(len(each.boxes) for each in predictions),
        per_class=tuple(_row(found, i, name) for i, name in enumerate(classes)),
        overall=overall,
        threshold=threshold,
        confusion=confusion(predictions, targets, classes, threshold),
    )


def _metrics(found: Evaluated) -> dict[str, float]:
    whole = found.precision[..., 0]
    headline = {
        "map": _mean(whole),
        "map50": _mean(whole[0]),
        "map75": _mean(whole[5]),
        "mar_100": _mean(found.recall[..., 0]),
    }
    sizes = {f"map_{name}": _mean(found.precision[..., i]) for i, name in enumerate(SIZES) if i}
    return {name: value or 0.0 for name, value in headline.items()} | {
        name: value for name, value in sizes.items() if value is not None
    }


def _row(found: Evaluated, place: int, name: str) -> ClassDetection:
    matches = found.matches[place]
    return ClassDetection(
        name=name,
        support=int(matches.objects.sum()),
        ap=_mean(found.precision[:, :, place, 0]),
        ap50=_mean(found.precision[0, :, place, 0]),
        ar=_mean(found.recall[:, place, 0]),
        curve=curve([matches]),
    )


def _mean(values: Float[np.ndarray, "*N"]) -> float | None:
    """Mean of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
