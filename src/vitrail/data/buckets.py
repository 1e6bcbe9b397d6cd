"""The size at which a model sees each sample, known without decoding any."""

from __future__ import annotations

from vitrail.data.dataset import Dataset
from vitrail.data.decode import image_size
from vitrail.data.preprocess import Preprocess
from vitrail.errors import BadSampleError
from vitrail.types import Boxes, Grid

UNKNOWN: Grid = (0, 0)
"""The bucket of samples that cannot be read: they are in no batch anyway."""


def buckets_of(dataset: Dataset, preprocess: Preprocess) -> tuple[Grid, ...]:
    """Height and width of each sample after preprocessing, filled up.

    Taken from the annotation where it states the size of the image, from the header of the file
    else. Annotations may err: such a sample makes a small batch of its own, and nothing worse.
    """
    return tuple(_bucket(dataset, index, preprocess) for index in range(len(dataset)))


def _bucket(dataset: Dataset, index: int, preprocess: Preprocess) -> Grid:
    target = dataset.targets[index] if dataset.boxes else None  # masks would have to be read
    size = target.size if isinstance(target, Boxes) else None
    if size is None:
        try:
            size = image_size(dataset.read_bytes(index))
        except BadSampleError:
            return UNKNOWN
    return preprocess.output_size(*size)
