"""What the report of a detector shows: figures, scores to choose from, data, worst answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

from vitrail.data.dataset import Source
from vitrail.evaluate import Evaluation
from vitrail.metrics.detection import ClassDetection, DetectionMetrics
from vitrail.metrics.detection_pairs import Judged, judge
from vitrail.model import Model
from vitrail.report_answers import Shown, random_images, worst_answers, worst_misses
from vitrail.report_figures import precision_recall_plot
from vitrail.report_judged import Counts, area_of, count_by_threshold
from vitrail.tasks.detect import DetectConfig
from vitrail.types import Box, Boxes, Detection

MATRIX_CLASSES, PAIRS = 30, 20
"""Most classes of a matrix, and pairs of confused classes, that are shown."""
CURVES = 12
"""Most classes whose precision and recall are drawn: those with the most objects."""
DROPPED = 50
"""Most labels that could not be used that are listed."""
SIZES = (("small", 32.0**2), ("medium", 96.0**2), ("large", float("inf")))
"""COCO's sizes and the area in pixels up to which an object is of one."""

METRICS = {
    "map": ("mAP", "average precision, mean over IoU 0.50 to 0.95 and classes (COCO)"),
    "map50": ("AP50", "the same where half of a box has to fit: IoU 0.50"),
    "map75": ("AP75", "the same where it has to fit closely: IoU 0.75"),
    "map_small": ("mAP of small objects", "up to 32 x 32 pixels"),
    "map_medium": ("mAP of medium objects", "up to 96 x 96 pixels"),
    "map_large": ("mAP of large objects", "above 96 x 96 pixels"),
    "mar_100": ("Recall of 100 answers", "mean over IoU 0.50 to 0.95, at any score"),
}
"""Plain names and meanings of the metrics, in the order of the table."""


def detection_context(
    model: Model, source: Source, evaluation: Evaluation, result: DetectionMetrics
) -> dict[str, Any]:
    """What `detect.html` needs beyond what every report has."""
    task = model.config.task
    assert isinstance(task, DetectConfig)
    test = source.splits["test"]
    targets = [cast("Boxes", target) for target in model.task.adapt(test)]
    found = [row.prediction for row in evaluation.rows]
    pairs = {
        i: (answer, targets[i]) for i, answer in enumerate(found) if isinstance(answer, Detection)
    }
    counts = count_by_threshold(
        [answer for answer, _ in pairs.values()],
        [target for _, target in pairs.values()],
        task.classes,
        result.threshold,
    )
    judged = {
        i: judge(answer, target, task.classes, result.threshold)
        for i, (answer, target) in pairs.items()
    }
    shown = [Shown(i, answer, target, judged[i]) for i, (answer, target) in pairs.items()]
    misses, missing = worst_misses(model, test, shown)
    alarms, alarming = worst_answers(model, test, shown)
    return {
        "task": task,
        "result": result,
        "content": f"{len(task.classes)} classes of objects",
        "headline": _headline(result, counts),
        "rows": _rows(result, counts),
        "scores": _scores(counts, result.threshold),
        "best": counts.thresholds.index(result.threshold),
        "steps": len(counts.thresholds),
        "total": _total(counts, result.threshold),
        "confusion": _confusion(result, task.classes),
        "pairs": _confused_pairs(result, task.classes),
        "overall_curve": precision_recall_plot("pr-all", "All classes", result.overall),
        "curves": _curves(result),
        "misses": misses,
        "missed": sum(len(one.missed) for one in judged.values()),
        "alarms": alarms,
        "wrong": _wrong(judged.values()),
        "capture_error": max((e for e in (missing, alarming) if e is not None), default=None),
        "gallery": random_images(model, test, shown),
        "data": _data(source),
    }


def _wrong(judged: Iterable[Judged]) -> int:
    """Answers that are about nothing, or give an object another name."""
    return sum(answer.verdict in ("other", "nothing") for one in judged for answer in one.answers)


def _headline(result: DetectionMetrics, counts: Counts) -> dict[str, Any]:
    """The one figure, its interval, and what it means in words."""
    at = counts.thresholds.index(result.threshold)
    given, right = (sum(row[at] for row in table) for table in (counts.given, counts.right))
    value = result.metrics["map"]
    return {
        "label": METRICS["map"][0],
        "value": value,
        "interval": result.intervals.get("map", (value, value)),
        "digits": 1,
        "objects": result.objects,
        "right": right,
        "alarms": given - right,
    }


