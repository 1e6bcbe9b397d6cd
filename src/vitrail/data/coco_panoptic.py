"""COCO's panoptic format: a JSON file of segments, and a PNG an image that numbers its pixels.

A pixel's segment is `red + 256 green + 65536 blue` (https://cocodataset.org/#format-data); 0 is
void. `isthing` of a category says whether its segments are objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from vitrail.data.coco_files import (
    CocoFile,
    Row,
    find_coco,
    images_of,
    is_crowd,
    is_panoptic,
    parsed,
    read_coco,
    rows_of,
)
from vitrail.data.label_files import ImageFinder, split_of_folders
from vitrail.data.mask_values import mask_values
from vitrail.data.segments import (
    MOST_SEGMENTS,
    Drawing,
    MaskAnnotations,
    MaskEntry,
    MaskFiles,
    MaskValueError,
    hashed,
)
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import VOID, Segments, Skipped

_UP = 2  # folders above a JSON file in which its images may lie


@dataclass(frozen=True, slots=True)
class _Segment:
    """One row: the number that its pixels have, its class, and whether it is a crowd."""

    number: int
    label: int
    crowd: bool


@dataclass(frozen=True)
class PanopticMask(Drawing):
    """A PNG of numbers, and what each number is."""

    storage: Storage
    path: str
    rows: tuple[_Segment, ...]

    def draw(self) -> Segments:
        """Read the PNG; every number in it must be listed, and every listed one in it."""
        try:
            colours = mask_values(self.storage.read(self.path), colours=True)
        except BadSampleError as error:
            raise BadSampleError(f"the mask {self.path}: {error}") from error
        numbers = colours >> 16 | colours & 0xFF00 | (colours & 0xFF) << 16
        present, places = np.unique(numbers, return_inverse=True)
        order = {row.number: place for place, row in enumerate(self.rows, 1)}
        void = len(self.rows) + 1
        unlisted = [number for number in present.tolist() if number and number not in order]
        if unlisted:
            raise MaskValueError(
                f"the mask {self.path} has the segment {unlisted[0]}, which segments_info does not "
                "list; export both again"
            )
        absent = set(order) - set(present.tolist())
        if absent:
            raise BadSampleError(
                f"the mask {self.path} has no pixel of the segment {min(absent)} that "
                "segments_info lists; export both again"
            )
        table = np.array([order.get(n, void) for n in present.tolist()], dtype=np.int16)
        ids = torch.from_numpy(table[places.reshape(numbers.shape)])  # pyright: ignore[reportUnknownMemberType]
        crowds = [row.crowd for row in self.rows]
        labels = [row.label for row in self.rows]
        if 0 in present:
            labels, crowds = [*labels, VOID], [*crowds, False]
        return Segments(ids[None], tuple(labels), tuple(crowds) if any(crowds) else ())

    def digest(self) -> str:
        """A hash of the PNG and of its rows in any order."""
        try:
            data = self.storage.read(self.path)
        except BadSampleError as error:
            data = str(error).encode()
        return hashed(data, *sorted(f"{r.number} {r.label} {r.crowd}" for r in self.rows))


def detect_coco_panoptic(storage: Storage) -> MaskFiles | None:
    """Use the panoptic files of a storage, one a split; None if there is none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    finder = ImageFinder(storage)
    files = find_coco(storage, finder, panoptic=True)
    return _load(storage, finder, files) if files else None


