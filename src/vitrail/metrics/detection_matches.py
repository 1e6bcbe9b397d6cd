"""Which detection found which object, by COCO's own rules, and average precision from that.

pycocotools matches each image once and keeps the matches. Everything else is computed from them,
so that curves, thresholds and intervals cannot disagree with mAP.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from vitrail.types import Boxes, Corners, Detection

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a detection counts as right; mAP is the mean over them."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which COCO reads the precision."""
MOST = 100
"""Detections of a class that count in one image, the surest first."""
SIZES = ("all", "small", "medium", "large")
"""COCO's ranges of area: up to 32 x 32 pixels, up to 96 x 96, and above."""


@dataclass(frozen=True, slots=True)
class Matches:
    """All detections of one class, the surest first; those that count neither way left in place.

    Attributes:
        scores: Of each detection.
        images: Index of the image of each.
        right: Whether it found an object, by overlap of `IOUS`.
        ignored: Whether it counts neither as right nor as wrong: it lies on a crowd.
        objects: Objects an image that are to be found; crowds are not among them.
    """

    scores: Float[np.ndarray, "D"]
    images: Int[np.ndarray, "D"]
    right: Bool[np.ndarray, "T D"]
    ignored: Bool[np.ndarray, "T D"]
    objects: Int[np.ndarray, "N"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What pycocotools found; NaN where there is nothing to find.

    Attributes:
        precision: By overlap, recall of `RECALLS`, class and size, the first of `SIZES`.
        recall: By overlap, class and size.
        matches: One a class, objects of any size.
    """

    precision: Float[np.ndarray, "T R C S"]
    recall: Float[np.ndarray, "T C S"]
    matches: tuple[Matches, ...]


def xywh(corners: Corners) -> list[float]:
    """A box as COCO writes it: left, top, width, height."""
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]


def match(
    predictions: Sequence[Detection], targets: Sequence[Boxes], classes: Sequence[str]
) -> Evaluated:
    """Run COCO's evaluation.

    Where scores tie, the earlier image comes first, and in an image the earlier detection.
    """
    index = {name: i + 1 for i, name in enumerate(classes)}
    return evaluate(
        _objects(targets), _found(predictions, index), images=len(targets), classes=len(classes)
    )


def evaluate(
    objects: list[dict[str, Any]],
    found: list[dict[str, Any]],
    *,
    images: int,
    classes: int,
    kind: Literal["bbox", "segm"] = "bbox",
    sizes: int = len(SIZES),
    most: int = MOST,
) -> Evaluated:
    """Run COCO's evaluation on annotations as its files have them.

    Args:
        objects: With `image_id` and `category_id` counted from 1.
        found: Likewise, with `score`.
        images: How many there are.
        classes: How many there are.
        kind: Whether boxes overlap or masks.
        sizes: How many of `SIZES` are measured.
        most: Detections of a class that count in one image.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        run: Any = COCOeval(_coco(objects, images, classes), _coco(found, images, classes), kind)
        run.params.iouThrs, run.params.recThrs, run.params.maxDets = IOUS, RECALLS, [most]
        run.params.areaRng = run.params.areaRng[:sizes]
        run.params.areaRngLbl = run.params.areaRngLbl[:sizes]
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"][..., 0], run.eval["recall"][..., 0]
    each = [
        _matches(run.evalImgs[start : start + images])
        for start in range(0, len(run.evalImgs), images * sizes)
    ]
    return Evaluated(
        np.where(precision < 0, np.nan, precision),
        np.where(recall < 0, np.nan, recall),
        tuple(each),
    )


def average_precision(
    matches: Matches, weights: Int[np.ndarray, "N"] | None = None
) -> Float[np.ndarray, "T"]:
    """Average precision by overlap, as COCO accumulates it.

    Args:
        matches: Of one class.
        weights: How often each image counts, as a bootstrap draws them; once by default.

    Returns:
        NaN where there is nothing to find.
    """
    if weights is None:
        weights = np.ones_like(matches.objects)
    objects = int(weights @ matches.objects)
    if not objects:
        return np.full(len(IOUS), np.nan)
    each = weights[matches.images] * ~matches.ignored
    right = np.cumsum(each * matches.right, axis=1)
    precision = right / (np.cumsum(each, axis=1) + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(IOUS), 1))], axis=1)
    recall = right / objects
    places = [np.searchsorted(row, RECALLS) for row in recall]
    return np.take_along_axis(best, np.stack(places), axis=1).mean(axis=1)


def _objects(targets: Sequence[Boxes]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": box.label + 1,
            "bbox": (shape := xywh(box.corners)),
            "area": shape[2] * shape[3] if box.area is None else box.area,
            "iscrowd": int(box.crowd),
        }
        for image, target in enumerate(targets, start=1)
        for box in target.items
    ]


def _found(predictions: Sequence[Detection], index: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": index[label],
            "bbox": (shape := xywh(corners)),
            "area": shape[2] * shape[3],
            "iscrowd": 0,
            "score": score,
        }
        for image, found in enumerate(predictions, start=1)
        for corners, label, score in zip(found.boxes, found.labels, found.scores, strict=True)
    ]


def _coco(annotations: list[dict[str, Any]], images: int, classes: int) -> Any:
    from pycocotools.coco import COCO

    coco: Any = COCO()
    # It takes objects by id, and id 0 for "none". Sizes of images it reads but does not use.
    coco.dataset = {
        "images": [{"id": i + 1, "height": 0, "width": 0} for i in range(images)],
        "annotations": [{"id": i, **row} for i, row in enumerate(annotations, start=1)],
        "categories": [{"id": i + 1} for i in range(classes)],
    }
    coco.createIndex()
    return coco


def _matches(images: Sequence[dict[str, Any] | None]) -> Matches:
    """The matches of one class, image by image, in the order of their scores."""
    seen = [(i, image) for i, image in enumerate(images) if image is not None]
    objects = np.zeros(len(images), dtype=np.int64)
    for i, image in seen:
        objects[i] = np.count_nonzero(np.asarray(image["gtIgnore"]) == 0)
    empty = np.zeros((len(IOUS), 0))
    scores = np.concatenate([np.zeros(0), *(image["dtScores"] for _, image in seen)])
    matched = np.concatenate([empty, *(image["dtMatches"] for _, image in seen)], axis=1)
    ignored = np.concatenate([empty, *(image["dtIgnore"] for _, image in seen)], axis=1)
    owner = np.repeat(
        np.array([i for i, _ in seen], dtype=np.int64),
        np.array([len(image["dtScores"]) for _, image in seen], dtype=np.int64),
    )
    order = np.argsort(-scores, kind="stable")
    return Matches(
        scores=scores[order],
        images=owner[order],
        right=matched[:, order] > 0,
        ignored=ignored[:, order] > 0,
        objects=objects,
    )
