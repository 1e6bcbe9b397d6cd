"""What all formats of boxes share: what is usable becomes a target, the rest is listed.

A format reads its files into `Annotations`; classes are names there, whatever numbers the files
use. `BoxFiles` is the data set made of them.

The rules are the same for every format. A box with a corner that is no finite number, without
area, inverted, or wholly outside its image is left out and listed in `dropped`. A box that sticks
out is cut off at the edge; by more than `SLACK` it is listed in `clipped`. Everything else stays
as it is written.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vitrail.data.files import FileDataset, Place
from vitrail.data.sizes import header_sizes
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Box, Boxes, Corners, Grid, Sample, Skipped

SLACK = 1.0
"""Pixels beyond an edge that come from rounding or from counting at 1; cut off without a word."""

LARGEST = 1 << 24
"""Pixels of a side up to which a label file is believed about the size of its image."""

LEAST = 1e-3
"""Pixels of a side up to which a box is empty: in 32 bits nothing would be left of it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One object as its file has it.

    Attributes:
        corners: In pixels of the annotated image.
        name: Its class.
        where: Its place in the file, for people.
        crowd: As in `Box`.
        area: As in `Box`.
    """

    corners: Corners
    name: str
    where: str
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One annotated image.

    Attributes:
        place: Where the image should lie.
        file: The label file, for people.
        marks: Its objects.
        flaws: Objects of which no box could be read, each with its place and the reason.
        size: Height and width as the label file states them; None where it does not.
        image_id: As in `Dataset.image_ids`.
        split: The split that it was published in.
        broken: Why nothing of its label can be used; empty where it can.
    """

    place: Place
    file: str
    marks: Sequence[Mark] = ()
    flaws: Sequence[str] = ()
    size: Grid | None = None
    image_id: int | None = None
    split: str | None = None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a format found.

    Attributes:
        format: Its name.
        reason: Why it was recognised.
        location: The data, for people.
        entries: One an image, in the order of the samples.
        classes: All names, in the order of their indices.
        category_ids: As in `Dataset`.
        unlabelled: Image files of which no label file speaks.
        unmatched: Labels of images that are not there, with the reason.
    """

    format: str
    reason: str
    location: str
    entries: Sequence[Entry]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None
    unlabelled: Sequence[str] = ()
    unmatched: Sequence[Skipped] = ()


class BoxFiles(FileDataset):
    """Images in files, with boxes.

    An image without any object is a sample like others. One whose file is missing is a bad sample,
    and so is one whose boxes were drawn on an image of another size so that they do not fit.

    Attributes:
        format: Name of the format.
        reason: Why it was recognised.
        clipped: Boxes that stuck out of their image, by sample.
        unlabelled: Image files of which no label file speaks.
        unmatched: Labels of images that are not there.

    Raises:
        DataError: not one box can be used.
    """

    boxes = True

    def __init__(self, found: Annotations) -> None:
        entries, left = _published(found.entries)
        published: defaultdict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(entries):
            if entry.split is not None:
                published[entry.split].append(index)
        ids = [entry.place[1] for entry in entries]
        super().__init__(
            [entry.place for entry in entries],
            ids,
            [None] * len(entries),
            classes=found.classes,
            published=published,
        )
        self.format = found.format
        self.reason = found.reason + (f"; {left:,} images of no split were left out" * bool(left))
        self.category_ids = found.category_ids
        numbers = [entry.image_id for entry in entries if entry.image_id is not None]
        self.image_ids = numbers if len(numbers) == len(entries) else None
        self.unlabelled = tuple(found.unlabelled)
        self.unmatched = tuple(found.unmatched)
        self._broken = {i: entry.broken for i, entry in enumerate(entries) if entry.broken}
        targets, self.dropped, self.clipped = _targets(entries, ids, found.classes)
        self.targets = targets
        if not any(target.items for target in targets):
            broken = [Skipped(ids[i], reason) for i, reason in self._broken.items()]
            raise _no_boxes(found.location, len(ids), [*self.dropped, *broken, *self.unmatched])

    def read(self, index: int) -> Sample:
        """Read and decode one file; its boxes lie within the decoded image."""
        if index in self._broken:
            raise BadSampleError(self._broken[index])
        sample = super().read(index)
        assert isinstance(sample.target, Boxes), "every sample has boxes, perhaps none"
        size = (sample.image.shape[1], sample.image.shape[2])
        return replace(sample, target=_on_image(sample.target, size))


def flaw(corners: Corners) -> str:
    """What is wrong with a box by itself; empty where nothing is."""
    x1, y1, x2, y2 = corners
    if not all(map(math.isfinite, corners)):
        return "has a corner that is no finite number"
    if x2 < x1 or y2 < y1:
        return "is inverted: its right or lower edge comes first"
    if min(x2 - x1, y2 - y1) <= LEAST:
        return "is empty"
    return ""


def clip(corners: Corners, size: Grid) -> Corners | None:
    """The part of a box that lies within an image; None where nothing does."""
    height, width = size
    x1, y1 = max(0.0, corners[0]), max(0.0, corners[1])
    x2, y2 = min(float(width), corners[2]), min(float(height), corners[3])
    return (x1, y1, x2, y2) if min(x2 - x1, y2 - y1) > LEAST else None


def shown(corners: Corners) -> str:
    """Corners for people."""
    return "({:.6g}, {:.6g}, {:.6g}, {:.6g})".format(*corners)


def duplicate_names(names: Iterable[str]) -> list[str]:
    """Names that occur more than once, each once."""
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))


def _published(entries: Sequence[Entry]) -> tuple[Sequence[Entry], int]:
    """Where some are in a published split, the others are none; and how many those are."""
    kept = [entry for entry in entries if entry.split is not None]
    return (kept, len(entries) - len(kept)) if kept else (entries, 0)


def _targets(
    entries: Sequence[Entry], ids: Sequence[str], classes: Sequence[str]
) -> tuple[list[Boxes], list[Skipped], list[Skipped]]:
    """Targets, boxes that were left out, and boxes that were cut off."""
    index = {name: number for number, name in enumerate(classes)}
    unknown = [i for i, entry in enumerate(entries) if entry.size is None]
    read = dict(zip(unknown, header_sizes([entries[i].place for i in unknown]), strict=True))
    targets: list[Boxes] = []
    dropped: list[Skipped] = []
    clipped: list[Skipped] = []
    for number, (entry, name) in enumerate(zip(entries, ids, strict=True)):
        size = entry.size or read[number]
        dropped += [Skipped(name, f"{entry.file}, {reason}") for reason in entry.flaws]
        items: list[Box] = []
        for mark in entry.marks:
            corners, wrong = _fitted(mark.corners, size)
            if wrong:
                box = f"the box of '{mark.name}' {wrong} {shown(mark.corners)}"
                into = clipped if corners else dropped
                into.append(Skipped(name, f"{entry.file}, {mark.where}: {box}"))
            if corners:
                items.append(Box(corners, index[mark.name], mark.crowd, mark.area))
        targets.append(Boxes(tuple(items), size))
    return targets, dropped, clipped


def _fitted(corners: Corners, size: Grid | None) -> tuple[Corners | None, str]:
    """A box within its image, None where it cannot be used, and what was wrong with it."""
    wrong = flaw(corners)
    if wrong:
        return None, wrong
    if size is None:
        return corners, ""
    inside = clip(corners, size)
    if inside is None:
        return None, f"lies outside the image of {size[1]} x {size[0]} pixels"
    cut = max(abs(a - b) for a, b in zip(corners, inside, strict=True))
    return inside, f"sticks out of the image by {cut:.4g} pixels" if cut > SLACK else ""


def _on_image(boxes: Boxes, size: Grid) -> Boxes:
    """The boxes on the decoded image.

    Raises:
        BadSampleError: they were drawn on another one.
    """
    if boxes.size == size:
        return boxes
    here = f"the image has {size[1]} x {size[0]} pixels"
    if boxes.size is not None and boxes.size == size[::-1]:
        raise BadSampleError(
            f"{here}, the label says {boxes.size[1]} x {boxes.size[0]}: the boxes were drawn "
            "before the camera's rotation; turn the file and its boxes"
        )
    items: list[Box] = []
    for box in boxes.items:
        corners = clip(box.corners, size)
        if corners is None:
            raise BadSampleError(
                f"{here}, a box lies outside at {shown(box.corners)}: "
                "the boxes belong to another size of this image"
            )
        items.append(replace(box, corners=corners))
    return Boxes(tuple(items), size)


def _no_boxes(location: str, images: int, left: Sequence[Skipped]) -> DataError:
    if left:
        first = f"the first of {len(left):,} that were left out: {left[0].reason}"
        return DataError(f"{location}: no usable box in {images:,} images; correct {first}")
    return DataError(f"{location}: no box in {images:,} images; label some objects")
