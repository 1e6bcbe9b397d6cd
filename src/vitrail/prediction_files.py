"""Prediction files: a row an image, or, of a detector or segmenter, a row an object."""

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
from vitrail.prediction_masks import (
    MaskForm,
    write_coco_masks,
    write_index_masks,
    write_panoptic,
)
from vitrail.prediction_polygons import write_coco_polygons, write_yolo_polygons
from vitrail.types import Detection, Segmentation
from vitrail.weights.modelfile import write_atomically

FORMATS = (".jsonl", ".csv", ".parquet")
BOX_COLUMNS = ("path", "x1", "y1", "x2", "y2", "label", "score", "error")
SEGMENT_COLUMNS = (
    *("path", "label", "score", "area", "x1", "y1", "x2", "y2"),
    *("height", "width", "rle", "error"),
)
TEXT = ("path", "label", "text", "rle", "error")


def write_predictions(
    rows: Iterable[Row], out: Path, form: Numbers | MaskForm | None = None
) -> tuple[int, int]:
    """Write rows in the format that the name tells.

    `.jsonl` has a line an image. `.csv` and `.parquet` have a line an image, or an object; an image
    without any still has its line. `.json` is COCO's list of results, and a name without suffix is
    a folder: of a detector YOLO's; of a segmenter index PNGs, YOLO's polygons where it tells
    objects, COCO's panoptic PNGs where it tells both.

    Args:
        rows: In any order.
        out: A file, which is replaced, or a folder, which must be new.
        form: What COCO and YOLO files need to know; None where answers are neither boxes nor masks.

    Returns:
        How many rows were written, and how many of them are errors.

    Raises:
        UserError: an unknown suffix, a folder in use, no room on the disk, or Parquet without
            pyarrow.
    """
    check_out(out, form)
    kept = list(rows)
    match out.suffix:
        case ".jsonl":
            lines = (json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in kept)
            write_atomically(out, "".join(lines).encode())
        case ".csv":
            write_atomically(out, _csv(*_flat(kept, form)))
        case ".parquet":
            write_atomically(out, _parquet(*_flat(kept, form)))
        case _:
            assert form is not None
            _write_for_others(kept, out, form)
    return len(kept), sum(row.prediction is None for row in kept)


def _write_for_others(rows: list[Row], out: Path, form: Numbers | MaskForm) -> None:
    """A file or folder in the format of other tools."""
    match form, out.suffix:
        case Numbers(), ".json":
            write_coco(rows, out, form)
        case Numbers(), _:
            write_yolo(rows, out, form)
        case MaskForm(polygons=True), ".json":
            write_coco_polygons(rows, out, form.numbers)
        case MaskForm(), ".json":
            write_coco_masks(rows, out, form.numbers)
        case MaskForm(polygons=True) | MaskForm(answer="instance"), _:
            write_yolo_polygons(rows, out, form)
        case MaskForm(answer="panoptic"), _:
            write_panoptic(rows, out, form)
        case MaskForm(), _:
            write_index_masks(rows, out, form)


def check_out(out: Path, form: Numbers | MaskForm | None) -> None:
    """Whether predictions can be written there, before any are made.

    Raises:
        UserError: as of `write_predictions`.
    """
    outlined = isinstance(form, MaskForm) and form.polygons
    if outlined and out.suffix in FORMATS:
        raise UserError(
            f"{out}: --polygons are written as .json (COCO) or into a folder (YOLO), whose name "
            "has no dot"
        )
    if out.suffix == ".parquet":
        _need_pyarrow()
    if out.suffix in FORMATS:
        return
    if form is None:
        raise UserError(f"{out}: write predictions as {', '.join(FORMATS)}")
    if out.suffix and out.suffix != ".json":
        raise UserError(
            f"{out}: write predictions as {', '.join(FORMATS)}, .json (COCO) or into a folder "
            f"({_folder_of(form)}), whose name has no dot"
        )
    if isinstance(form, MaskForm):
        form.check(out)
    if not out.suffix:
        new_folder(out)


def _folder_of(form: Numbers | MaskForm) -> str:
    match form:
        case MaskForm(indexed=True):
            return "index PNGs"
        case MaskForm(answer="panoptic", polygons=False):
            return "panoptic PNGs"
        case _:
            return "YOLO"


def _flat(
    rows: list[Row], form: Numbers | MaskForm | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Lines without lists, and their columns."""
    if isinstance(form, MaskForm) or any(isinstance(row.prediction, Segmentation) for row in rows):
        return [line for row in rows for line in _segments(row)], list(SEGMENT_COLUMNS)
    tables = [row.to_dict() for row in rows]
    if form is not None or any(isinstance(row.prediction, Detection) for row in rows):
        return [line for table in tables for line in _objects(table)], list(BOX_COLUMNS)
    lines = [_scores(table) for table in tables]
    found = dict.fromkeys(key for line in lines for key in line)
    # A file of nothing but errors is one of a classifier, the usual case.
    first = ["path", "text" if "text" in found else "label", "score", "error"]
    return lines, first + [key for key in found if key not in first]


def _segments(row: Row) -> list[dict[str, Any]]:
    table = row.to_dict()
    lines: list[dict[str, Any]] = []
    for segment in table.get("segments", ()):
        x, y, width, height = segment["bbox"]
        corners = dict(zip(("x1", "y1", "x2", "y2"), (x, y, x + width, y + height), strict=True))
        size = dict(zip(("height", "width"), segment["rle"]["size"], strict=True))
        named = {name: segment[name] for name in ("label", "score", "area")}
        rle = segment["rle"]["counts"]
        lines.append({"path": row.path, **named, **corners, **size, "rle": rle})
    bare = {"path": row.path, "error": row.error}
    if isinstance(row.prediction, Segmentation):
        bare |= dict(zip(("height", "width"), row.prediction.size, strict=True))
    return lines or [bare]


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
