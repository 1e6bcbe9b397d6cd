"""YOLO's text files, one an image: rows of a class and a box, or of a class and an outline.

Coordinates are shares of the upright image, whose size is read from its header.

The labels of `images/train/1.jpg` lie in `labels/train/1.txt`, or beside the image. An image
without a label file has no objects, as everywhere where this format is read; `check` lists it.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitrail.data.folder import is_image
from vitrail.data.label_files import ImageFinder, split_of_folders
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
from vitrail.types import Corners, Skipped

_LOOKED_AT = 20  # label files that say whether the others are of this format


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """Which files are images, which are their labels.

    Attributes:
        images: All of them, with the split that they were published in.
        labels: Label files by image.
    """

    storage: Storage
    images: dict[str, str | None]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class YoloRow:
    """One line: its class, and the corners as shares of the image.

    Attributes:
        category: Number of its class.
        corners: Of the box, or of that around the outline.
        points: x and y of each point of an outline; empty where the row is a box.
    """

    category: int
    corners: Corners
    points: tuple[float, ...] = ()


def find_yolo(storage: Storage) -> tuple[Sheet, YoloLayout] | None:
    """The YOLO files of a storage, and what names their classes; None if there are none.

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
        return found[0]
    if _looks_right(plain):
        for path in near_sheets(storage):
            return described(storage, finder, path)  # which says what is wrong with it
        raise DataError(
            f"{storage.location}: YOLO labels, but nothing that names their classes; add a "
            "classes.txt with one name a line, or a data.yaml"
        )
    return None


def opened_yolo(path: Path) -> tuple[Sheet, YoloLayout]:
    """What a YAML file on the disk describes; it lies below its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage = Folder(path.parent)
    return described(storage, ImageFinder(storage), path.name)


def described(storage: Storage, finder: ImageFinder, path: str) -> tuple[Sheet, YoloLayout]:
    """What one YAML file of a storage describes."""
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
    return sheet, layout


def rows_of(storage: Storage, path: str, sheet: Sheet) -> Iterator[tuple[str, YoloRow | str]]:
    """Place for people of each line of a label file, and its row or what is wrong with it.

    Raises:
        DataError: a class has no name.
    """
    for number, line in _numbered(storage, path):
        row = _parse(line, keypoints=sheet.keypoints)
        if isinstance(row, YoloRow) and row.category not in sheet.names:
            raise DataError(
                f"{storage.location / path}: line {number} has class {row.category}, but "
                f"{sheet.path} names {len(sheet.names)} classes ({min(sheet.names)} to "
                f"{max(sheet.names)}); correct one of them"
            )
        yield f"line {number}", row


def missing_parts(sheet: Sheet, layout: YoloLayout) -> str:
    """The splits that a sheet names but that hold no image, for people; empty where none is."""
    found = layout.images.values()
    absent = [key for key in sheet.parts if key not in found]
    return f"; no images where it says {_shown_parts(sheet, absent)}" * bool(absent)


def unmatched(layout: YoloLayout) -> list[Skipped]:
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


def _layout(storage: Storage, finder: ImageFinder, sheet: Sheet | None = None) -> YoloLayout:
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
    return YoloLayout(storage, images, {i: labels[i] for i in images if i in labels})


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


def _looks_right(layout: YoloLayout) -> bool:
    """Whether most of the label files that are looked at begin with a row."""
    first = [next(_numbered(layout.storage, path), None) for path in _few(layout)]
    rows = [_parse(line[1], keypoints=False) for line in first if line is not None]
    return bool(rows) and 2 * sum(isinstance(row, YoloRow) for row in rows) >= len(rows)


def _few(layout: YoloLayout) -> list[str]:
    labels = list(layout.labels.values())
    return labels[:: max(1, len(labels) // _LOOKED_AT)]


def _parse(line: str, *, keypoints: bool) -> YoloRow | str:
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
        return YoloRow(int(category), corners)
    if len(values) < 6 or len(values) % 2:
        return f"{len(values) + 1} numbers; a row has a class and 4, or the points of an outline"
    across, down = values[::2], values[1::2]
    if not all(map(math.isfinite, values)):
        corners = (math.nan, math.nan, math.nan, math.nan)
    else:
        corners = (min(across), min(down), max(across), max(down))
    return YoloRow(int(category), corners, tuple(values))


def _numbered(storage: Storage, path: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1 on."""
    return ((n, line) for n, line in enumerate(_lines(storage, path), 1) if line.strip())


def _lines(storage: Storage, path: str) -> Sequence[str]:
    try:
        return storage.read(path).decode("utf-8-sig", "replace").splitlines()
    except BadSampleError as error:
        raise DataError(f"{path}: {error}") from error
