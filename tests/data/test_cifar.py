from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from vitrail.data.cifar import CLASSES, TEST_FILE, TRAIN_FILES, CifarDataset
from vitrail.data.storage import Folder, open_storage
from vitrail.errors import DataError


def write(folder: Path, *, records: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (6, records, 3073), dtype=np.uint8)
    rows[:, :, 0] %= 10
    folder.mkdir(parents=True)
    for name, batch in zip((*TRAIN_FILES, TEST_FILE), rows, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES))
    return rows.reshape(-1, 3073)


@pytest.mark.parametrize("packed", [True, False])
def test_batches(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    rows = write(folder)
    path = folder
    if packed:
        path = tmp_path / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "cifar-10-batches-bin")
    data = CifarDataset.detect(open_storage(path))
    assert data is not None
    assert data.classes == CLASSES
    assert (data.ids[0], data.ids[20], len(data)) == ("train/0", "test/0", 24)
    assert {name: list(part) for name, part in data.published.items()} == {
        "train": list(range(20)),
        "test": list(range(20, 24)),
    }
    for index in (0, 7, 23):
        sample = data.read(index)
        assert sample.target == rows[index, 0]
        assert sample.image.flatten().tolist() == rows[index, 1:].tolist()


def test_nothing_of_the_kind(tmp_path: Path) -> None:
    assert CifarDataset.detect(Folder(tmp_path)) is None


def test_damage(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write(folder)
    batch = folder / TEST_FILE
    good = batch.read_bytes()
    batch.write_bytes(good[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin: .* no whole records"):
        CifarDataset.detect(Folder(folder))
    batch.write_bytes(b"\x0a" + good[1:])
    with pytest.raises(DataError, match="above 9"):
        CifarDataset.detect(Folder(folder))
    batch.unlink()
    with pytest.raises(DataError, match=r"test_batch\.bin is missing"):
        CifarDataset.detect(Folder(folder))
