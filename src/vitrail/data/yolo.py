"""Boxes in YOLO's text files: rows of class, centre x, centre y, width, height.

A row that goes on with the corners of a polygon (segments, turned boxes) counts with the box around
them.
"""

from __future__ import annotations

from pathlib import Path

from vitrail.data.boxes import Annotations, BoxFiles, Entry, Mark
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
from vitrail.types import Grid


def detect_yolo(storage: Storage) -> BoxFiles | None:
    """Read the YOLO files of a storage; None if there are none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    found = find_yolo(storage)
    return _load(*found) if found else None


def open_yolo(path: Path) -> BoxFiles:
    """Read the data set that a YAML file on the disk describes; it lies below its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    return _load(*opened_yolo(path))


def _load(sheet: Sheet, layout: YoloLayout) -> BoxFiles:
    storage = layout.storage
    sizes = header_sizes([(storage, image) for image in layout.images])
    entries: list[Entry] = []
    outlines = 0
    for (image, split), size in zip(layout.images.items(), sizes, strict=True):
        label = layout.labels.get(image)
        if label is None or size is None:  # an image that cannot be opened is a bad sample
            entries.append(Entry((storage, image), label or "", size=size, split=split))
            continue
        marks, flaws, traced = _marks(storage, label, sheet, size)
        outlines += traced
        entries.append(Entry((storage, image), label, marks, flaws, size, split=split))
    count = sum(len(entry.marks) for entry in entries)
    reason = (
        f"{len(layout.labels):,} text files of rows with a class and a box, named by {sheet.path}: "
        f"{count:,} boxes, {len(sheet.names)} classes"
    )
    reason += missing_parts(sheet, layout)
    return BoxFiles(
        Annotations(
            format="YOLO",
            reason=reason + f"; of {outlines:,} outlines the boxes around them" * bool(outlines),
            location=str(storage.location),
            entries=entries,
            classes=tuple(sheet.names.values()),
            category_ids=tuple(sheet.names),
            unlabelled=[image for image in layout.images if image not in layout.labels],
            unmatched=unmatched(layout),
        )
    )


def _marks(
    storage: Storage, path: str, sheet: Sheet, size: Grid
) -> tuple[list[Mark], list[str], int]:
    """The objects of one label file, rows that cannot be read, and how many were outlines."""
    marks: list[Mark] = []
    flaws: list[str] = []
    outlines = 0
    height, width = size
    for where, row in rows_of(storage, path, sheet):
        if isinstance(row, str):
            flaws.append(f"{where}: {row}")
            continue
        x1, y1, x2, y2 = row.corners
        corners = (x1 * width, y1 * height, x2 * width, y2 * height)
        marks.append(Mark(corners, sheet.names[row.category], where))
        outlines += bool(row.points)
    return marks, flaws, outlines
