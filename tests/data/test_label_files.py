from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.data.label_files import ImageFinder, one_a_split, split_of_file, split_of_folders
from vitrail.data.storage import Folder
from vitrail.errors import DataError


def finder(root: Path, *paths: str) -> ImageFinder:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return ImageFinder(Folder(root))


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("annotations/instances_val2017.json", "val"),
        ("valid/_annotations.coco.json", "val"),
        ("testing/a.json", "test"),
        ("train/boxes_val.json", "val"),
        ("boxes.json", None),
        ("trainval.json", None),
        ("latest/boxes.json", None),
    ],
)
def test_splits_of_files(path: str, split: str | None) -> None:
    assert split_of_file(path) == split


def test_splits_of_folders() -> None:
    assert split_of_folders("images/val2017/train.jpg") == "val"
    assert split_of_folders("Train/1.jpg") == "train"
    assert split_of_folders("training.jpg") is None


def test_one_file_a_split(tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    paths = ["a/captions_train.json", "a/instances_train.json", "a/val.json", "a/all.json"]
    assert one_a_split(storage, paths, preferred="instances") == {
        "train": "a/instances_train.json",
        "val": "a/val.json",
    }
    assert one_a_split(storage, ["all.json"]) == {None: "all.json"}
    with pytest.raises(DataError, match="could both be the labels"):
        one_a_split(storage, paths)


def test_named_images(tmp_path: Path) -> None:
    found = finder(
        tmp_path, "images/a/1.png", "images/b/1.png", "images/b/2.png", "masks/b/2.png", "3.png"
    )
    assert found.named(["a/1.png", "b/1.png"], "", None) == ["images/a/1.png", "images/b/1.png"]
    assert found.named(["1.png", "2.png"], "", None) == ["images/b/1.png", "images/b/2.png"]
    assert found.named(["3.png", "1.png"], "", None) == ["3.png", "1.png"], "no guess"
    assert found.named(["gone.png"], "x", None) == ["x/gone.png"]


def test_files_beside_the_label_go_first(tmp_path: Path) -> None:
    found = finder(tmp_path, "one/1.png", "two/1.png", "two/2.png", "two/3.png")
    names = ["1.png", "2.png", "3.png"]
    assert found.named(names, "one", None) == ["one/1.png", "two/2.png", "two/3.png"]
    found = finder(tmp_path / "x", "train/1.png", "val/1.png", "val/2.png")
    names = ["1.png", "2.png"]
    assert found.named(names, "train", "train") == ["train/1.png", "train/2.png"]


def test_images_by_stem(tmp_path: Path) -> None:
    found = finder(
        tmp_path,
        *("VOC2007/JPEGImages/1.jpg", "VOC2007/Masks/1.png", "VOC2012/JPEGImages/1.jpg"),
        *("train/2.jpg", "val/2.jpg"),
    )
    assert found.of_stem("VOC2012/Annotations/1.xml") == "VOC2012/JPEGImages/1.jpg"
    assert found.of_stem("VOC2007/Annotations/1.xml") == "VOC2007/JPEGImages/1.jpg"
    assert found.of_stem("val/2.xml") == "val/2.jpg"
    assert found.of_stem("val/1.5.xml") is None


def test_unnamed_images(tmp_path: Path) -> None:
    found = finder(tmp_path, "images/1.jpg", "images/2.jpg", "masks/1.png")
    assert found.unnamed(["images/1.jpg", "gone/3.jpg"]) == ["images/2.jpg"]


def test_accents_are_written_in_two_ways(tmp_path: Path) -> None:
    apart, whole = "u\u0308.png", "\u00fc.png"
    found = finder(tmp_path, f"images/{apart}", "images/1.png")
    assert found.named([whole, "1.png"], "", None) == [f"images/{apart}", "images/1.png"]
    assert found.of_stem("labels/\u00fc.xml") == f"images/{apart}"
    assert finder(tmp_path / "b", whole).named([apart], "", None) == [whole]
