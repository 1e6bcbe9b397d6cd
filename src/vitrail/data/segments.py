"""What all formats of masks share: how masks become segments, and the data set made of them.

A format says for each image where its segments are drawn (`Drawing`). That is done when a target is
asked for; what is costly to draw stays in memory, compressed.

The rules are the same for every format. A mask lies on the upright image and has its size. What
cannot be drawn makes a bad sample; an object that is flawed by itself is left out and listed in
`dropped`.
"""

from __future__ import annotations

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Bool, Int16

from vitrail.data.dataset import Dataset, Picked, SegmentKind
from vitrail.data.decode import decode
from vitrail.data.files import FileDataset, Place
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Grid, Sample, Segments, Skipped, Target

MOST_LAYERS = 64
"""Objects above one another at a pixel; more are no picture, but a file that fills the memory."""

MOST_SEGMENTS = 32_765
"""Of an image: int16 numbers them, and what is void and what is filled up get numbers too."""

KEPT_BYTES = 256 * 1024**2
"""Memory for segments that are costly to draw, in each process."""


class MaskSizeError(BadSampleError):
    """A mask of another size than its image."""


class MaskValueError(BadSampleError):
    """A mask with a value or a colour that stands for nothing."""


class Piece(NamedTuple):
    """One segment as it is drawn: its pixels, its class or `VOID`, and whether it is a crowd."""

    mask: Bool[np.ndarray, "H W"]
    label: int
    crowd: bool = False


