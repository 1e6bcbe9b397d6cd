from __future__ import annotations

from pathlib import Path

import pytest

from mask_formats import SCENES, target, write_yolo
from vitrail.data.open import open_labelled
from vitrail.data.yolo_masks import open_yolo_masks
from vitrail.errors import BadSampleError, DataError


def test_what_is_said(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    data = open_labelled(str(tmp_path / "data.yaml"), task="segment")
    assert open_yolo_masks(tmp_path / "data.yaml").reason == (
        "4 text files of rows with a class and an outline, named by data.yaml: 8 outlines, "
        "3 classes"
    )
    assert data.classes == ("field", "road", "house")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1 0.5 0.5 0.2 0.2", "'field' is a box without an outline"),
        ("1 0.1 0.1 0.5 0.1 0.5 nan", "'field' has a point that is no finite number"),
        ("1 2 2 3 2 3 3", "'field' lies outside the image of 30 x 24 pixels"),
        ("1 0.1 0.1 0.101 0.1 0.101 0.101", "'field' is so thin"),
        ("1 0.1 0.1 0.5 0.1 0.5", "6 numbers; a row has a class and 4, or the points"),
        ("x 1 2", "is no row of numbers"),
    ],
)
def test_bad_rows_are_left_out_and_listed(tmp_path: Path, row: str, reason: str) -> None:
    write_yolo(tmp_path)
    with (tmp_path / "labels" / "one.txt").open("a") as file:
        file.write(row)
    data = open_labelled(str(tmp_path), task="segment")
    assert len(target(data, "one").labels) == 2
    (label,) = data.dropped
    assert label.reason.startswith("labels/one.txt, line 3: ")
    assert reason in label.reason


def test_boxes_alone(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    for scene in SCENES:
        (tmp_path / "labels" / f"{scene.stem}.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="no usable outline in 4 images; all 4 rows are boxes"):
        open_labelled(str(tmp_path), task="segment")


def test_images_without_objects_and_without_pixels(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "one.txt").unlink()
    (tmp_path / "images" / "two.png").write_bytes(b"x")
    data = open_labelled(str(tmp_path), task="segment")
    assert target(data, "one").labels == ()
    assert target(data, "one").size == (24, 30)
    with pytest.raises(BadSampleError, match="the image cannot be read, nor its size"):
        target(data, "two")


def test_a_class_without_a_name(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "one.txt").write_text("9 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(DataError, match=r"line 1 has class 9, but data\.yaml names 3 classes"):
        open_labelled(str(tmp_path), task="segment")
