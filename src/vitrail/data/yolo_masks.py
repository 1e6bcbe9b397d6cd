"""Outlines in YOLO's text files: rows of a class and the points of a polygon.

Each row is a segment of its own. A row that is a box has no outline, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.data.outlines import Objects, Shape, covers_nothing, polygon_flaw
from vitrail.data.segments import MaskAnnotations, MaskEntry, MaskFiles
from vitrail.data.sizes import header_sizes
from vitrail.data.storage import Storage
from vitrail.data.yolo_files import (
    YoloLayout,
    find_yolo,
    missing_parts,
    opened_yolo,
    rows_of,
    unmatched,
)
from vitrail.data.yolo_names import Sheet
from vitrail.errors import DataError
from vitrail.types import Grid


def detect_yolo_masks(storage: Storage) -> MaskFiles | None:
    """Read the YOLO files of a storage; None if there are none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    found = find_yolo(storage)
    return _load(*found) if found else None


def open_yolo_masks(path: Path) -> MaskFiles:
    """Read the data set that a YAML file on the disk describes; it lies below its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    return _load(*opened_yolo(path))


def _load(sheet: Sheet, layout: YoloLayout) -> MaskFiles:
    storage = layout.storage
    sizes = header_sizes([(storage, image) for image in layout.images])
    index = {number: label for label, number in enumerate(sheet.names)}
    entries: list[MaskEntry] = []
    count = 0
    for (image, split), size in zip(layout.images.items(), sizes, strict=True):
        label = layout.labels.get(image)
        shapes: list[Shape] = []
        flaws: list[str] = []
        if label is not None and size is not None:
            shapes, flaws = _shapes(storage, label, sheet, index, size)
        count += len(shapes)
        entries.append(
            MaskEntry(
                (storage, image),
                Objects(size or (1, 1), tuple(shapes)),
                label or "",
                flaws,
                split=split,
                broken="" if size else _unreadable(layout, image),
            )
        )
    if not count:
        raise _no_outlines(str(storage.location), entries)
    return MaskFiles(
        MaskAnnotations(
            format="YOLO outlines",
            reason=f"{len(layout.labels):,} text files of rows with a class and an outline, named "
            f"by {sheet.path}: {count:,} outlines, {len(sheet.names)} classes"
            f"{missing_parts(sheet, layout)}",
            location=str(storage.location),
            entries=entries,
            classes=tuple(sheet.names.values()),
            segments="instance",
            category_ids=tuple(sheet.names),
            unlabelled=[image for image in layout.images if image not in layout.labels],
            unmatched=unmatched(layout),
        )
    )


def _shapes(
    storage: Storage, path: str, sheet: Sheet, index: dict[int, int], size: Grid
) -> tuple[list[Shape], list[str]]:
    """The objects of one label file, and rows that cannot be used."""
    shapes: list[Shape] = []
    flaws: list[str] = []
    height, width = size
    for where, row in rows_of(storage, path, sheet):
        if isinstance(row, str):
            flaws.append(f"{where}: {row}")
            continue
        name = f"{where}: '{sheet.names[row.category]}'"
        if not row.points:
            flaws.append(f"{name} is a box without an outline")
            continue
        points = tuple(
            value * (height if place % 2 else width) for place, value in enumerate(row.points)
        )
        flaw = polygon_flaw(points, size)
        if not flaw and covers_nothing([points], size):
            flaw = "is so thin that it covers no pixel"
        if flaw:
            flaws.append(f"{name} {flaw}")
        else:
            shapes.append(Shape(index[row.category], name, (points,)))
    return shapes, flaws


def _unreadable(layout: YoloLayout, image: str) -> str:
    missing = not layout.storage.size(image)
    return "the file is missing" if missing else "the image cannot be read, nor its size"


def _no_outlines(location: str, entries: Sequence[MaskEntry]) -> DataError:
    flaws = [f"{entry.file}, {flaw}" for entry in entries for flaw in entry.flaws]
    if flaws and all("is a box without" in flaw for flaw in flaws):
        why = f"all {len(flaws):,} rows are boxes; train `detect` on them"
    elif flaws:
        why = f"correct the first of {len(flaws):,} that were left out: {flaws[0]}"
    else:
        why = "outline some objects"
    return DataError(f"{location}: no usable outline in {len(entries):,} images; {why}")
