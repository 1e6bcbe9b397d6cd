"""COCO's JSON files, whatever they annotate (https://cocodataset.org/#format-data).

Classes are in the order of their `category_id`, which may start anywhere and have gaps. Image files
that are not listed are no samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from vitrail.data.boxes import LARGEST, duplicate_names
from vitrail.data.label_files import ImageFinder, one_a_split
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Grid, Skipped

Row = dict[str, Any]

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_PANOPTIC = b'"segments_info"'


@dataclass(frozen=True, slots=True)
class CocoFile:
    """One file, of which everything but the annotations was checked.

    Attributes:
        path: In its storage.
        split: That it is for; None where it names none.
        table: All of it.
        categories: Names by id.
        images: Rows by id, in the order of the file.
        places: Where each image should lie.
    """

    path: str
    split: str | None
    table: Row
    categories: Mapping[int, str]
    images: Mapping[int | str, Row]
    places: Sequence[str]


def find_coco(
    storage: Storage, finder: ImageFinder, *, panoptic: bool = False
) -> dict[str | None, str]:
    """The files of a storage by split; empty where there is none.

    Of several for a split, that with `instances` in its name is meant: beside it lie captions and
    keypoints of the same images.

    Args:
        storage: Where they lie.
        finder: Of its images.
        panoptic: Look for those of segments that cover their images; else for those of objects.

    Raises:
        DataError: several could be meant.
    """
    stems = {str(PurePosixPath(path).with_suffix("")) for path in finder.images}
    suitable = [
        path
        for path in storage.paths
        if path.lower().endswith(".json")
        and path.removesuffix(".json") not in stems  # of one image: another format
        and _looks_right(storage, path, panoptic=panoptic)
    ]
    return one_a_split(storage, suitable, preferred="panoptic" if panoptic else "instances")


def beside(path: Path) -> tuple[Storage, ImageFinder, str]:
    """A folder that holds a file and its images, and the name of the file in it."""
    storage, name = Folder(path.parent), path.name
    finder = ImageFinder(storage)
    if not finder.images:
        folder = path.absolute().parent
        storage, name = Folder(folder.parent), f"{folder.name}/{path.name}"
        finder = ImageFinder(storage)
    return storage, finder, name


def read_coco(
    storage: Storage, finder: ImageFinder, files: Mapping[str | None, str]
) -> tuple[list[CocoFile], dict[int, str]]:
    """Files with the images that they name, and the categories of all of them.

    Raises:
        DataError: they are damaged, or contradict themselves or each other.
    """
    found: list[CocoFile] = []
    categories: dict[int, str] = {}
    for split, path in files.items():
        table = parsed(storage, path)
        own = _categories(table, path)
        _merge(categories, own, path)
        images = images_of(table, path)
        places = _places(storage, finder, images, path, split)
        found.append(CocoFile(path, split, table, own, images, places))
    return found, dict(sorted(categories.items()))


def annotated(file: CocoFile) -> Iterator[tuple[str, int | str, int, Row]]:
    """Place for people, image, category and row of each annotation, the first two checked.

    Raises:
        DataError: one names no image, or no category that there is.
    """
    for place, row in enumerate(rows_of(file.table, "annotations", file.path)):
        where = f"annotation {row.get('id', f'number {place}')}"
        image, category = row.get("image_id"), row.get("category_id")
        if not isinstance(image, int | str):
            raise DataError(f"{file.path}: {where} has no image_id; say which image it belongs to")
        if type(category) is not int or category not in file.categories:
            raise DataError(
                f"{file.path}: {where} has category_id {category!r}, which is none of the "
                f"{len(file.categories)} categories; add it there or correct it"
            )
        yield where, image, category, row


def unlisted(file: CocoFile, counts: Mapping[int | str, int]) -> list[Skipped]:
    """Annotations of images that the file does not list, from how many each image has."""
    return [
        Skipped(file.path, f"{_counted(many)} for image_id {image}, which is not listed")
        for image, many in counts.items()
        if image not in file.images
    ]


def is_panoptic(storage: Storage, path: str) -> bool:
    """Whether a file has segments that cover their images."""
    return _looks_right(storage, path, panoptic=True)


def _looks_right(storage: Storage, path: str, *, panoptic: bool) -> bool:
    try:
        data = storage.read(path)
    except BadSampleError:
        return False
    return all(key in data for key in _KEYS) and (_PANOPTIC in data) is panoptic


def parsed(storage: Storage, path: str) -> Row:
    """All that a file says."""
    try:
        table = json.loads(storage.read(path))
    except BadSampleError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: not COCO, whose files are objects with images and annotations")
    return cast("Row", table)


def rows_of(table: Row, key: str, path: str) -> list[Row]:
    """One of the lists of a file."""
    rows = table.get(key)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) for row in cast("list[Any]", rows)
    ):
        raise DataError(f"{path}: not COCO, '{key}' is no list of objects; export it again")
    return cast("list[Row]", rows)


def _categories(table: Row, path: str) -> dict[int, str]:
    """Names by id; both say which class is meant, so neither may occur twice."""
    found: dict[int, str] = {}
    for row in rows_of(table, "categories", path):
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


def images_of(table: Row, path: str) -> dict[int | str, Row]:
    """Rows of the images of a file, by id."""
    found: dict[int | str, Row] = {}
    for row in rows_of(table, "images", path):
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


def is_crowd(row: Row) -> bool:
    """Whether an annotation stands for many objects."""
    return as_number(row.get("iscrowd")) == 1


def _counted(count: int) -> str:
    return f"{count:,} annotation{'s' if count != 1 else ''}"


def stated_size(row: Row) -> Grid | None:
    """Height and width as an image's row states them; None where it does not."""
    height, width = row.get("height"), row.get("width")
    if type(height) is not int or type(width) is not int:
        return None
    return (height, width) if 0 < height <= LARGEST and 0 < width <= LARGEST else None


def as_number(value: object) -> float:
    """A number as it is; NaN for anything else."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.nan