class Drawing(ABC):
    """Where the segments of one image come from."""

    costly: ClassVar[bool] = False
    """Whether it pays to remember what was drawn."""

    @abstractmethod
    def draw(self) -> Segments:
        """The segments.

        Raises:
            BadSampleError: they cannot be used; the message names the file and the reason.
        """

    @abstractmethod
    def digest(self) -> str:
        """A hash of all that the segments follow from: it changes where one of them does."""


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One annotated image.

    Attributes:
        place: Where the image should lie.
        drawing: Its segments.
        file: Where these are written, for people.
        flaws: Objects that cannot be used, each with its place and the reason.
        image_id: As in `Dataset.image_ids`.
        split: The split that it was published in.
        broken: Why nothing of its label can be used; empty where it can.
    """

    place: Place
    drawing: Drawing
    file: str
    flaws: Sequence[str] = ()
    image_id: int | None = None
    split: str | None = None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class MaskAnnotations:
    """What a format found.

    Attributes:
        format: Its name.
        reason: Why it was recognised.
        location: The data, for people.
        entries: One an image, in the order of the samples.
        classes: All names but that of the background, in the order of their indices.
        segments: As in `Dataset`.
        background: As in `Dataset`.
        things: As in `Dataset`.
        category_ids: As in `Dataset`.
        unlabelled: Image files that have no mask.
        unmatched: Masks of images that are not there, with the reason.
    """

    format: str
    reason: str
    location: str
    entries: Sequence[MaskEntry]
    classes: tuple[str, ...]
    segments: SegmentKind
    background: bool = True
    things: tuple[bool, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    unlabelled: Sequence[str] = ()
    unmatched: Sequence[Skipped] = ()


class SegmentDataset(Dataset):
    """Data whose targets are segments, drawn when they are asked for."""

    @abstractmethod
    def draw(self, index: int) -> Segments:
        """The target of one sample.

        Raises:
            BadSampleError: it cannot be used.
        """

    @abstractmethod
    def digest(self, index: int) -> str:
        """A hash of what the target of one sample follows from, quicker than to draw it."""


class DrawnTargets(Sequence[Target]):
    """The targets of a data set, each drawn when it is asked for."""

    def __init__(self, dataset: SegmentDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        """How many."""
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        """One of them, or some."""
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        return self._dataset.draw(range(len(self))[index])


class MaskFiles(FileDataset, SegmentDataset):
    """Images in files, with segments.

    An image without any segment is a sample like others. One whose file or mask is missing is a
    bad sample, and so is one whose mask has another size.

    Attributes:
        format: Name of the format.
        reason: Why it was recognised.
        unlabelled: Image files that have no mask; they are no samples.
        unmatched: Masks of images that are not there.

    Raises:
        DataError: there is no image with a mask, or no class.
    """

    def __init__(self, found: MaskAnnotations) -> None:
        entries, left = _published(found.entries)
        if not entries or not found.classes:
            raise DataError(f"{found.location}: no image with a mask of any class; label some")
        published: defaultdict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(entries):
            if entry.split is not None:
                published[entry.split].append(index)
        super().__init__(
            [entry.place for entry in entries],
            [entry.place[1] for entry in entries],
            [None] * len(entries),
            classes=found.classes,
            published=published,
        )
        self.targets = DrawnTargets(self)
        self.format = found.format
        self.reason = found.reason + (f"; {left:,} images of no split were left out" * bool(left))
        self.segments, self.background = found.segments, found.background
        self.things, self.category_ids = found.things, found.category_ids
        numbers = [entry.image_id for entry in entries if entry.image_id is not None]
        self.image_ids = numbers if len(numbers) == len(entries) else None
        self.unlabelled = tuple(found.unlabelled)
        self.unmatched = tuple(found.unmatched)
        self.dropped = [
            Skipped(entry.place[1], f"{entry.file}, {flaw}")
            for entry in entries
            for flaw in entry.flaws
        ]
        self._entries = entries
        self._kept: dict[int, _Packed] = {}
        self._room = KEPT_BYTES

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_room": KEPT_BYTES}

    def read(self, index: int) -> Sample:
        """Read and decode one file, and draw its segments.

        Raises:
            BadSampleError: one of the two cannot be used, or they differ in size.
        """
        segments = self.draw(index)
        sample = Sample(self.ids[index], decode(self.read_bytes(index)), segments)
        _check_size(segments.size, (sample.image.shape[1], sample.image.shape[2]))
        return sample

    def draw(self, index: int) -> Segments:
        """The segments of one image, whose file is not read."""
        entry = self._entries[index]
        if entry.broken:
            raise BadSampleError(entry.broken)
        packed = self._kept.get(index)
        if packed is not None:
            return packed.segments()
        segments = entry.drawing.draw()
        if entry.drawing.costly:
            packed = _Packed.of(segments)
            if len(packed.ids) <= self._room:
                self._room -= len(packed.ids)
                self._kept[index] = packed
        return segments

    def digest(self, index: int) -> str:
        """A hash of the mask files of one image, or of its outlines."""
        entry = self._entries[index]
        return entry.broken or entry.drawing.digest()


def stack(pieces: Iterable[Piece], size: Grid) -> Segments:
    """Segments from masks; each lies on the first layer where it overlaps no other.

    Args:
        pieces: Segments in their order; those without a pixel are left out.
        size: Height and width of the image.

    Raises:
        BadSampleError: too many, or too many above one another.
    """
    layers: list[Int16[np.ndarray, "H W"]] = []
    labels: list[int] = []
    crowds: list[bool] = []
    for mask, label, crowd in pieces:
        assert mask.shape == size, "a mask of the image's size"
        if not mask.any():
            continue
        layer = next((layer for layer in layers if not layer[mask].any()), None)
        if layer is None:
            layer = np.zeros(size, dtype=np.int16)
            layers.append(layer)
        labels.append(label)
        crowds.append(crowd)
        if len(labels) > MOST_SEGMENTS or len(layers) > MOST_LAYERS:
            raise BadSampleError(
                f"more than {MOST_SEGMENTS:,} objects, or more than {MOST_LAYERS} above one "
                "another: take some out"
            )
        layer[mask] = len(labels)
    ids = np.stack(layers) if layers else np.zeros((1, *size), dtype=np.int16)
    return Segments(
        torch.from_numpy(ids),  # pyright: ignore[reportUnknownMemberType]
        tuple(labels),
        tuple(crowds) if any(crowds) else (),
    )


def hashed(*parts: bytes | str) -> str:
    """A hash of parts, of which none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Packed:
    """Segments in a few bytes."""

    ids: bytes
    shape: tuple[int, ...]
    rest: Segments

    @staticmethod
    def of(segments: Segments) -> _Packed:
        ids = np.ascontiguousarray(segments.ids.numpy())
        rest = replace(segments, ids=torch.zeros((1, 1, 1), dtype=torch.int16))
        return _Packed(zlib.compress(ids.tobytes(), 1), ids.shape, rest)

    def segments(self) -> Segments:
        ids = np.frombuffer(bytearray(zlib.decompress(self.ids)), dtype=np.int16)
        ids = ids.reshape(self.shape)
        return replace(self.rest, ids=torch.from_numpy(ids))  # pyright: ignore[reportUnknownMemberType]


def _published(entries: Sequence[MaskEntry]) -> tuple[Sequence[MaskEntry], int]:
    """Where some are in a published split, the others are none; and how many those are."""
    kept = [entry for entry in entries if entry.split is not None]
    return (kept, len(entries) - len(kept)) if kept else (entries, 0)


def _check_size(mask: Grid, image: Grid) -> None:
    if mask == image:
        return
    sizes = f"the image has {image[1]} x {image[0]} pixels, its mask {mask[1]} x {mask[0]}"
    if mask == image[::-1]:
        raise MaskSizeError(
            f"{sizes}: it was drawn before the camera's rotation; turn the file and its mask"
        )
    raise MaskSizeError(f"{sizes}; give both one size")
