"""YOLO's text files, one an image: rows of class, centre x, centre y, width, height.

Coordinates are shares of the upright image, whose size is read from its header. A row that goes on
with the corners of a polygon (segments, turned boxes) counts with the box around them.

The labels of `images/train/1.jpg` lie in `labels/train/1.txt`, or beside the image. An image
without a label file has no objects, as everywhere where this format is read; `check` lists it.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitrail.data.boxes import Annotations, BoxFiles, Entry, Mark
from vitrail.data.folder import is_image
from vitrail.data.label_files import ImageFinder, split_of_folders
from vitrail.data.sizes import header_sizes
from vitrail.data.storage import Folder, Storage
from vitrail.data.yolo_names import (
    LIST_NAMES,
    Sheet,
    find_sheets,
    near_sheets,
    read_yaml,
    why_unread,
)
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Corners, Grid, Skipped

_LOOKED_AT = 20  # label files that say whether the others are of this format


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which files are images, which are their labels.

    Attributes:
        images: All of them, with the split that they were published in.
        labels: Label files by image.
    """

    storage: Storage
    images: dict[str, str | None]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Row:
    """One line: class and corners as shares of the image; whether it was an outline."""

    category: int
    corners: Corners
    outline: bool


def detect_yolo(storage: Storage) -> BoxFiles | None:
    """Read the YOLO files of a storage; None if there are none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    finder = ImageFinder(storage)
    plain = _layout(storage, finder)
    if not plain.labels:
        return None
    found = [
        (sheet, layout)
        for sheet in find_sheets(storage)
        if _looks_right(layout := _layout(storage, finder, sheet))
    ]
    if len(found) > 1:
        paths = " and ".join(sheet.path for sheet, _ in found[:3])
        raise DataError(
            f"{storage.location}: {paths} could both name the classes; give the path of the YAML "
            "file that is meant, or take the others out"
        )
    if found:
        return _load(*found[0])
    if _looks_right(plain):
        for path in near_sheets(storage):
            return _described(storage, finder, path)  # which says what is wrong with it
        raise DataError(
            f"{storage.location}: YOLO labels, but nothing that names their classes; add a "
            "classes.txt with one name a line, or a data.yaml"
        )
    return None


def open_yolo(path: Path) -> BoxFiles:
    """Read the data set that a YAML file on the disk describes; it lies below its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage = Folder(path.parent)
    return _described(storage, ImageFinder(storage), path.name)


def _described(storage: Storage, finder: ImageFinder, path: str) -> BoxFiles:
    """What one YAML file describes."""
    sheet = read_yaml(storage, path)
    if sheet is None:
        raise why_unread(storage, path)
    layout = _layout(storage, finder, sheet)
    if sheet.parts and not layout.images:
        says = _shown_parts(sheet, sheet.parts)
        raise DataError(
            f"{storage.location / path}: no images where it says ({says}); write folders from "
            "this file on, such as train: images/train"
        )
    if not layout.labels:
        image = next(iter(layout.images), "images/train/1.jpg")
        raise DataError(
            f"{storage.location / path}: no label files for {len(layout.images):,} images; put "
            f"them where {_label_places(image)[0]} is that of {image}"
        )
    return _load(sheet, layout)


def _layout(storage: Storage, finder: ImageFinder, sheet: Sheet | None = None) -> _Layout:
    """Images with their splits: as the sheet says, else by their folders."""
    known = set(storage.paths)
    labels = {
        image: label
        for image in finder.images
        if (label := next((place for place in _label_places(image) if place in known), None))
    }
    if sheet and sheet.parts:
        images: dict[str, str | None] = {}
        for split, places in sheet.parts.items():
            for image in (i for place in places for i in _part(storage, finder, sheet, place)):
                if images.setdefault(image, split) != split:
                    raise DataError(
                        f"{sheet.path}: '{image}' is in {images[image]} and in {split}; give each "
                        "image one split, or leave one of the two keys out"
                    )
    else:
        every = sorted([*labels, *finder.unnamed(labels)])
        images = {image: split_of_folders(image) for image in every}
    return _Layout(storage, images, {i: labels[i] for i in images if i in labels})


def _label_places(image: str) -> list[str]:
    """Where the label of an image may lie: the last folder `images` becomes `labels`, or beside."""
    label = PurePosixPath(image).with_suffix(".txt")
    parts = list(label.parts)
    folders = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if not folders:
        return [str(label)]
    parts[folders[-1]] = "labels"
    return ["/".join(parts), str(label)]


