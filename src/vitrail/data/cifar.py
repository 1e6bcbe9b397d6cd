"""CIFAR-10, binary version: records of one label byte and 3 x 32 x 32 pixels, plane by plane.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vitrail.data.arrays import ArrayDataset
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError, DataError

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"

_RECORD = 1 + 3 * 32 * 32


class CifarDataset(ArrayDataset):
    """The five training batches and the test batch, in the folder or in the published archive."""

    @classmethod
    def detect(cls, storage: Storage) -> CifarDataset | None:
        """Read the batches; None where there is no `test_batch.bin` or `data_batch_1.bin`.

        Raises:
            DataError: a batch is missing, cut off or damaged.
        """
        found = {PurePosixPath(path).name: path for path in storage.paths}
        if TEST_FILE not in found and TRAIN_FILES[0] not in found:
            return None
        records: list[NDArray[np.uint8]] = []
        for name in (*TRAIN_FILES, TEST_FILE):
            if name not in found:
                raise DataError(f"{storage.location}: {name} is missing from CIFAR-10")
            records.append(_read_batch(storage, found[name]))
        train, test = sum(map(len, records[:-1])), len(records[-1])
        rows = np.concatenate(records)
        if rows[:, 0].max() >= len(CLASSES):
            raise DataError(f"{storage.location}: a label is above 9; is this CIFAR-10?")
        images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return cls(
            np.ascontiguousarray(images),
            rows[:, 0],
            ids=[f"train/{i}" for i in range(train)] + [f"test/{i}" for i in range(test)],
            classes=CLASSES,
            published={"train": range(train), "test": range(train, train + test)},
        )


def _read_batch(storage: Storage, path: str) -> NDArray[np.uint8]:
    try:
        data = storage.read(path)
    except BadSampleError as error:
        raise DataError(f"{storage.location / path}: {error}") from error
    if not data or len(data) % _RECORD:
        raise DataError(
            f"{storage.location / path}: {len(data):,} bytes are no whole records of {_RECORD}: "
            "copy it again"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
