"""The seam between files and training: a data set says what it has and reads one sample.

A data set is undecorated: augmentation is applied outside, with its own generator. Labels are
known without decoding an image, so that splits, counts and checks are cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.types import Sample, Skipped, Target


class Dataset(ABC):
    """Images with labels.

    Attributes:
        classes: Class names in the order of their indices; empty where nothing is labelled.
        multilabel: Whether a target is a set of classes (a sorted tuple of indices).
        text: Whether targets are texts; `classes` is then the alphabet, one character each.
        boxes: Whether targets are `Boxes`.
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


class Subset(Dataset):
    """Some samples of another data set, in the order given."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(indices)
        self.classes = dataset.classes
        self.multilabel = dataset.multilabel
        self.text = dataset.text
        self.boxes = dataset.boxes
        self.category_ids = dataset.category_ids
        self.ids = [dataset.ids[i] for i in self.indices]
        self.targets = [dataset.targets[i] for i in self.indices]
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