def _part(storage: Storage, finder: ImageFinder, sheet: Sheet, place: str) -> list[str]:
    """The images of one place that a sheet names: a folder, or a file that lists them.

    The place may be written from `path` on, from the sheet on, or for a folder that this one no
    longer lies in (`../train/images`). The first that is there is meant.
    """
    top, place = PurePosixPath(sheet.path).parent, place.replace("\\", "/")
    bare = PurePosixPath(*(part for part in PurePosixPath(place).parts if part not in {"..", "/"}))
    for path in (top / sheet.root.replace("\\", "/") / place, top / place, top / bare):
        name = posixpath.normpath(path)
        if storage.size(name) and name.endswith(".txt"):
            listed = _lines(storage, name)
            return [i for i in finder.named(listed, str(top).strip("."), None) if is_image(i)]
        images = [i for i in finder.images if name == "." or i.startswith(f"{name}/")]
        if images:
            return images
    return []


def _shown_parts(sheet: Sheet, keys: Iterable[str]) -> str:
    """Some splits with their places, as a sheet writes them."""
    shown = ", ".join(f"{key}: {' and '.join(sheet.parts[key][:3])}" for key in keys)
    return f"{shown}, path: {sheet.root}" if sheet.root else shown


def _looks_right(layout: _Layout) -> bool:
    """Whether most of the label files that are looked at begin with a row."""
    first = [next(_numbered(layout.storage, path), None) for path in _few(layout)]
    rows = [_parse(line[1], keypoints=False) for line in first if line is not None]
    return bool(rows) and 2 * sum(isinstance(row, _Row) for row in rows) >= len(rows)


def _few(layout: _Layout) -> list[str]:
    labels = list(layout.labels.values())
    return labels[:: max(1, len(labels) // _LOOKED_AT)]


def _load(sheet: Sheet, layout: _Layout) -> BoxFiles:
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
    absent = {
        key: places for key, places in sheet.parts.items() if key not in layout.images.values()
    }
    if absent:
        reason += f"; no images where it says {_shown_parts(sheet, absent)}"
    return BoxFiles(
        Annotations(
            format="YOLO",
            reason=reason + f"; of {outlines:,} outlines the boxes around them" * bool(outlines),
            location=str(storage.location),
            entries=entries,
            classes=tuple(sheet.names.values()),
            category_ids=tuple(sheet.names),
            unlabelled=[image for image in layout.images if image not in layout.labels],
            unmatched=_unmatched(layout),
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
    for number, line in _numbered(storage, path):
        row = _parse(line, keypoints=sheet.keypoints)
        if isinstance(row, str):
            flaws.append(f"line {number}: {row}")
            continue
        if row.category not in sheet.names:
            raise DataError(
                f"{storage.location / path}: line {number} has class {row.category}, but "
                f"{sheet.path} names {len(sheet.names)} classes ({min(sheet.names)} to "
                f"{max(sheet.names)}); correct one of them"
            )
        x1, y1, x2, y2 = row.corners
        corners = (x1 * width, y1 * height, x2 * width, y2 * height)
        marks.append(Mark(corners, sheet.names[row.category], f"line {number}"))
        outlines += row.outline
    return marks, flaws, outlines


def _parse(line: str, *, keypoints: bool) -> _Row | str:
    """One row, or what is wrong with it."""
    try:
        category, *values = map(float, line.split())
    except ValueError:
        return f"'{line[:40]}' is no row of numbers"
    if not category.is_integer() or category < 0:
        return f"the class {category:g} is no whole number from 0 on"
    if len(values) == 4 or (keypoints and len(values) > 4):
        x, y, width, height = values[:4]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return _Row(int(category), corners, outline=False)
    if len(values) < 6 or len(values) % 2:
        return f"{len(values) + 1} numbers; a row has a class and 4, or the points of an outline"
    across, down = values[::2], values[1::2]
    if not all(map(math.isfinite, values)):
        corners = (math.nan, math.nan, math.nan, math.nan)
    else:
        corners = (min(across), min(down), max(across), max(down))
    return _Row(int(category), corners, outline=True)


def _numbered(storage: Storage, path: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1 on."""
    return ((n, line) for n, line in enumerate(_lines(storage, path), 1) if line.strip())


def _lines(storage: Storage, path: str) -> Sequence[str]:
    try:
        return storage.read(path).decode("utf-8-sig", "replace").splitlines()
    except BadSampleError as error:
        raise DataError(f"{path}: {error}") from error


def _unmatched(layout: _Layout) -> list[Skipped]:
    """Label files without an image, in the folders that hold labels."""
    used = set(layout.labels.values())
    folders = {PurePosixPath(label).parent for label in used}
    # One that belongs to an image of no split has its image.
    others = {place for image in layout.images for place in _label_places(image)}
    return [
        Skipped(path, "a label file without an image of its name")
        for path in layout.storage.paths
        if path.endswith(".txt")
        and path not in used | others
        and PurePosixPath(path).parent in folders
        and PurePosixPath(path).name not in LIST_NAMES
    ]
