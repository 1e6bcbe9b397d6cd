"""Prediction files: a row an image, or, of a detector, a row an object."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from vitrail.errors import UserError
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers, new_folder, write_coco, write_yolo
from vitrail.types import Detection
from vitrail.weights.modelfile import write_atomically

FORMATS = (".jsonl", ".csv", ".parquet")
BOX_COLUMNS = ("path", "x1", "y1", "x2", "y2", "label", "score", "error")
TEXT = ("path", "label", "text", "error")


def write_predictions(
    rows: Iterable[Row], out: Path, numbers: Numbers | None = None
) -> tuple[int, int]:
    """Write rows in the format that the name tells.

    `.jsonl` has a line an image. `.csv` and `.parquet` have a line an image, or an object; an image
    without any still has its line. Of a detector, `.json` is COCO's list of results, and a name
    without suffix is a folder in YOLO's layout.

    Args:
        rows: In any order.
        out: A file, which is replaced, or a folder, which must be new.
        numbers: What COCO and YOLO files call classes and images; of a detector only.

    Returns:
        How many rows were written, and how many of them are errors.

    Raises:
        UserError: an unknown suffix, a folder in use, no room on the disk, or Parquet without
            pyarrow.
    """
    check_out(out, detector=numbers is not None)
    kept = list(rows)
    tables = [row.to_dict() for row in kept]
    found = numbers is not None or any(isinstance(row.prediction, Detection) for row in kept)
    match out.suffix:
        case ".jsonl":
            lines = (json.dumps(table, ensure_ascii=False) + "\n" for table in tables)
            write_atomically(out, "".join(lines).encode())
        case ".csv":
            write_atomically(out, _csv(*_flat(tables, objects=found)))
        case ".parquet":
            write_atomically(out, _parquet(*_flat(tables, objects=found)))
        case ".json":
            assert numbers is not None
            write_coco(kept, out, numbers)
        case _:
            assert numbers is not None
            write_yolo(kept, out, numbers)
    return len(kept), sum(row.prediction is None for row in kept)


def check_out(out: Path, *, detector: bool) -> None:
    """Whether predictions can be written there, before any are made.

    Raises:
        UserError: as of `write_predictions`.
    """
    if out.suffix == ".parquet":
        _need_pyarrow()
    if out.suffix in FORMATS:
        return
    if not detector:
        raise UserError(f"{out}: write predictions as {', '.join(FORMATS)}")
    if out.suffix and out.suffix != ".json":
        raise UserError(
            f"{out}: write predictions as {', '.join(FORMATS)}, .json (COCO) or into a folder "
            "(YOLO), whose name has no dot"
        )
    if not out.suffix:
        new_folder(out)


def _flat(tables: list[dict[str, Any]], *, objects: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Lines without lists, and their columns."""
    if objects:
        return [line for table in tables for line in _objects(table)], list(BOX_COLUMNS)
    lines = [_scores(table) for table in tables]
    found = dict.fromkeys(key for line in lines for key in line)
    # A file of nothing but errors is one of a classifier, the usual case.
    first = ["path", "text" if "text" in found else "label", "score", "error"]
    return lines, first + [key for key in found if key not in first]


def _objects(table: dict[str, Any]) -> list[dict[str, Any]]:
    found = zip(
        table.get("boxes", ()), table.get("labels", ()), table.get("scores", ()), strict=True
    )
    lines: list[dict[str, Any]] = [
        dict(zip(BOX_COLUMNS, (table["path"], *box, label, score), strict=False))
        for box, label, score in found
    ]
    return lines or [{"path": table["path"], "error": table.get("error")}]


def _scores(table: dict[str, Any]) -> dict[str, Any]:
    scores = table.get("scores", {})
    kept = {key: value for key, value in table.items() if key != "scores"}
    return kept | {f"score_{name}": score for name, score in scores.items()}


def _csv(lines: list[dict[str, Any]], columns: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def _parquet(lines: list[dict[str, Any]], columns: list[str]) -> bytes:
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    pa: Any = pyarrow
    # Typed, since a shard without errors must have the columns of the others.
    table: dict[str, Any] = {
        name: pa.array(
            [line.get(name) for line in lines], pa.string() if name in TEXT else pa.float64()
        )
        for name in columns
    }
    sink = io.BytesIO()
    cast("Any", parquet).write_table(pa.table(table), sink)
    return sink.getvalue()


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
    except ImportError as error:
        raise UserError(
            "Parquet needs pyarrow: `pip install 'vitrail[parquet]'`, or write .jsonl or .csv"
        ) from error