def open_coco_panoptic(path: Path) -> MaskFiles | None:
    """Read one panoptic file on the disk; None where it is of another kind.

    Its images lie below the folder of the file, or below the one above.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    whole = path.absolute()
    if not is_panoptic(Folder(whole.parent), path.name):
        return None
    table = parsed(Folder(whole.parent), path.name)
    names = {PurePosixPath(row["file_name"]).name for row in images_of(table, path.name).values()}
    for above in list(whole.parents)[:_UP]:
        storage = Folder(above)
        finder = ImageFinder(storage)
        if names & {PurePosixPath(image).name for image in finder.images}:
            return _load(storage, finder, {None: whole.relative_to(above).as_posix()})
    raise DataError(f"{path}: none of its {len(names):,} images is there; put them beside it")


def _load(storage: Storage, finder: ImageFinder, files: Mapping[str | None, str]) -> MaskFiles:
    read, categories = read_coco(storage, finder, files)
    things = {number: thing for file in read for number, thing in _things(file).items()}
    index = {number: label for label, number in enumerate(categories)}
    entries: list[MaskEntry] = []
    unlabelled: list[str] = []
    unmatched: list[Skipped] = []
    for file in read:
        rows = _rows(file)
        masks = _masks(_MaskFinder(finder, file), rows, file)
        unmatched += [
            Skipped(file.path, f"segments of image_id {image}, which is not listed")
            for image in rows
            if image not in file.images
        ]
        for image, place in zip(file.images, file.places, strict=True):
            row = rows.get(image)
            if row is None:
                unlabelled.append(place)
                continue
            drawing = PanopticMask(storage, masks[image], _segments(row, index, file, image))
            number = image if isinstance(image, int) else None
            entries.append(MaskEntry((storage, place), drawing, file.path, (), number, file.split))
    if entries and not any(row["segments_info"] for file in read for row in _rows(file).values()):
        raise DataError(
            f"{storage.location}: none of {len(entries):,} images has a segment in segments_info; "
            "annotate some"
        )
    return MaskFiles(
        MaskAnnotations(
            format="COCO panoptic",
            reason=f"{' and '.join(files.values())} with segments_info: {len(entries):,} images, "
            f"{sum(things.values())} classes of things, {len(things) - sum(things.values())} of "
            "stuff",
            location=str(storage.location),
            entries=entries,
            classes=tuple(categories.values()),
            segments="panoptic",
            background=False,
            things=tuple(things[number] for number in categories),
            category_ids=tuple(categories),
            unlabelled=unlabelled,
            unmatched=unmatched,
        )
    )


def _things(file: CocoFile) -> dict[int, bool]:
    """Whether each category is one of objects."""
    found: dict[int, bool] = {}
    for row in rows_of(file.table, "categories", file.path):
        if row.get("isthing") not in (0, 1):
            raise DataError(
                f"{file.path}: category {row['id']} has isthing {row.get('isthing')!r}; write 1 "
                "for objects and 0 for stuff"
            )
        found[row["id"]] = row["isthing"] == 1
    return found


def _rows(file: CocoFile) -> dict[int | str, Row]:
    """Annotations by image; each image has one."""
    found: dict[int | str, Row] = {}
    for row in rows_of(file.table, "annotations", file.path):
        image, name = row.get("image_id"), row.get("file_name")
        if not isinstance(image, int | str) or not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{file.path}: an annotation of image_id {image!r} with the file {name!r}; give "
                "each an 'image_id' and a 'file_name'"
            )
        if image in found:
            raise DataError(f"{file.path}: image_id {image} has two annotations; keep one")
        found[image] = row
    return found


def _masks(
    finder: _MaskFinder, rows: Mapping[int | str, Row], file: CocoFile
) -> dict[int | str, str]:
    """The PNG of each image; no two share one."""
    found: dict[int | str, str] = {}
    images: dict[str, int | str] = {}
    for image, row in rows.items():
        path = found[image] = finder.of(row)
        if images.setdefault(path, image) != image:
            raise DataError(
                f"{file.path}: image_id {images[path]} and {image} have one mask, {path}; put the "
                f"masks below {finder.folder} under the names that the file has for them"
            )
    return found


def _segments(
    annotation: Row, index: Mapping[int, int], file: CocoFile, image: int | str
) -> tuple[_Segment, ...]:
    where = f"{file.path}: segments_info of image_id {image}"
    found: dict[int, _Segment] = {}
    for row in rows_of(annotation, "segments_info", file.path):
        number, category = row.get("id"), row.get("category_id")
        if type(number) is not int or not 0 < number < 1 << 24 or number in found:
            raise DataError(
                f"{where} has the id {number!r}; give each segment its own, from 1 to 16,777,215"
            )
        if type(category) is not int or category not in file.categories:
            raise DataError(
                f"{where} has category_id {category!r}, which is none of the "
                f"{len(file.categories)} categories; add it there or correct it"
            )
        found[number] = _Segment(number, index[category], is_crowd(row))
    if len(found) >= MOST_SEGMENTS:
        raise DataError(f"{where} has {len(found):,} segments; at most {MOST_SEGMENTS - 1:,}")
    return tuple(found.values())


class _MaskFinder:
    """Finds the PNGs that a file names: in a folder of its name, else near it.

    Attributes:
        folder: Where they should lie.
    """

    def __init__(self, finder: ImageFinder, file: CocoFile) -> None:
        self.folder = str(PurePosixPath(file.path).with_suffix(""))
        self._file = PurePosixPath(file.path)
        self._split = file.split
        known = set(file.places)
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        for path in finder.images:
            if path not in known:
                self._by_name[PurePosixPath(path).name].append(path)

    def of(self, row: Row) -> str:
        """The PNG of one annotation; where there is none, the place where it should lie.

        Raises:
            DataError: several could be meant.
        """
        parts = row["file_name"].replace("\\", "/").split("/")
        name = "/".join(part for part in parts if part not in {"", ".", ".."})
        own = f"{self.folder}/{name}"
        alike = [path for path in self._by_name[PurePosixPath(name).name] if self._agrees(path)]
        if own in alike:
            return own
        # Folders of another machine are passed over where no path ends in them.
        near = [path for path in alike if path == name or path.endswith(f"/{name}")] or alike
        return self._best(near, name) if near else own

    def _best(self, paths: Sequence[str], name: str) -> str:
        first = max(map(self._score, paths))
        best = [path for path in paths if self._score(path) == first]
        if len(best) > 1:
            raise DataError(
                f"{self._file}: {' and '.join(best[:3])} could both be the mask {name}; put the "
                f"one that is meant at {self.folder}/{name}"
            )
        return best[0]

    def _agrees(self, path: str) -> bool:
        return None in {self._split, found := split_of_folders(path)} or found == self._split

    def _score(self, path: str) -> tuple[bool, bool, bool]:
        folders = PurePosixPath(path).parts[:-1]
        above = self._file.parent.parts
        return (
            self._file.stem in folders,
            bool(above) and folders[: len(above)] == above,
            "panoptic" in path.lower(),
        )
