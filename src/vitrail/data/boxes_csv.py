"""A CSV file with one box a row: path, x1, y1, x2, y2, label and, optionally, split.

Corners are edges in pixels. The rows of an image need not stand together. A row with a path and
empty cells is an image without objects. Classes are sorted, numbers as numbers, so that a new row
changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vitrail.data.boxes import Annotations, BoxFiles, Entry, Mark, duplicate_names
from vitrail.data.csv import LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, SUFFIXES, Row, read_table
from vitrail.data.folder import SPLIT_FOLDERS
from vitrail.data.label_files import ImageFinder, one_a_split
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError

CORNER_NAMES = (
    ("x1", "xmin", "x_min", "left"),
    ("y1", "ymin", "y_min", "top"),
    ("x2", "xmax", "x_max", "right"),
    ("y2", "ymax", "y_max", "bottom"),
)

_TOP = 1  # folders above a table that is looked at


class _Columns(NamedTuple):
    """Positions; -1 for no split."""

    path: int
    corners: tuple[int, int, int, int]
    label: int
    split: int


@dataclass(frozen=True, slots=True)
class _Image:
    """What the rows of one image say."""

    split: str | None
    marks: list[Mark] = field(default_factory=list[Mark])
    flaws: list[str] = field(default_factory=list[str])


def detect_boxes_csv(storage: Storage) -> BoxFiles | None:
    """Use the tables of boxes near the top, one a split; None if there is none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    tables = [
        path
        for path in storage.paths
        if path.lower().endswith(SUFFIXES) and path.count("/") <= _TOP and _leads(storage, path)
    ]
    if not tables:
        return None
    return _load(storage, one_a_split(storage, tables))


def open_boxes_csv(path: Path) -> BoxFiles | None:
    """Read a table on the disk; None where it has no columns for boxes.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage = Folder(path.parent)
    return _load(storage, {None: path.name}) if _has_boxes(storage, path.name) else None


def _has_boxes(storage: Storage, path: str) -> bool:
    try:
        header, rows = read_table(storage.read(path), path)
    except (DataError, BadSampleError):
        return False
    return _columns(header, rows) is not None


def _leads(storage: Storage, path: str) -> bool:
    """Whether a table of boxes names images, of which one at least is there."""
    if not _has_boxes(storage, path):
        return False
    header, rows = read_table(storage.read(path), path)
    columns = _columns(header, rows)
    assert columns is not None, "it has boxes"
    names = [row[columns.path] for row in rows if len(row) > columns.path]
    finder = ImageFinder(storage)
    known = set(finder.images)
    return any(place in known for place in finder.named(names, path.rpartition("/")[0], None))


def _columns(header: Row | None, rows: Sequence[Row]) -> _Columns | None:
    """Where everything stands; None where this is no table of boxes."""
    if header is None:
        # In the order of RetinaNet's tables, which have no header.
        plain = all(len(row) >= 6 and all(map(_numeric, row[1:5])) for row in rows)
        split = 6 if plain and all(len(row) == 7 for row in rows) else -1
        return _Columns(0, (1, 2, 3, 4), 5, split) if plain and rows else None
    names = [cell.strip().lower() for cell in header]
    path, label, split, x1, y1, x2, y2 = (
        next((names.index(word) for word in words if word in names), -1)
        for words in (PATH_NAMES, LABEL_NAMES, SPLIT_NAMES, *CORNER_NAMES)
    )
    if min(path, label, x1, y1, x2, y2) < 0:
        return None
    return _Columns(path, (x1, y1, x2, y2), label, split)


def _numeric(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def _load(storage: Storage, tables: dict[str | None, str]) -> BoxFiles:
    finder = ImageFinder(storage)
    entries: list[Entry] = []
    for split, path in tables.items():
        images = _images(storage, path, split)
        places = finder.named(list(images), path.rpartition("/")[0], split)
        for place in duplicate_names(places):
            raise DataError(f"{path}: writes the path '{place}' in two ways; write it in one")
        entries += [
            Entry((storage, place), path, image.marks, image.flaws, split=image.split)
            for place, image in zip(places, images.values(), strict=True)
        ]
    names = {mark.name for entry in entries for mark in entry.marks}
    numeric = all(name.isdecimal() for name in names)
    classes = tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))
    count = sum(len(entry.marks) for entry in entries)
    return BoxFiles(
        Annotations(
            format="csv of boxes",
            reason=f"{' and '.join(tables.values())} with columns for path, corners and label: "
            f"{count:,} boxes, {len(classes)} classes by name",
            location=str(storage.location),
            entries=entries,
            classes=classes,
            unlabelled=finder.unnamed(entry.place[1] for entry in entries),
        )
    )


def _images(storage: Storage, path: str, split: str | None) -> dict[str, _Image]:
    """What the rows say, by image, in the order of their first rows."""
    name = str(storage.location / path)
    header, rows = read_table(storage.read(path), name)
    columns = _columns(header, rows)
    assert columns is not None, "looked at before"
    images: dict[str, _Image] = {}
    for number, row in enumerate(rows, 2 if header else 1):
        if len(row) <= max(columns.path, *columns.corners, columns.label, columns.split):
            raise DataError(f"{name}: row {number} is incomplete; give it all the columns")
        image = row[columns.path].strip()
        if not image:
            raise DataError(f"{name}: row {number} has no path; give it one or take it out")
        own = split if columns.split < 0 else _split(row[columns.split], f"{name}: row {number}")
        known = images.setdefault(image, _Image(own))
        if known.split != own:
            raise DataError(
                f"{name}: row {number} puts '{image}' into {own}, a row above into {known.split}; "
                "give an image one split"
            )
        _add(known, [row[place].strip() for place in columns.corners], row[columns.label], number)
    return images


def _split(cell: str, where: str) -> str:
    split = SPLIT_FOLDERS.get(cell.strip().lower())
    if split is None:
        raise DataError(f"{where} has the split '{cell}'; write train, val or test")
    return split


def _add(image: _Image, cells: Sequence[str], label: str, number: int) -> None:
    """Read the box of one row; a row without any is an image without objects."""
    label = label.strip()
    if not label and not any(cells):
        return
    if not label:
        image.flaws.append(f"row {number}: without a label")
        return
    x1, y1, x2, y2 = map(_number, cells)
    image.marks.append(Mark((x1, y1, x2, y2), label, f"row {number}"))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
