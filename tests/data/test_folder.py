from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitrail.data.folder import ImageFolder, is_image
from vitrail.data.storage import Folder
from vitrail.errors import BadSampleError


def build(root: Path, *names: str) -> Folder:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not really an image")
    return Folder(root)


def detect(root: Path, *names: str) -> ImageFolder:
    found = ImageFolder.detect(build(root, *names))
    assert found is not None
    return found


def test_class_folders(tmp_path: Path) -> None:
    data = detect(tmp_path, "cat/2.jpg", "cat/deep/1.PNG", "ant/x.webp", "ant/notes.txt", "top.jpg")
    assert data.classes == ("ant", "cat")
    assert data.ids == ["ant/x.webp", "cat/2.jpg", "cat/deep/1.PNG"]
    assert data.targets == [0, 1, 1]
    assert data.published == {}
    assert data.ignored == 2
    assert not data.multilabel


def test_splits_by_any_usual_name(tmp_path: Path) -> None:
    data = detect(
        tmp_path,
        *("Training/b/1.jpg", "Training/a/1.jpg", "valid/a/1.jpg", "TEST/c/1.jpg"),
        *("extra/a/1.jpg", "TEST/loose.jpg"),
    )
    assert data.classes == ("a", "b", "c"), "a class of the test part only is kept"
    assert data.ids == ["TEST/c/1.jpg", "Training/a/1.jpg", "Training/b/1.jpg", "valid/a/1.jpg"]
    assert data.published == {"test": [0], "train": [1, 2], "val": [3]}
    assert data.ignored == 2


@pytest.mark.parametrize("wrap", ["flowers/", "a/b/c/"])
def test_wrapping_folders_are_looked_through(tmp_path: Path, wrap: str) -> None:
    plain = detect(tmp_path / "1", f"{wrap}x/1.jpg", f"{wrap}y/1.jpg")
    assert plain.classes == ("x", "y")
    split = detect(tmp_path / "2", f"{wrap}train/x/1.jpg", f"{wrap}val/y/1.jpg")
    assert split.classes == ("x", "y")
    assert set(split.published) == {"train", "val"}
    alone = detect(tmp_path / "3", f"{wrap}val/x/1.jpg", f"{wrap}val/y/1.jpg")
    assert alone.classes == ("x", "y")
    assert set(alone.published) == {"val"}


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    data = detect(tmp_path, "cat/1.jpg", "dog/1.jpg", "test/1.jpg")
    assert data.classes == ("cat", "dog", "test")
    assert data.published == {}


def test_one_class(tmp_path: Path) -> None:
    assert detect(tmp_path, "cats/1.jpg", "cats/2.jpg").classes == ("cats",)


@pytest.mark.parametrize(
    "names", [["1.jpg", "2.jpg"], ["train/1.jpg", "test/2.jpg"], ["a/x.txt"], []]
)
def test_no_class_folders(tmp_path: Path, names: list[str]) -> None:
    assert ImageFolder.detect(build(tmp_path, *names)) is None


def test_read(tmp_path: Path) -> None:
    data = detect(tmp_path, "a/1.png", "b/2.png")
    Image.new("RGB", (5, 4), "red").save(tmp_path / "b" / "2.png")
    sample = data.read(1)
    assert (sample.id, sample.target, sample.image.shape) == ("b/2.png", 1, (3, 4, 5))
    assert data.read_bytes(1) == (tmp_path / "b/2.png").read_bytes()
    assert data.stored_size(1) == (tmp_path / "b/2.png").stat().st_size
    with pytest.raises(BadSampleError, match="not an image"):
        data.read(0)
    (tmp_path / "a/1.png").unlink()
    assert data.stored_size(0) == 0
    with pytest.raises(BadSampleError, match="missing"):
        data.read(0)


def test_is_image() -> None:
    assert is_image("a/b.JPEG")
    assert not is_image("a.jpg/b.txt")
