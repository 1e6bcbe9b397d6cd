"""Images that lie in files, with or without labels; the formats below fill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitrail.data.dataset import Dataset
from vitrail.data.decode import decode
from vitrail.data.storage import Storage
from vitrail.types import Sample, Target

Place = tuple[Storage, str]
"""A storage and the path of one file in it."""


class FileDataset(Dataset):
    """One image file a sample.

    Attributes:
        places: Where each file lies.
        published: Indices of the splits that the data itself brings; empty if it brings none.
        ignored: Files that were found but are no samples.
    """

    def __init__(
        self,
        places: Sequence[Place],
        ids: Sequence[str],
        targets: Sequence[Target],
        *,
        classes: tuple[str, ...] = (),
        multilabel: bool = False,
        published: Mapping[str, Sequence[int]] | None = None,
        ignored: int = 0,
    ) -> None:
        assert len(places) == len(ids) == len(targets), "one place, id and target a sample"
        self.places = places
        self.ids = ids
        self.targets = targets
        self.classes = classes
        self.multilabel = multilabel
        self.published = dict(published or {})
        self.ignored = ignored

    def read(self, index: int) -> Sample:
        """Read and decode one file."""
        return Sample(self.ids[index], decode(self.read_bytes(index)), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        """The file as it is stored."""
        storage, path = self.places[index]
        return storage.read(path)

    def stored_size(self, index: int) -> int:
        """Size of the file."""
        storage, path = self.places[index]
        return storage.size(path)
