"""Boxes in COCO's JSON files of objects.

A box is `x, y, width, height` in pixels from the left and upper edge. Images without annotations
are images without objects.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from vitrail.data.boxes import Annotations, BoxFiles, Entry, Mark
from vitrail.data.coco_files import (
    CocoFile,
    annotated,
    as_number,
    beside,
    find_coco,
    is_crowd,
    read_coco,
    stated_size,
    unlisted,
)
from vitrail.data.label_files import ImageFinder
from vitrail.data.storage import Storage
from vitrail.types import Corners, Skipped


def detect_coco(storage: Storage) -> BoxFiles | None:
    """Use the COCO files of a storage, one a split; None if there is none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    finder = ImageFinder(storage)
    files = find_coco(storage, finder)
    return _load(storage, finder, files) if files else None


def open_coco(path: Path) -> BoxFiles:
    """Read one COCO file on the disk; its images lie beside it, or beside its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage, finder, name = beside(path)
    return _load(storage, finder, {None: name})


def _load(storage: Storage, finder: ImageFinder, files: Mapping[str | None, str]) -> BoxFiles:
    entries: list[Entry] = []
    unmatched: list[Skipped] = []
    read, categories = read_coco(storage, finder, files)
    for file in read:
        marks, flaws, counts = _marks(file)
        unmatched += unlisted(file, counts)
        entries += [
            Entry(
                (storage, place),
                file.path,
                marks.get(number, ()),
                flaws.get(number, ()),
                stated_size(row),
                number if isinstance(number, int) else None,
                file.split,
            )
            for (number, row), place in zip(file.images.items(), file.places, strict=True)
        ]
    count = sum(len(entry.marks) for entry in entries)
    return BoxFiles(
        Annotations(
            format="COCO JSON",
            reason=f"{' and '.join(files.values())} with images, annotations and categories: "
            f"{count:,} boxes, {len(categories)} classes",
            location=str(storage.location),
            entries=entries,
            classes=tuple(categories.values()),
            category_ids=tuple(categories),
            unlabelled=finder.unnamed(entry.place[1] for entry in entries),
            unmatched=unmatched,
        )
    )


def _marks(
    file: CocoFile,
) -> tuple[dict[int | str, list[Mark]], dict[int | str, list[str]], dict[int | str, int]]:
    """Objects by image, those of which no box can be read, and how many there are."""
    marks: defaultdict[int | str, list[Mark]] = defaultdict(list)
    flaws: defaultdict[int | str, list[str]] = defaultdict(list)
    counts: defaultdict[int | str, int] = defaultdict(int)
    for where, image, category, row in annotated(file):
        name = file.categories[category]
        counts[image] += 1
        corners = _corners(row.get("bbox"))
        if corners is None:
            flaws[image].append(f"{where}: '{name}' without a box of four numbers")
            continue
        area = as_number(row.get("area"))
        usable = math.isfinite(area) and area > 0
        marks[image].append(Mark(corners, name, where, is_crowd(row), area if usable else None))
    return marks, flaws, counts


def _corners(bbox: object) -> Corners | None:
    """From x, y, width and height."""
    if not isinstance(bbox, list):
        return None
    sides = cast("Sequence[object]", bbox)
    if len(sides) != 4 or any(isinstance(side, bool) for side in sides):
        return None
    if not all(isinstance(side, int | float) for side in sides):
        return None
    x, y, width, height = map(as_number, sides)
    return x, y, x + width, y + height
