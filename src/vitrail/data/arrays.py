"""Images that lie in one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.data.dataset import Dataset
from vitrail.types import Sample

SPLIT_NAMES = {"train": "train", "t10k": "test", "test": "test", "val": "val", "valid": "val"}
"""How the usual names of array files map to splits."""


class ArrayDataset(Dataset):
    """Images of one size, grey `(N, H, W)` or colour `(N, H, W, 3)`, 0 to 255.

    Attributes:
        images: All pixels.
        published: Indices of the splits that the data itself brings; empty if it brings none.
    """

    multilabel = False

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        *,
        ids: Sequence[str],
        classes: tuple[str, ...],
        published: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        assert len(images) == len(labels) == len(ids), "one image, label and id a sample"
        self.images = images
        self.ids = ids
        self.targets = [int(label) for label in labels]
        self.classes = classes
        self.published = dict(published or {})

    def read(self, index: int) -> Sample:
        """One image; grey is repeated over the three channels."""
        pixels = self.images[index]
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        image = torch.from_numpy(pixels.copy())  # pyright: ignore[reportUnknownMemberType]
        return Sample(self.ids[index], image.permute(2, 0, 1), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        """The raw pixels."""
        return self.images[index].tobytes()

    def stored_size(self, index: int) -> int:
        """Bytes of the raw pixels."""
        return self.images[index].nbytes