def _rows(result: DetectionMetrics, counts: Counts) -> list[dict[str, Any]]:
    """One a class: what holds for all scores, and what comes of the chosen one."""
    at = counts.thresholds.index(result.threshold)
    return [
        {
            "number": i,
            "name": row.name,
            "support": row.support,
            "ap": row.ap,
            "ap50": row.ap50,
            **_chosen(row.support, counts.given[i][at], counts.right[i][at]),
        }
        for i, row in enumerate(result.per_class)
    ]


def _total(counts: Counts, threshold: float) -> dict[str, Any]:
    at = counts.thresholds.index(threshold)
    given, right = (sum(row[at] for row in table) for table in (counts.given, counts.right))
    return _chosen(sum(counts.support), given, right)


def _chosen(support: int, given: int, right: int) -> dict[str, Any]:
    """Figures at one threshold; None for what is not defined."""
    return {
        "found": right,
        "alarms": given - right,
        "precision": right / given if given else None,
        "recall": right / support if support else None,
        "f1": 2 * right / (given + support) if given + support else None,
    }


def _scores(counts: Counts, threshold: float) -> str:
    """What the page's script computes its figures from, as JSON without any name of the data."""
    return json.dumps(
        {
            "thresholds": counts.thresholds,
            "best": counts.thresholds.index(threshold),
            "support": counts.support,
            "given": counts.given,
            "right": counts.right,
        },
        separators=(",", ":"),
    )


def _confusion(result: DetectionMetrics, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the matrix: true class or nothing, and for each answer its count and share."""
    if len(classes) > MATRIX_CLASSES:
        return []
    names = (*classes, "nothing")
    return [
        {"name": name, "cells": [(count, count / max(sum(counts), 1)) for count in counts]}
        for name, counts in zip(names, result.confusion, strict=True)
    ]


def _confused_pairs(result: DetectionMetrics, classes: Sequence[str]) -> list[dict[str, Any]]:
    """True and predicted class with the number of objects, most first."""
    pairs = [
        {"true": classes[i], "predicted": classes[j], "count": count, "of": sum(counts)}
        for i, counts in enumerate(result.confusion[:-1])
        for j, count in enumerate(counts[:-1])
        if i != j and count
    ]
    most = PAIRS if len(classes) > MATRIX_CLASSES else 8
    return sorted(pairs, key=lambda pair: -cast("int", pair["count"]))[:most]


def _curves(result: DetectionMetrics) -> list[str]:
    """Of the classes with the most objects, if there is more than one class."""
    if len(result.per_class) == 1:
        return []
    rows: list[ClassDetection] = sorted(result.per_class, key=lambda row: -row.support)[:CURVES]
    return [
        precision_recall_plot(f"pr-{i}", row.name, row.curve, small=True)
        for i, row in enumerate(rows)
        if row.support
    ]


def _data(source: Source) -> dict[str, Any]:
    """How many objects of which class and size each split has, and what could not be used."""
    splits: list[dict[str, Any]] = []
    by_class: dict[str, Counter[str]] = {}
    for name, data in source.splits.items():
        boxes = [target for target in data.targets if isinstance(target, Boxes)]
        items = [box for target in boxes for box in target.items]
        objects = [box for box in items if not box.crowd]
        by_class[name] = Counter(data.classes[box.label] for box in objects)
        splits.append(
            {
                "name": name,
                "images": len(data),
                "objects": len(objects),
                "empty": sum(not target.items for target in boxes),
                "crowds": len(items) - len(objects),
                "dropped": len(data.dropped),
                "sizes": _sizes(objects),
                "most": max((len(target.items) for target in boxes), default=0),
            }
        )
    names = dict.fromkeys(name for data in source.splits.values() for name in data.classes)
    dropped = [(name, bad) for name, data in source.splits.items() for bad in data.dropped]
    return {
        "splits": splits,
        "classes": [
            {"name": name, "counts": [by_class[split][name] for split in by_class]}
            for name in names
        ],
        "dropped": dropped[:DROPPED],
        "dropped_count": len(dropped),
    }


def _sizes(objects: Sequence[Box]) -> dict[str, int]:
    """Objects of each of COCO's sizes."""
    counts = Counter(next(name for name, most in SIZES if area_of(box) <= most) for box in objects)
    return {name: counts[name] for name, _ in SIZES}
