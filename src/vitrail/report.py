"""The report of a training run: one offline HTML file that shows how good a model is and why."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ConfigDict, Field

from vitrail import report_classify, report_detect, report_segment, report_transcribe
from vitrail.config import Config
from vitrail.data.dataset import Source
from vitrail.evaluate import Evaluation
from vitrail.metrics.classification import ClassificationMetrics
from vitrail.metrics.detection import DetectionMetrics
from vitrail.metrics.segmentation import SegmentationMetrics
from vitrail.metrics.transcription import TranscriptionMetrics
from vitrail.model import Model
from vitrail.report_figures import Curve, curve_plot
from vitrail.report_inside import inside_context
from vitrail.report_samples import AugmentConfigs, augmented_views, percent
from vitrail.report_templates import open_templates, script_hash
from vitrail.types import Skipped
from vitrail.weights.modelfile import write_atomically

QUARANTINE = 200
"""Most bad files that are shown."""

Names = Mapping[str, tuple[str, str]]
"""Plain name and meaning of each metric."""


class StartInfo(Config):
    """Weights that a run went on from, and the table of what was loaded of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    sha256: str = ""
    licence: str = ""
    table: tuple[tuple[str, str, str], ...] = ()


class RunInfo(Config):
    """What `run.json` tells; all of it may be missing, and what is unknown is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: str = ""
    started: str = ""
    seconds: float | None = None
    versions: dict[str, Any] = Field(default_factory=dict)
    model: str = "a model"
    params: int | None = None
    recipe: str = ""
    recipe_reason: str = ""
    best_epoch: int | None = None
    selection_metric: str = "top1"
    weights: StartInfo | None = None
    method: str = "full"


def write_report(
    run: Path,
    *,
    model: Model,
    source: Source,
    evaluation: Evaluation,
    augment: AugmentConfigs,
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
    part, train = _task_part(model, source, evaluation), source.splits["train"]
    context: dict[str, Any] = {
        "info": info,
        "source": source,
        "data_name": Path(source.name).name,
        "evaluation": evaluation,
        "selection": _plain(part.names, info.selection_metric),
        "plots": _curves(steps, epochs, info, part.names),
        "metrics": _metric_rows(evaluation, part.names),
        "augmented": augmented_views(
            model, train, augment, seed=seed, epochs=len(epochs), most=4 if train.text else 6
        ),
        **inside_context(model, source),
        "quarantine": _quarantine(run / "quarantine.csv", evaluation.quarantined),
        "most_bad": QUARANTINE,
        "config": _text(run / "config.toml"),
    }
    out = run / "report.html"
    write_atomically(out, _render(part.template, context | part.context).encode())
    return out


@dataclass(frozen=True, slots=True)
class _TaskPart:
    """What a task adds to the page.

    Attributes:
        template: The page; it extends `report.html`.
        names: The metrics that it has words for, in the order of the table.
        context: What the page needs beyond what every report has.
    """

    template: str
    names: Names
    context: dict[str, Any]


def _task_part(model: Model, source: Source, evaluation: Evaluation) -> _TaskPart:
    match evaluation.result:
        case ClassificationMetrics() as result:
            context = report_classify.classification_context(model, source, evaluation, result)
            return _TaskPart("classify.html", report_classify.METRICS, context)
        case TranscriptionMetrics() as result:
            context = report_transcribe.transcription_context(model, source, evaluation, result)
            return _TaskPart("transcribe.html", report_transcribe.METRICS, context)
        case DetectionMetrics() as result:
            context = report_detect.detection_context(model, source, evaluation, result)
            return _TaskPart("detect.html", report_detect.METRICS, context)
        case SegmentationMetrics() as result:
            context = report_segment.segmentation_context(model, source, evaluation, result)
            return _TaskPart("segment.html", report_segment.METRICS, context)
        case other:
            raise AssertionError(f"no report for {type(other).__name__}")


def _render(template: str, context: dict[str, Any]) -> str:
    """Fill the template; only the page's own script may run, whatever stands in the data."""
    environment = open_templates()
    environment.filters.update(percent=percent, duration=duration)  # pyright: ignore[reportUnknownMemberType]
    script = environment.get_template("report.js").render()
    return environment.get_template(template).render(
        **context, script=script, script_hash=script_hash(script)
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


def _curves(
    steps: Sequence[dict[str, Any]],
    epochs: Sequence[dict[str, Any]],
    info: RunInfo,
    names: Names,
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
        title = f"Validation: {_plain(names, info.selection_metric)}"
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


def _plain(names: Names, metric: str) -> str:
    """The name of a metric as people read it; of an unknown one its own."""
    return names[metric][0] if metric in names else metric


def _metric_rows(evaluation: Evaluation, names: Names) -> list[dict[str, Any]]:
    result = evaluation.result
    return [
        {
            "name": name,
            "label": label,
            "meaning": meaning,
            "value": result.metrics[name],
            "interval": result.intervals.get(name),
        }
        for name, (label, meaning) in names.items()
        if name in result.metrics
    ]


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
