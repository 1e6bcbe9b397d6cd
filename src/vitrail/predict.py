"""Predictions: one row an image, in the order of the images, an error row for a bad file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vitrail.data.dataset import Dataset, Subset
from vitrail.data.loader import Auto, Loader, Workers
from vitrail.data.order import Sequential
from vitrail.errors import UserError
from vitrail.model import Model
from vitrail.types import Batch, Classification, Prediction, Transcription
from vitrail.weights.modelfile import write_atomically

FORMATS = (".jsonl", ".csv", ".parquet")
TEXT = ("path", "label", "text", "error")


@dataclass(frozen=True, slots=True)
class Row:
    """The answer for one image: a prediction, or the reason why there is none."""

    path: str
    prediction: Prediction | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in a prediction file."""
        if self.prediction is None:
            return {"path": self.path, "error": self.error}
        match self.prediction:
            case Classification(label=label, score=score, scores=scores):
                return {"path": self.path, "label": label, "score": score, "scores": scores}
            case Transcription(text=text, score=score):
                return {"path": self.path, "text": text, "score": score}

    @property
    def answer(self) -> str:
        """The row as a person reads it."""
        match self.prediction:
            case Classification(label=label, score=score):
                return f"{label or '(none)'}  {score:.3f}"
            case Transcription(text=text, score=score):
                return f"{text or '(nothing)'}  {score:.3f}"
            case None:
                return f"error: {self.error}"


def predict(
    model: Model, dataset: Dataset, *, batch_size: int = 32, workers: Workers | None = None
) -> Iterator[Row]:
    """Predict every image of a data set; nothing is skipped silently.

    Evaluation runs this very function, so that both give the same answer.

    Args:
        model: In evaluation mode, on any device.
        dataset: Labels are not needed.
        batch_size: Images a forward pass.
        workers: How images are decoded; measured by default.

    Yields:
        One row an image in the order of `dataset.ids`.
    """
    model.eval()
    preprocess = model.config.preprocess

    def prepare(image: Tensor, rng: np.random.Generator) -> Tensor:
        del rng
        return preprocess.prepare(image)

    loader = Loader(
        dataset,
        prepare,
        batch_size=batch_size,
        order=Sequential(),
        seed=0,
        workers=workers or Auto(),
        drop_last=False,
        strict=False,
    )
    # Images of other sizes come in batches of their own, so that rows may overtake each other. The
    # same file may be asked for twice: a list a name.
    waiting: dict[str, list[Row]] = {}
    order = iter(dataset.ids)
    next_id = next(order, None)
    for batch in loader.epoch(0):
        for row in _answer(model, batch):
            waiting.setdefault(row.path, []).append(row)
        while next_id is not None and waiting.get(next_id):
            yield waiting[next_id].pop(0)
            next_id = next(order, None)
    assert next_id is None, f"no answer for {next_id}"


def shard_of(dataset: Dataset, shard: str) -> Dataset:
    """Part `i/n` of a data set, counted from 0: every n-th image from the i-th on.

    Raises:
        UserError: not of that form, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard {shard}: write it as i/n with i from 0 to n - 1, e.g. 0/4")
    part, parts = int(match[1]), int(match[2])
    return dataset if parts == 1 else Subset(dataset, range(part, len(dataset), parts))


def write_predictions(rows: Iterable[Row], out: Path) -> tuple[int, int]:
    """Write rows as JSON lines, CSV or Parquet by the suffix of the file.

    Returns:
        How many rows were written, and how many of them are errors.

    Raises:
        UserError: an unknown suffix, no room on the disk, or Parquet without pyarrow.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: write predictions as {', '.join(FORMATS)}")
    if out.suffix == ".parquet":
        _need_pyarrow()
    tables = [row.to_dict() for row in rows]
    match out.suffix:
        case ".jsonl":
            lines = (json.dumps(table, ensure_ascii=False) + "\n" for table in tables)
            data = "".join(lines).encode()
        case ".csv":
            data = _csv(tables)
        case _:
            data = _parquet(tables)
    write_atomically(out, data)
    return len(tables), sum("error" in table for table in tables)


def _answer(model: Model, batch: Batch) -> Iterator[Row]:
    for skipped in batch.skipped:
        yield Row(skipped.id, error=skipped.reason)
    if not batch.ids:
        return
    device = next(model.parameters()).device
    with torch.inference_mode():
        output = model(batch.images.to(device))
    for path, prediction in zip(batch.ids, model.task.postprocess(output), strict=True):
        yield Row(path, prediction)


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    scores = table.get("scores", {})
    kept = {key: value for key, value in table.items() if key != "scores"}
    return kept | {f"score_{name}": score for name, score in scores.items()}


def _columns(tables: list[dict[str, Any]]) -> list[str]:
    found = dict.fromkeys(key for table in tables for key in table)
    # A file of nothing but errors is one of a classifier, the usual case.
    first = ["path", "text" if "text" in found else "label", "score", "error"]
    return first + [key for key in found if key not in first]


def _csv(tables: list[dict[str, Any]]) -> bytes:
    flat = [_flat(table) for table in tables]
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(flat), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def _parquet(tables: list[dict[str, Any]]) -> bytes:
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    pa: Any = pyarrow
    flat = [_flat(table) for table in tables]
    # Typed, since a shard without errors must have the columns of the others.
    columns: dict[str, Any] = {
        name: pa.array(
            [row.get(name) for row in flat], pa.string() if name in TEXT else pa.float64()
        )
        for name in _columns(flat)
    }
    sink = io.BytesIO()
    cast("Any", parquet).write_table(pa.table(columns), sink)
    return sink.getvalue()


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
    except ImportError as error:
        raise UserError(
            "Parquet needs pyarrow: `pip install 'vitrail[parquet]'`, or write .jsonl or .csv"
        ) from error
