"""The report of a training run: one offline HTML file that shows how good a model is and why."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ConfigDict, Field

from vitrail.config import Config
from vitrail.data.augment import AugmentConfig
from vitrail.data.dataset import Source
from vitrail.evaluate import Evaluation
from vitrail.explain.positions import describe_positions, patch_filters, position_similarity
from vitrail.metrics.classification import ClassificationMetrics
from vitrail.model import Model
from vitrail.report_figures import (
    Curve,
    curve_plot,
    reliability_plot,
    similarity_picture,
    tiled,
)
from vitrail.report_samples import augmented_views, is_grey, percent, worst_mistakes
from vitrail.types import Skipped
from vitrail.weights.modelfile import write_atomically

MATRIX_CLASSES, PAIRS, QUARANTINE = 30, 20, 200
"""Most classes of a matrix, pairs of confused classes and bad files that are shown."""

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


class RunInfo(Config):
    """What `run.json` tells; all of it may be missing, and what is unknown is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: str = ""
    started: str = ""
    seconds: float | None = None
    versions: dict[str, Any] = Field(default_factory=dict)
    model: str = "a Vision Transformer"
    params: int | None = None
    recipe: str = ""
    recipe_reason: str = ""
    best_epoch: int | None = None
    selection_metric: str = "top1"


def write_report(
    run: Path,
    *,
    model: Model,
    source: Source,
    evaluation: Evaluation,
    augment: AugmentConfig,
    seed: int,
) -> Path:
    """Write `report.html` into a run folder: one file, no requests, nothing else needed.

    What the run folder holds is read where it exists: `run.json`, `config.toml`,
    `metrics.jsonl`, `quarantine.csv`.

    Args:
        run: Folder of the run.
        model: The trained model; it is put into evaluation mode.
        source: The data that it was trained on, with splits `train` and `test`.
        evaluation: Of the split `test`, one row a sample in its order.
        augment: How training images were augmented.
        seed: Seed of the run, from which the augmented views follow.

    Returns:
        Path of the report.
    """
    model.eval()
    info = RunInfo.model_validate(json.loads(_text(run / "run.json") or "{}"))
    steps, epochs = _log(run / "metrics.jsonl")
    mistakes, error = worst_mistakes(model, source.splits["test"], evaluation)
    context: dict[str, Any] = {
        "info": info,
        "source": source,
        "data_name": Path(source.name).name,
        "evaluation": evaluation,
        "task": model.config.task,
        "selection": METRICS.get(info.selection_metric, (info.selection_metric,))[0],
        "headline": _headline(evaluation, model),
        "plots": _curves(steps, epochs, info),
        "metrics": _metric_rows(evaluation.result),
        "confusion": _confusion(evaluation.result),
        "pairs": _confused_pairs(evaluation.result),
        "reliability": reliability_plot(
            "reliability", evaluation.result.reliability, "Reliability"
        ),
        "mistakes": mistakes,
        "capture_error": error,
        "augmented": augmented_views(
            model, source.splits["train"], augment, seed=seed, epochs=len(epochs)
        ),
        "positions": _positions(model),
        "filters": _filters(model, grey=is_grey(source.splits["train"])),
        "quarantine": _quarantine(run / "quarantine.csv", evaluation.quarantined),
        "most_bad": QUARANTINE,
        "config": _text(run / "config.toml"),
        "size": model.config.preprocess.resize,
    }
    out = run / "report.html"
    write_atomically(out, _render(context).encode())
    return out


