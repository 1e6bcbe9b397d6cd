"""COCO's JSON files of objects (https://cocodataset.org/#format-data).

Classes are in the order of their `category_id`, which may start anywhere and have gaps. A box is
`x, y, width, height` in pixels from the left and upper edge. Images without annotations are
images without objects; image files that are not listed are no samples.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from vitrail.data.boxes import LARGEST, Annotations, BoxFiles, Entry, Mark, duplicate_names
from vitrail.data.label_files import ImageFinder, one_a_split
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Corners, Grid, Skipped

Row = dict[str, Any]

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_PANOPTIC = b'"segments_info"'


def detect_coco(storage: Storage) -> BoxFiles | None:
    """Use the COCO files of a storage, one a split; None if there is none.

    Of several for a split, that with `instances` in its name is meant: beside it lie captions and
    keypoints of the same images.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    finder = ImageFinder(storage)
    stems = {str(PurePosixPath(path).with_suffix("")) for path in finder.images}
    suitable = [
        path
        for path in storage.paths
        if path.lower().endswith(".json")
        and path.removesuffix(".json") not in stems  # of one image: another format
        and _looks_right(storage, path)
    ]
    if not suitable:
        return None
    return _load(storage, finder, one_a_split(storage, suitable, preferred="instances"))


def open_coco(path: Path) -> BoxFiles:
    """Read one COCO file on the disk; its images lie beside it, or beside its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage, name = Folder(path.parent), path.name
    finder = ImageFinder(storage)
    if not finder.images:
        folder = path.absolute().parent
        storage, name = Folder(folder.parent), f"{folder.name}/{path.name}"
        finder = ImageFinder(storage)
    return _load(storage, finder, {None: name})


def _looks_right(storage: Storage, path: str) -> bool:
    try:
        data = storage.read(path)
    except BadSampleError:
        return False
    return all(key in data for key in _KEYS) and _PANOPTIC not in data


def _load(storage: Storage, finder: ImageFinder, files: Mapping[str | None, str]) -> BoxFiles:
    entries: list[Entry] = []
    unmatched: list[Skipped] = []
    categories: dict[int, str] = {}
    for split, path in files.items():
        table = _parse(storage, path)
        own = _categories(table, path)
        _merge(categories, own, path)
        marks, flaws, alien = _annotations(table, own, path)
        images = _images(table, path)
        unmatched += [
            Skipped(path, f"{many} for image_id {image}, which is not listed")
            for image, many in alien.items()
            if image not in images
        ]
        places = _places(storage, finder, images, path, split)
        entries += [
            Entry(
                (storage, place),
                path,
                marks.get(number, ()),
                flaws.get(number, ()),
                _size(row),
                number if isinstance(number, int) else None,
                split,
            )
            for (number, row), place in zip(images.items(), places, strict=True)
        ]
    count = sum(len(entry.marks) for entry in entries)
    return BoxFiles(
        Annotations(
            format="COCO JSON",
            reason=f"{' and '.join(files.values())} with images, annotations and categories: "
            f"{count:,} boxes, {len(categories)} classes",
            location=str(storage.location),
            entries=entries,
            classes=tuple(categories[number] for number in sorted(categories)),
            category_ids=tuple(sorted(categories)),
            unlabelled=finder.unnamed(entry.place[1] for entry in entries),
            unmatched=unmatched,
        )
    )


def _parse(storage: Storage, path: str) -> Row:
    try:
        table = json.loads(storage.read(path))
    except BadSampleError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: not COCO, whose files are objects with images and annotations")
    return cast("Row", table)


def _rows(table: Row, key: str, path: str) -> list[Row]:
    rows = table.get(key)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) for row in cast("list[Any]", rows)
    ):
        raise DataError(f"{path}: not COCO, '{key}' is no list of objects; export it again")
    return cast("list[Row]", rows)


def _categories(table: Row, path: str) -> dict[int, str]:
    """Names by id; both say which class is meant, so neither may occur twice."""
    found: dict[int, str] = {}
    for row in _rows(table, "categories", path):
        number, name = row.get("id"), row.get("name")
        if type(number) is not int or not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{path}: the category {number!r} named {name!r}; "
                "give each a whole number as 'id' and a 'name'"
            )
        if number in found:
            raise DataError(
                f"{path}: category id {number} is '{found[number]}' and '{name}'; "
                "give each class its own id"
            )
        found[number] = name
    for name in duplicate_names(found.values()):
        ids = " and ".join(str(number) for number in found if found[number] == name)
        raise DataError(f"{path}: category ids {ids} are both '{name}'; make them one class")
    return found


def _merge(known: dict[int, str], own: Mapping[int, str], path: str) -> None:
    """Add the categories of another file, which must not contradict."""
    by_name = {name: number for number, name in known.items()}
    for number, name in own.items():
        if known.get(number, name) != name or by_name.get(name, number) != number:
            other = by_name.get(name, number)
            raise DataError(
                f"{path}: category id {number} is '{name}', but another file has id {other} for "
                f"'{known[other]}'; give each class the same id in all files"
            )
    known.update(own)


def _images(table: Row, path: str) -> dict[int | str, Row]:
    found: dict[int | str, Row] = {}
    for row in _rows(table, "images", path):
        number, name = row.get("id"), row.get("file_name")
        if not isinstance(number, int | str) or not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{path}: the image {number!r} named {name!r}; give each an 'id' and a 'file_name'"
            )
        if number in found:
            raise DataError(f"{path}: image id {number} occurs twice; give each image its own id")
        found[number] = row
    return found


def _places(
    storage: Storage,
    finder: ImageFinder,
    images: Mapping[int | str, Row],
    path: str,
    split: str | None,
) -> list[str]:
    """Where the images lie, missing ones too."""
    folder = path.rpartition("/")[0]
    places = finder.named([row["file_name"] for row in images.values()], folder, split)
    for place in duplicate_names(places):
        raise DataError(f"{path}: lists '{place}' twice; list each image once")
    if places and not set(places) & set(finder.images):
        raise DataError(
            f"{storage.location / path}: none of its {len(places):,} images is there, "
            f"for example '{places[0]}'; put them beside it"
        )
    return places


def _annotations(
    table: Row, categories: Mapping[int, str], path: str
) -> tuple[dict[int | str, list[Mark]], dict[int | str, list[str]], dict[int | str, str]]:
    """Objects by image, those of which no box can be read, and how many there are."""
    marks: defaultdict[int | str, list[Mark]] = defaultdict(list)
    flaws: defaultdict[int | str, list[str]] = defaultdict(list)
    counts: defaultdict[int | str, int] = defaultdict(int)
    for place, row in enumerate(_rows(table, "annotations", path)):
        where = f"annotation {row.get('id', f'number {place}')}"
        image, category = row.get("image_id"), row.get("category_id")
        if not isinstance(image, int | str):
            raise DataError(f"{path}: {where} has no image_id; say which image it belongs to")
        if type(category) is not int or category not in categories:
            raise DataError(
                f"{path}: {where} has category_id {category!r}, which is none of the "
                f"{len(categories)} categories; add it there or correct it"
            )
        counts[image] += 1
        corners = _corners(row.get("bbox"))
        if corners is None:
            flaws[image].append(f"{where}: '{categories[category]}' without a box of four numbers")
            continue
        area = _number(row.get("area"))
        usable = math.isfinite(area) and area > 0
        crowd = _number(row.get("iscrowd")) == 1
        marks[image].append(
            Mark(corners, categories[category], where, crowd, area if usable else None)
        )
    return marks, flaws, {image: _annotated(count) for image, count in counts.items()}


def _annotated(count: int) -> str:
    return f"{count:,} annotation{'s' if count != 1 else ''}"


def _corners(bbox: object) -> Corners | None:
    """From x, y, width and height."""
    if not isinstance(bbox, list):
        return None
    sides = cast("Sequence[object]", bbox)
    if len(sides) != 4 or any(isinstance(side, bool) for side in sides):
        return None
    if not all(isinstance(side, int | float) for side in sides):
        return None
    x, y, width, height = map(_number, sides)
    return x, y, x + width, y + height


def _size(row: Row) -> Grid | None:
    height, width = row.get("height"), row.get("width")
    if type(height) is not int or type(width) is not int:
        return None
    return (height, width) if 0 < height <= LARGEST and 0 < width <= LARGEST else None


def _number(value: object) -> float:
    """A number as it is; NaN for anything else."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.nan
