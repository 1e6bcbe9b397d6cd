"""What the report of a segmenter shows: figures, threshold, confusion, worst images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from vitrail.data.dataset import Dataset, Source
from vitrail.evaluate import Evaluation
from vitrail.metrics.detection_curves import Curve, Point
from vitrail.metrics.segmentation import SegmentationMetrics
from vitrail.metrics.segmentation_maps import class_maps
from vitrail.metrics.topology import pieces
from vitrail.model import Model
from vitrail.report_figures import precision_recall_plot, threshold_plot
from vitrail.report_regions import ERRORS, VERDICTS, WRONG
from vitrail.report_segments_judged import Judged, judge_all, rows_by_size
from vitrail.report_segments_shown import Shown, ranked, show_each, shuffled
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Segmentation, Segments, Target

WORST, RANDOM = 8, 6
"""Images that are drawn: the worst, and some as they come."""
LISTED = 30
"""Worst images whose figures are listed."""
MATRIX_CLASSES, PAIRS = 30, 12
"""Most classes of a matrix, and pairs of confused classes, that are shown."""
DROPPED = 50
"""Most labels that could not be used that are listed."""
METRICS = {
    "miou": ("Mean IoU", "intersection over union of each class and of the background; their mean"),
    "mask_map": ("Mask mAP", "average precision of masks, mean over IoU 0.50 to 0.95 (COCO)"),
    "mask_map50": ("Mask AP50", "the same where half of a mask has to fit: IoU 0.50"),
    "mask_map75": ("Mask AP75", "the same where it has to fit closely: IoU 0.75"),
    "pq": ("Panoptic quality (PQ)", "segments found, times how well they are drawn: RQ times SQ"),
    "pq_th": ("PQ of objects", "the same of classes whose objects are told apart"),
    "pq_st": ("PQ of stuff", "the same of classes without objects, such as sky"),
    "sq": ("Segmentation quality (SQ)", "mean IoU of the segments that are found"),
    "rq": ("Recognition quality (RQ)", "F1 of finding segments by an IoU above 0.50"),
    "dice": ("Dice", "overlap of answer and truth in an image; the mean over images"),
    "iou": ("IoU", "intersection over union of the foreground, all pixels pooled"),
    "f1": ("F1 of pixels", "the same overlap as Dice, all pixels of all images pooled"),
    "f1_tolerance": ("F1 within 2 pixels", "pixels pooled; those 2 pixels from the other count"),
    "f1_tolerance_per_image": ("F1 within 2 pixels, by image", "the same; the mean over images"),
    "cldice": (
        "clDice",
        "how far centrelines cover each other: whether thin things hold together; the mean over "
        "images",
    ),
    "cldice_pooled": ("clDice, pooled", "the same of all centrelines together"),
    "betti0_error": ("Pieces too many or too few", "a number, not a share; the mean over images"),
    "boundary_f": ("Boundary F", "outlines within 2 pixels of each other; the mean over images"),
    "pixel_accuracy": ("Pixel accuracy", "pixels whose class is right"),
}
"""Plain names and meanings of the metrics, in the order of the table."""

COLUMNS = {
    "objects": "Segments",
    "ap": "AP",
    "ap50": "AP50",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "iou": "IoU",
    "dice": "Dice",
    "precision": "Precision",
    "recall": "Recall",
}
"""What the table of classes may have beside their share of the pixels."""


def segmentation_context(
    model: Model, source: Source, evaluation: Evaluation, result: SegmentationMetrics
) -> dict[str, Any]:
    """What `segment.html` needs beyond what every report has."""
    task = model.config.task
    assert isinstance(task, SegmentConfig)
    test = source.splits["test"]
    targets = model.task.adapt(test)
    shown = _shown(task, evaluation, result)
    judged = None if task.answer == "semantic" else judge_all(task, targets, shown)
    worst = ranked(shown, task)
    return {
        "task": task,
        "result": result,
        "content": _content(task),
        "headline": _headline(result, task),
        "judged": judged,
        "verdicts": [words for words, _ in VERDICTS.values()],
        "sizes": [] if judged is None else rows_by_size(judged),
        "columns": _columns(result),
        "rows": _rows(result),
        **_threshold_context(result, task),
        "confusion": _confusion(result, task),
        "pairs": _confused(result, task, judged),
        "listed": _listed(task, test, targets, worst),
        "cases": show_each(task, test, targets, worst, most=WORST),
        # A few images are all among the worst.
        "gallery": show_each(task, test, targets, shuffled(shown), most=RANDOM)
        if len(shown) > WORST
        else [],
        "all_shown": len(shown) <= WORST,
        "keys": _keys(task),
        "dropped": [(name, bad) for name, data in source.splits.items() for bad in data.dropped],
        "most_dropped": DROPPED,
    }


def _shown(task: SegmentConfig, evaluation: Evaluation, result: SegmentationMetrics) -> list[Shown]:
    """The images that were answered, without objects that do not count."""
    answered = [
        (i, row.prediction)
        for i, row in enumerate(evaluation.rows)
        if isinstance(row.prediction, Segmentation)
    ]
    least = task.threshold if task.answer == "instance" else 0.0
    return [
        Shown(
            i,
            replace(found, regions=tuple(r for r in found.regions if r.score >= least)),
            figures,
        )
        for (i, found), figures in zip(answered, result.images, strict=True)
    ]


def _content(task: SegmentConfig) -> str:
    count = len(task.classes)
    classes = f"{count} class{'es' if count != 1 else ''}"
    match task.answer:
        case "semantic":
            return f"masks of {classes}{' and background' if task.background else ''}"
        case "instance":
            return f"masks of objects, {classes}"
        case "panoptic":
            return f"masks of objects and stuff, {classes}"


def _headline(result: SegmentationMetrics, task: SegmentConfig) -> dict[str, Any]:
    """The one figure, its interval, and what it means in words."""
    kinds = {"instance": "mask_map", "panoptic": "pq"}
    name = "dice" if task.binary else kinds.get(task.answer, "miou")
    value = result.metrics[name]
    known = [row for row in result.per_class if row.iou is not None]
    known.sort(key=lambda row: -(row.iou or 0.0))
    return {
        "label": METRICS[name][0],
        "value": value,
        "interval": result.intervals.get(name, (value, value)),
        "digits": 1,
        "best": known[0] if len(known) > 1 else None,
        "hardest": known[-1] if len(known) > 1 else None,
        "binary": result.per_class[0] if task.binary else None,
    }


def _columns(result: SegmentationMetrics) -> list[tuple[str, str]]:
    """Those that any class has."""
    rows = [row.model_dump() for row in result.per_class]
    names = {**COLUMNS, "objects": "Objects" if result.answer == "instance" else "Segments"}
    return [(key, name) for key, name in names.items() if any(r[key] is not None for r in rows)]


def _rows(result: SegmentationMetrics) -> list[dict[str, Any]]:
    """One a class, with its share of the judged pixels."""
    judged = max(sum(image.pixels for image in result.images), 1)
    return [
        row.model_dump() | {"share": None if row.pixels is None else row.pixels / judged}
        for row in result.per_class
    ]


def _threshold_context(result: SegmentationMetrics, task: SegmentConfig) -> dict[str, Any]:
    """Precision and recall by threshold, where there is a curve, and the threshold in use."""
    if result.curve is None:
        return {"curve": None, "by_threshold": None, "sealed": None, "best": None}
    sealed = _at(result.curve, task.threshold)
    drawn = Curve(points=result.curve.points, best=sealed)
    title = "Objects at IoU 0.50" if task.answer == "instance" else "Pixels"
    return {
        "curve": precision_recall_plot("pr", title, drawn),
        "by_threshold": threshold_plot("by-threshold", title, result.curve, task.threshold),
        "sealed": sealed,
        "best": result.curve.best,
    }


def _at(curve: Curve, threshold: float) -> Point | None:
    """What comes of a threshold: the recall grows next at the lowest point that is not below."""
    above = [point for point in curve.points if point.threshold >= threshold]
    if not above:
        return None
    return above[-1].model_copy(update={"threshold": threshold})


def _confusion(result: SegmentationMetrics, task: SegmentConfig) -> list[dict[str, Any]]:
    """Rows of the matrix in whole percent of the true class; none where it says nothing."""
    if not result.confusion or task.binary or len(task.classes) > MATRIX_CLASSES:
        return []
    names = (*task.classes, "background")
    return [
        {
            "name": name,
            "cells": [(round(100 * n / max(sum(row), 1)), n / max(sum(row), 1)) for n in row],
        }
        for name, row in zip(names, result.confusion, strict=True)
        if name in task.classes or task.background
    ]


def _confused(
    result: SegmentationMetrics, task: SegmentConfig, judged: Judged | None
) -> list[dict[str, Any]]:
    """True and answered class, most first: of objects how many, of classes shares of pixels."""
    if task.answer == "instance":
        assert judged is not None
        return [
            {"true": true, "answered": answered, "text": f"{count:,}"}
            for (true, answered), count in judged.mistaken.most_common(PAIRS)
        ]
    names = (*task.classes, "background" if task.background else "nothing")
    pairs = [
        (n, n / sum(row), names[i], names[j])
        for i, row in enumerate(result.confusion)
        for j, n in enumerate(row)
        if i != j and n
    ]
    return [
        {"true": true, "answered": answered, "text": share}
        for _, share, true, answered in sorted(pairs, key=lambda pair: -pair[0])[:PAIRS]
    ]


def _listed(
    task: SegmentConfig, test: Dataset, targets: Sequence[Target], worst: Sequence[Shown]
) -> list[dict[str, Any]]:
    """Figures of the worst images; of thin things in how many pieces they are."""
    index = {name: i for i, name in enumerate(task.classes)}
    rows: list[dict[str, Any]] = []
    for one in worst[:LISTED]:
        figures = one.figures
        row = figures.model_dump() | {"id": test.ids[one.index], "pieces": None}
        row["share"] = figures.wrong / figures.pixels if figures.pixels else None
        if task.binary:
            target = cast("Segments", targets[one.index])
            maps = class_maps(one.found, target, index, background=task.background)
            true, answered = (pieces(mask) for mask in maps.masks(0))
            row["pieces"] = {"true": true, "answered": answered}
        rows.append(row)
    return rows


def _keys(task: SegmentConfig) -> list[tuple[str, str]]:
    """What colours of the last picture mean, as words and CSS colour."""
    if task.answer == "instance":
        named = [*VERDICTS.values(), ("answer where no object is", WRONG), ERRORS["unjudged"]]
        if len(task.classes) == 1:
            named = [pair for pair in named if pair != VERDICTS["other"]]
    else:
        left = () if task.background else ("right", "missed", "wrong")
        single = ("other",) if task.binary else ()
        named = [pair for kind, pair in ERRORS.items() if kind not in (*left, *single)]
    return [(words, "rgb({}, {}, {})".format(*colour)) for words, colour in named]
