"""The seam between files and training: a data set says what it has and reads one sample.

A data set is undecorated: augmentation is applied outside, with its own generator. Labels are
known without decoding an image, so that splits, counts and checks are cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

from vitrail.types import Sample, Skipped, Target

SegmentKind = Literal["semantic", "instance", "panoptic"]


class Dataset(ABC):
    """Images with labels.

    Attributes:
        classes: Class names in the order of their indices; empty where nothing is labelled.
        multilabel: Whether a target is a set of classes (a sorted tuple of indices).
        text: Whether targets are texts; `classes` is then the alphabet, one character each.
        boxes: Whether targets are `Boxes`.
        segments: Whether targets are `Segments`, and what these are: one a class (`semantic`), one
            an object that may overlap others (`instance`), or one a class or object, which cover
            the image without overlap (`panoptic`). Such targets are read from their files when
            they are asked for.
        background: Whether a pixel in no segment is background; else it belongs to a `VOID` one.
        things: Of panoptic data, whether the segments of each class are objects (or stuff: sky).
        category_ids: What the source calls each class by number (COCO `category_id`, with gaps, or
            the line of a YOLO file), in the order of `classes`; None where it has names only.
        image_ids: What the source calls each image by number (COCO), one a sample; None where it
            has names only.
        dropped: Labels that cannot be used (a box without area, of no known class, not finite),
            by the sample that they belong to; they are in no target.
        ids: One stable name a sample (a path relative to the data, or `test/17` for arrays).
        targets: One target a sample, as in `Sample.target`.
    """

    classes: tuple[str, ...]
    multilabel: bool
    text: bool = False
    boxes: bool = False
    segments: SegmentKind | None = None
    background: bool = True
    things: tuple[bool, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    image_ids: Sequence[int] | None = None
    dropped: Sequence[Skipped] = ()
    ids: Sequence[str]
    targets: Sequence[Target]

    def __len__(self) -> int:
        """Number of samples, readable or not."""
        return len(self.ids)

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Decode one sample.

        Raises:
            BadSampleError: the file cannot be used; the message is the reason.
        """

    @abstractmethod
    def read_bytes(self, index: int) -> bytes:
        """The stored bytes of one sample: the file, or the raw pixels of an array."""

    def stored_size(self, index: int) -> int:
        """Length of the stored bytes, where possible without reading them; 0 if missing."""
        return len(self.read_bytes(index))


class Picked(Sequence[Target]):
    """Some targets of another data set, read when they are asked for."""

    def __init__(self, targets: Sequence[Target], indices: Sequence[int]) -> None:
        self._targets, self._indices = targets, indices

    def __len__(self) -> int:
        """How many."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        """One of them, or some."""
        if isinstance(index, slice):
            return Picked(self._targets, self._indices[index])
        return self._targets[self._indices[index]]


class Subset(Dataset):
    """Some samples of another data set, in the order given."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(indices)
        self.classes = dataset.classes
        self.multilabel = dataset.multilabel
        self.text = dataset.text
        self.boxes = dataset.boxes
        self.segments, self.background = dataset.segments, dataset.background
        self.things = dataset.things
        self.category_ids = dataset.category_ids
        self.ids = [dataset.ids[i] for i in self.indices]
        self.targets = Picked(dataset.targets, self.indices)
        if dataset.image_ids is not None:
            self.image_ids = [dataset.image_ids[i] for i in self.indices]
        own = set(self.ids)
        self.dropped = [label for label in dataset.dropped if label.id in own]

    def read(self, index: int) -> Sample:
        """Decode one sample of the subset."""
        return self.dataset.read(self.indices[index])

    def read_bytes(self, index: int) -> bytes:
        """The stored bytes of one sample of the subset."""
        return self.dataset.read_bytes(self.indices[index])

    def stored_size(self, index: int) -> int:
        """Length of the stored bytes of one sample of the subset."""
        return self.dataset.stored_size(self.indices[index])


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as it was found, cut into splits.

    Attributes:
        name: What the user gave: a path or a built-in name.
        format: One of the known formats, e.g. `folder of classes`.
        reason: Why that format was recognised, for people.
        splits: `train`, `val` and `test`, each a data set; all three exist.
        published: The splits that the data itself brought; the others were cut by the seed.
        fingerprint: Hash of ids, labels and stored sizes of all samples: names this data.
    """

    name: str
    format: str
    reason: str
    splits: dict[str, Dataset]
    published: tuple[str, ...]
    fingerprint: str
