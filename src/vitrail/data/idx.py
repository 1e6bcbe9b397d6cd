"""idx files (MNIST and its successors): arrays with a four-byte magic, gzipped or not.

Format: http://yann.lecun.com/exdb/mnist/ -- two zero bytes, the type (8: unsigned byte), the
number of axes, each axis as a big-endian 32-bit number, then the values.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vitrail.data.arrays import SPLIT_NAMES, ArrayDataset
from vitrail.data.storage import MEMBER_LIMIT, Storage
from vitrail.errors import BadSampleError, DataError

FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""The ten classes of Fashion-MNIST in the order of its labels."""

_NAME = re.compile(r"(?P<prefix>.*?)[-_. ]?images?[-_. ]idx[34][-_. ]ubyte(\.gz)?", re.IGNORECASE)


class IdxDataset(ArrayDataset):
    """Pairs of image and label files; `train-*` is train, `t10k-*` or `test-*` is test.

    Class names come from a `classes.txt` beside them, are the known ones where the name of the
    data says `fashion`, and else `0`, `1`, ...
    """

    @classmethod
    def detect(cls, storage: Storage) -> IdxDataset | None:
        """Read all pairs; None where there is no idx image file.

        Raises:
            DataError: a file is damaged, cut off, or without its labels.
        """
        pairs: list[tuple[str, str]] = []
        for path in storage.paths:
            match = _NAME.fullmatch(PurePosixPath(path).name)
            if match:
                pairs.append((match["prefix"], path))
        if not pairs:
            return None
        images: list[NDArray[np.uint8]] = []
        labels: list[NDArray[np.uint8]] = []
        ids: list[str] = []
        published: defaultdict[str, list[int]] = defaultdict(list)
        # Train first, then val, then test: the order in which people think of them.
        pairs.sort(key=lambda pair: ("train", "val", "test", "").index(_part(pair[0])))
        for prefix, path in pairs:
            pixels, marks = _read_pair(storage, path)
            part = _part(prefix)
            start = len(ids)
            ids += [f"{part or prefix or 'image'}/{number}" for number in range(len(marks))]
            if part:
                published[part] += range(start, len(ids))
            images.append(pixels)
            labels.append(marks)
        if len({array.shape[1:] for array in images}) > 1:
            raise DataError(f"{storage.location}: the idx files hold images of different sizes")
        if not ids:
            raise DataError(f"{storage.location}: the idx files hold no images")
        marks = np.concatenate(labels)
        classes = _classes(storage, int(marks.max()) + 1)
        return cls(np.concatenate(images), marks, ids=ids, classes=classes, published=published)


def read_idx(storage: Storage, path: str) -> NDArray[np.uint8]:
    """Read one idx file of unsigned bytes; its size must be what its header says.

    Raises:
        DataError: another type, another size, damaged or cut off.
    """
    name = f"{storage.location / path}"
    try:
        data = storage.read(path)
    except BadSampleError as error:
        raise DataError(f"{name}: {error}") from error
    plain = io.BytesIO(data)
    try:
        with gzip.GzipFile(fileobj=plain) if data.startswith(b"\x1f\x8b") else plain as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
                raise DataError(f"{name}: not an idx file of unsigned bytes")
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{name}: cut off in its header: copy it again")
            shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
            size = int(np.prod(shape, dtype=object))
            if size > MEMBER_LIMIT:
                raise DataError(f"{name}: its header promises {size:,} bytes, which is too many")
            values = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged or cut off ({error}): copy it again") from error
    if len(values) != size:
        state = "cut off" if len(values) < size else "longer than its header says"
        raise DataError(f"{name}: {state} ({size:,} bytes are expected): copy it again")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_pair(storage: Storage, path: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    folder, name = PurePosixPath(path).parent, PurePosixPath(path).name
    stem = re.sub("idx[34]", "idx1", name.removesuffix(".gz").replace("images", "labels"))
    beside = [str(folder / stem), str(folder / f"{stem}.gz")]
    found = [candidate for candidate in beside if candidate in set(storage.paths)]
    if not found:
        raise DataError(f"{storage.location}: {name} is there, its labels {stem} are not")
    images, labels = read_idx(storage, path), read_idx(storage, found[0])
    if images.ndim == 4 and images.shape[1] == 3 != images.shape[3]:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim < 3 or (images.ndim == 4 and images.shape[3] != 3) or 0 in images.shape[1:]:
        raise DataError(f"{storage.location}: {name} holds no grey or RGB images")
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{storage.location}: {len(images)} images in {name}, but {len(labels)} labels"
        )
    return images, labels


def _part(prefix: str) -> str:
    words = re.split(r"[-_. ]", prefix.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _classes(storage: Storage, count: int) -> tuple[str, ...]:
    for path in storage.paths:
        if PurePosixPath(path).name.lower() == "classes.txt":
            names = storage.read(path).decode("utf-8-sig", "replace").splitlines()
            names = tuple(name.strip() for name in names if name.strip())
            if len(names) < count:
                raise DataError(
                    f"{storage.location / path}: {len(names)} names, but the labels go up to "
                    f"{count - 1}; give one name a line"
                )
            return names
    if "fashion" in storage.location.resolve().name.lower() and count <= len(FASHION):
        return FASHION
    return tuple(str(number) for number in range(count))