def _render(context: dict[str, Any]) -> str:
    """Fill the template; only the page's own script may run, whatever stands in the data."""
    environment = Environment(
        loader=PackageLoader("vitrail", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration)  # pyright: ignore[reportUnknownMemberType]
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        **context, script=script, script_hash=digest
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `1 min 42 s`, `3 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Step rows and epoch rows; where a resumed run wrote a row again, the later one counts."""
    steps: dict[tuple[int, int], dict[str, Any]] = {}
    epochs: dict[int, dict[str, Any]] = {}
    for line in _text(path).splitlines():
        try:
            row = cast("dict[str, Any]", json.loads(line))
        except json.JSONDecodeError:
            continue  # A run that was killed may leave half a line.
        if row["kind"] == "epoch":
            epochs[row["epoch"]] = row
        else:
            steps[row["epoch"], row["step"]] = row
    return [steps[key] for key in sorted(steps)], [epochs[key] for key in sorted(epochs)]


def _headline(evaluation: Evaluation, model: Model) -> dict[str, Any]:
    """The one figure, its interval, and what they mean in words."""
    result = evaluation.result
    multilabel = model.config.task.multilabel
    name = "map" if multilabel else "top1"
    right = round(result.metrics["exact_match" if multilabel else "top1"] * result.count)
    frequent = max(result.per_class, key=lambda row: row.support)
    return {
        "name": name,
        "label": METRICS[name][0],
        "value": result.metrics[name],
        "interval": result.intervals[name],
        "digits": 1 if result.count < 2000 else 2,
        "right": right,
        "wrong": result.count - right,
        "frequent": frequent.name,
        "baseline": frequent.support / result.count,
    }


def _curves(
    steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]], info: RunInfo
) -> list[str]:
    """Loss, validation metric and learning rate over epochs."""
    plots: list[str] = []
    best = None if info.best_epoch is None else info.best_epoch + 1.0
    ends = [row["epoch"] + 1.0 for row in epochs]
    if steps:
        x, loss = _thinned(_places(steps, epochs), [row["loss"] for row in steps])
        plots.append(curve_plot("loss", "Training loss", [Curve(x, loss)], best=best))
    elif epochs:
        losses = Curve(ends, [row["train_loss"] for row in epochs], marked=True)
        plots.append(curve_plot("loss", "Training loss", [losses], best=best))
    values = [row["val"].get(info.selection_metric) for row in epochs]
    if values and None not in values:
        title = f"Validation: {METRICS.get(info.selection_metric, (info.selection_metric,))[0]}"
        curve = Curve(ends, values, marked=True)
        unit = "plain" if info.selection_metric in ("nll", "loss") else "percent"
        plots.append(curve_plot("val", title, [curve], best=best, unit=unit))
    if steps:
        x, rates = _places(steps, epochs), [row["lr"] for row in steps]
        every = -(-len(x) // 400)
        curve = Curve(x[::every], rates[::every])
        plots.append(curve_plot("lr", "Learning rate", [curve], best=best))
    return plots


def _places(steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]]) -> list[float]:
    """Where a step stands on the axis of epochs done."""
    ends = [0.0, *(row["step"] for row in epochs)]
    if len(ends) > 1 and all(a < b for a, b in pairwise(ends)):
        done = [0.0, *(row["epoch"] + 1.0 for row in epochs)]
        slope = (done[-1] - done[-2]) / (ends[-1] - ends[-2])
        beyond = [max(0.0, row["step"] - ends[-1]) * slope for row in steps]
        placed = np.interp([row["step"] for row in steps], ends, done)
        return [float(a) + b for a, b in zip(placed, beyond, strict=True)]
    longest = max((row["step"] for row in steps), default=0) + 1
    return [row["epoch"] + row["step"] / longest for row in steps]


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of neighbours, so that at most 200 points are left."""
    parts = min(len(x), 200)
    pairs = zip(np.array_split(np.array(x), parts), np.array_split(np.array(y), parts), strict=True)
    means = [(float(a.mean()), float(b.mean())) for a, b in pairs]
    return [a for a, _ in means], [b for _, b in means]


def _metric_rows(result: ClassificationMetrics) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": label,
            "meaning": meaning,
            "value": result.metrics[name],
            "interval": result.intervals.get(name),
        }
        for name, (label, meaning) in METRICS.items()
        if name in result.metrics
    ]


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


def _positions(model: Model) -> dict[str, Any]:
    words = describe_positions(model.config.backbone.positions)
    similarity = position_similarity(model)
    if similarity is None:
        return {"words": words, "picture": None}
    shown, low, high = similarity_picture(similarity.numpy())
    return {
        "words": words,
        "picture": shown,
        "low": low,
        "high": high,
        "grid": tuple(similarity.shape[:2]),
    }


def _filters(model: Model, *, grey: bool) -> dict[str, Any]:
    filters = patch_filters(model, grey=grey)
    tiles = filters.images.permute(0, 2, 3, 1).numpy()
    return {
        "picture": tiled(tiles, min(7, len(tiles))),
        "grey": grey,
        "count": len(tiles),
        "side": tiles.shape[1],
        "variance": sum(filters.variance) if filters.variance else None,
    }


def _quarantine(path: Path, test: Sequence[Skipped]) -> list[dict[str, str]]:
    """What could not be used in any split, once each."""
    rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    known = {(row["split"], row["id"]) for row in rows}
    rows += [
        {"split": "test", "id": bad.id, "reason": bad.reason}
        for bad in test
        if ("test", bad.id) not in known
    ]
    return rows
