"""Data that come with a library: real images with nothing to download."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from vitrail.data.arrays import ArrayDataset


def digits() -> ArrayDataset:
    """The 1,797 scanned handwritten digits of scikit-learn, 8 x 8, grey, classes `0` to `9`.

    The published values 0 to 16 are scaled to 0 to 255. Source: Alpaydin and Kaynak 1998, UCI
    "Optical Recognition of Handwritten Digits" (its test part).
    """
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs]

    data = cast("Any", load_digits())
    images = np.rint(np.asarray(data.images) * (255 / 16)).astype(np.uint8)
    return ArrayDataset(
        images,
        np.asarray(data.target),
        ids=[f"digits/{number:04d}" for number in range(len(images))],
        classes=tuple("0123456789"),
    )
