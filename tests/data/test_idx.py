from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from vitrail.data.idx import FASHION, IdxDataset, read_idx
from vitrail.data.storage import Folder
from vitrail.errors import DataError


def idx(array: np.ndarray) -> bytes:
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write(
    folder: Path, prefix: str, images: np.ndarray, labels: list[int], *, packed: bool = False
) -> None:
    folder.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", np.array(labels))):
        data = idx(array)
        name = f"{prefix}{kind}-ubyte" + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(data, mtime=0) if packed else data)


GREY = np.arange(4 * 2 * 3).reshape(4, 2, 3)


@pytest.mark.parametrize("packed", [True, False])
def test_pairs_and_splits(tmp_path: Path, packed: bool) -> None:
    write(tmp_path, "train-", GREY, [0, 1, 2, 1], packed=packed)
    write(tmp_path, "t10k-", GREY[:2] + 100, [1, 0], packed=packed)
    data = IdxDataset.detect(Folder(tmp_path))
    assert data is not None
    assert data.published == {"train": [0, 1, 2, 3], "test": [4, 5]}
    assert data.ids == ["train/0", "train/1", "train/2", "train/3", "test/0", "test/1"]
    assert data.targets == [0, 1, 2, 1, 1, 0]
    assert data.classes == ("0", "1", "2")
    sample = data.read(5)
    assert sample.image.shape == (3, 2, 3)
    assert sample.image[2].tolist() == (GREY[1] + 100).tolist()
    sample.image.zero_()  # a copy
    assert data.read_bytes(5) == (GREY[1] + 100).astype(np.uint8).tobytes()
    assert data.stored_size(5) == 6


def test_one_pair_without_a_split(tmp_path: Path) -> None:
    write(tmp_path, "", GREY, [0, 1, 0, 1])
    data = IdxDataset.detect(Folder(tmp_path))
    assert data is not None
    assert data.published == {}
    assert data.ids[0] == "image/0"


@pytest.mark.parametrize("planes", [True, False])
def test_colour(tmp_path: Path, planes: bool) -> None:
    colour = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    write(tmp_path, "train-", colour.transpose(0, 3, 1, 2) if planes else colour, [0, 1])
    data = IdxDataset.detect(Folder(tmp_path))
    assert data is not None
    assert data.read(1).image.permute(1, 2, 0).tolist() == colour[1].tolist()


def test_class_names(tmp_path: Path) -> None:
    write(tmp_path / "fashion-mnist", "train-", GREY, [0, 1, 2, 1])
    data = IdxDataset.detect(Folder(tmp_path / "fashion-mnist"))
    assert data is not None
    assert data.classes == FASHION
    (tmp_path / "fashion-mnist" / "classes.txt").write_text("a\nb\n c \n")
    data = IdxDataset.detect(Folder(tmp_path / "fashion-mnist"))
    assert data is not None
    assert data.classes == ("a", "b", "c")
    (tmp_path / "fashion-mnist" / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="2 names, but the labels go up to 2"):
        IdxDataset.detect(Folder(tmp_path / "fashion-mnist"))


def test_nothing_of_the_kind(tmp_path: Path) -> None:
    (tmp_path / "images.jpg").write_bytes(b"")
    assert IdxDataset.detect(Folder(tmp_path)) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x0d\x01" + bytes(8), "not an idx file"),
        (b"\0\0\x08\x03\0\0", "cut off in its header"),
        (idx(GREY)[:-1], "cut off"),
        (idx(GREY) + b"x", "longer"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "too many"),
        (gzip.compress(idx(GREY), mtime=0)[:-9], "damaged or cut off"),
        (gzip.compress(bytes(10**6), mtime=0), "not an idx file"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_idx(Folder(tmp_path), "x")


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "train-", GREY, [0, 1])
    with pytest.raises(DataError, match="4 images in train-images-idx3-ubyte, but 2 labels"):
        IdxDataset.detect(Folder(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="its labels train-labels-idx1-ubyte are not"):
        IdxDataset.detect(Folder(tmp_path))
    write(tmp_path, "train-", GREY, [0, 1, 0, 1])
    write(tmp_path, "t10k-", GREY[:, :1], [0, 1, 0, 1])
    with pytest.raises(DataError, match="different sizes"):
        IdxDataset.detect(Folder(tmp_path))


def test_fashion_mnist(shared_data: Path) -> None:
    data = IdxDataset.detect(Folder(shared_data / "fashion-mnist"))
    assert data is not None
    assert {name: len(part) for name, part in data.published.items()} == {
        "train": 60000,
        "test": 10000,
    }
    assert data.classes == FASHION
    assert data.targets[:5] == [9, 0, 0, 3, 0]
    assert data.read(0).image.shape == (3, 28, 28)
