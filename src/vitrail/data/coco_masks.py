"""Masks in COCO's JSON files of objects: polygons, and run lengths as lists or as text.

Each object is a segment of its own; one that stands for many (`iscrowd`) is a crowd.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vitrail.data.coco_files import (
    CocoFile,
    annotated,
    beside,
    find_coco,
    is_crowd,
    read_coco,
    stated_size,
    unlisted,
)
from vitrail.data.decode import MAX_PIXELS
from vitrail.data.label_files import ImageFinder
from vitrail.data.outlines import Objects, Polygon, Shape, covers_nothing, polygon_flaw, runs_flaw
from vitrail.data.segments import MaskAnnotations, MaskEntry, MaskFiles
from vitrail.data.sizes import header_sizes
from vitrail.data.storage import Storage
from vitrail.errors import DataError
from vitrail.types import Grid, Skipped


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why something cannot be used."""

    reason: str


def detect_coco_masks(storage: Storage) -> MaskFiles | None:
    """Use the COCO files of a storage, one a split; None if there is none.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    finder = ImageFinder(storage)
    files = find_coco(storage, finder)
    return _load(storage, finder, files) if files else None


def open_coco_masks(path: Path) -> MaskFiles:
    """Read one COCO file on the disk; its images lie beside it, or beside its folder.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage, finder, name = beside(path)
    return _load(storage, finder, {None: name})


def _load(storage: Storage, finder: ImageFinder, files: Mapping[str | None, str]) -> MaskFiles:
    read, categories = read_coco(storage, finder, files)
    index = {number: label for label, number in enumerate(categories)}
    entries: list[MaskEntry] = []
    unmatched: list[Skipped] = []
    count = 0
    for file in read:
        sizes = _sizes(storage, file)
        shapes, flaws, counts = _shapes(file, index, sizes)
        count += sum(map(len, shapes.values()))
        unmatched += unlisted(file, counts)
        entries += [
            MaskEntry(
                (storage, place),
                Objects(size or (1, 1), tuple(shapes[image])),
                file.path,
                flaws[image],
                image if isinstance(image, int) else None,
                file.split,
                "" if size else _no_size(place, stated_size(file.images[image])),
            )
            for (image, size), place in zip(sizes.items(), file.places, strict=True)
        ]
    if not count:
        raise _no_outlines(str(storage.location), entries, unmatched)
    return MaskFiles(
        MaskAnnotations(
            format="COCO JSON of masks",
            reason=f"{' and '.join(files.values())} with images, annotations and categories: "
            f"{count:,} outlines or run lengths, {len(categories)} classes",
            location=str(storage.location),
            entries=entries,
            classes=tuple(categories.values()),
            segments="instance",
            category_ids=tuple(categories),
            unlabelled=finder.unnamed(entry.place[1] for entry in entries),
            unmatched=unmatched,
        )
    )


def _no_size(place: str, stated: Grid | None) -> str:
    if stated is None:
        return f"the size of {place} is neither stated nor can it be read"
    return f"{place} is said to have {stated[1]} x {stated[0]} pixels; correct width and height"


def _sizes(storage: Storage, file: CocoFile) -> dict[int | str, Grid | None]:
    """Height and width by image, as stated, else from its header; None for what is no size."""
    sizes = {image: stated_size(row) for image, row in file.images.items()}
    places = dict(zip(file.images, file.places, strict=True))
    unknown = [image for image, size in sizes.items() if size is None]
    read = header_sizes([(storage, places[image]) for image in unknown])
    sizes |= dict(zip(unknown, read, strict=True))
    return {
        image: size if size and size[0] * size[1] <= MAX_PIXELS else None
        for image, size in sizes.items()
    }


def _shapes(
    file: CocoFile, index: Mapping[int, int], sizes: Mapping[int | str, Grid | None]
) -> tuple[
    defaultdict[int | str, list[Shape]],
    defaultdict[int | str, list[str]],
    defaultdict[int | str, int],
]:
    """Objects by image, those that cannot be drawn, and how many there are."""
    shapes: defaultdict[int | str, list[Shape]] = defaultdict(list)
    flaws: defaultdict[int | str, list[str]] = defaultdict(list)
    counts: defaultdict[int | str, int] = defaultdict(int)
    for where, image, category, row in annotated(file):
        counts[image] += 1
        size = sizes.get(image)
        if size is None:  # the image is a bad sample, or is not listed
            continue
        name = f"{where}: '{file.categories[category]}'"
        found = _shape(row.get("segmentation"), index[category], name, size, crowd=is_crowd(row))
        if isinstance(found, str):
            flaws[image].append(f"{name} {found}")
        else:
            shapes[image].append(found)
    return shapes, flaws, counts


def _shape(written: object, label: int, where: str, size: Grid, *, crowd: bool) -> Shape | str:
    """One object, or what is wrong with it."""
    if isinstance(written, list) and written:
        polygons = _polygons(cast("list[object]", written), size)
        if isinstance(polygons, str):
            return polygons
        return Shape(label, where, polygons, crowd=crowd)
    if not isinstance(written, dict):
        return "without an outline or run lengths in 'segmentation'"
    runs = _runs(cast("dict[str, object]", written), size)
    if isinstance(runs, _Flaw):
        return runs.reason
    return Shape(label, where, runs=runs, crowd=crowd)


def _polygons(parts: Sequence[object], size: Grid) -> tuple[Polygon, ...] | str:
    """The parts of an outline, or what is wrong with one of them."""
    polygons: list[Polygon] = []
    for part in parts:
        points = _numbers(part)
        if points is None:
            return "has an outline of other things than numbers"
        flaw = polygon_flaw(points, size)
        if flaw:
            return flaw
        polygons.append(points)
    return "is so thin that it covers no pixel" if covers_nothing(polygons, size) else (*polygons,)


def _runs(table: dict[str, object], size: Grid) -> tuple[int, ...] | str | _Flaw:
    """Run lengths, as numbers or as text, or what is wrong with them."""
    runs, stated = table.get("counts"), table.get("size", [*size])
    if stated != [*size]:
        return _Flaw(f"has run lengths of {stated}, the image is {[*size]} (height, width)")
    if isinstance(runs, list):
        values = cast("list[object]", runs)
        if not all(type(value) is int for value in values):
            return _Flaw("has run lengths of other things than whole numbers")
        runs = tuple(cast("list[int]", values))
    if not isinstance(runs, str | tuple):
        return _Flaw("has run lengths without 'counts'")
    found = cast("tuple[int, ...] | str", runs)
    flaw = runs_flaw(found, size)
    return _Flaw(flaw) if flaw else found


def _numbers(part: object) -> Polygon | None:
    if not isinstance(part, list):
        return None
    values = cast("list[object]", part)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    try:
        return tuple(float(cast("float", value)) for value in values)
    except OverflowError:  # an integer of hundreds of digits
        return None


def _no_outlines(
    location: str, entries: Sequence[MaskEntry], unmatched: Sequence[Skipped]
) -> DataError:
    left = [f"{entry.file}, {flaw}" for entry in entries for flaw in entry.flaws]
    left += [skipped.reason for skipped in unmatched]
    why = "annotate some objects"
    if left:
        why = f"correct the first of {len(left):,} that were left out: {left[0]}"
    return DataError(f"{location}: no usable mask in {len(entries):,} images; {why}")
