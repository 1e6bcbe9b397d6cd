from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mask_formats import SCENES, coco_writer, pieces, target
from vitrail.data.coco_masks import open_coco_masks
from vitrail.data.open import open_labelled
from vitrail.data.segments import MaskFiles
from vitrail.errors import BadSampleError, DataError


def changed(root: Path, kind: str = "polygon", **changes: Any) -> Path:
    """The scenes with other values; a function changes the list that is there."""
    coco_writer(kind)(root, SCENES)
    file = root / "annotations" / "objects.json"
    table = json.loads(file.read_text())
    for key, change in changes.items():
        change(table[key])
    file.write_text(json.dumps(table))
    return file


def test_a_file_and_a_folder(tmp_path: Path) -> None:
    file = changed(tmp_path)
    data = open_labelled(str(file), task="segment")
    assert isinstance(data, MaskFiles)
    assert data.format == "COCO JSON of masks"
    assert data.reason.endswith(
        "objects.json with images, annotations and categories: 8 outlines or run lengths, 3 classes"
    )
    assert data.image_ids == [10, 11, 12, 13]


def test_crowds(tmp_path: Path) -> None:
    file = changed(tmp_path, "runs", annotations=lambda rows: rows[0].update(iscrowd=1))
    assert target(open_coco_masks(file), "one").crowds == (True, False)


def test_several_parts(tmp_path: Path) -> None:
    def join(rows: list[dict[str, Any]]) -> None:
        rows[0]["segmentation"] += rows[1]["segmentation"]

    found = target(open_coco_masks(changed(tmp_path, annotations=join)), "one")
    (_, first), (_, second) = SCENES[0].masks()
    assert (pieces(found)[0] == first | second).all()


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "without an outline or run lengths"),
        ([], "without an outline or run lengths"),
        ([[1, 2, 3, 4]], "has 4 numbers; an outline has three points"),
        ([[1, 2, 3, 4, "5", 6]], "an outline of other things than numbers"),
        ([{"x": 1}], "an outline of other things than numbers"),
        ([[1, 2, 3, 4, 10**400, 6]], "an outline of other things than numbers"),
        ([[1, 2, 3, 4, float("nan"), 6]], "no finite number"),
        ([[50, 2, 60, 2, 60, 9]], "lies outside the image of 30 x 24 pixels"),
        ([[1, 1, 1.1, 1, 1.1, 1.1]], "so thin that it covers no pixel"),
        ({"counts": [10, 20]}, "run lengths of 30 pixels for an image of 30 x 24"),
        ({"counts": [720]}, "without a pixel inside"),
        ({"counts": "~"}, "'~' in run lengths"),
        ({"counts": ["a"]}, "other things than whole numbers"),
        ({"counts": 5}, "without 'counts'"),
        ({"size": [30, 24], "counts": [0, 720]}, "of [30, 24], the image is [24, 30]"),
    ],
)
def test_bad_masks_are_left_out_and_listed(tmp_path: Path, written: object, reason: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0].update(id=99, segmentation=written)

    data = open_coco_masks(changed(tmp_path, annotations=change))
    assert len(target(data, "one").labels) == 1
    (label,) = data.dropped
    assert label.id == "images/one.png"
    assert label.reason.startswith("annotations/objects.json, annotation 99: 'field' ")
    assert reason in label.reason


def test_all_are_left_out(tmp_path: Path) -> None:
    def forget(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            del row["segmentation"]

    with pytest.raises(DataError, match="no usable mask in 4 images; correct the first of 8 "):
        open_coco_masks(changed(tmp_path, annotations=forget))
    with pytest.raises(DataError, match="no usable mask in 4 images; annotate some objects"):
        open_coco_masks(changed(tmp_path / "none", annotations=lambda rows: rows.clear()))


def test_sizes(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        del rows[0]["width"]
        rows[1]["width"] += 1
        del rows[3]["width"]

    file = changed(tmp_path, images=change)
    (tmp_path / "images" / "four.png").write_bytes(b"x")
    data = open_coco_masks(file)
    assert data.read(0).target is not None
    with pytest.raises(BadSampleError, match="has 33 x 20 pixels, its mask 34 x 20"):
        data.read(1)
    with pytest.raises(BadSampleError, match=r"the size of images/four\.png is neither stated"):
        data.read(3)


def test_a_size_that_no_image_has_is_not_drawn(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0].update(width=40_000, height=40_000)

    data = open_coco_masks(changed(tmp_path, images=change))
    with pytest.raises(BadSampleError, match="is said to have 40000 x 40000 pixels; correct"):
        data.read(0)
    assert data.read(1).target is not None


def test_an_image_without_objects(tmp_path: Path) -> None:
    file = changed(tmp_path, annotations=lambda rows: rows.__delitem__(slice(2)))
    found = target(open_coco_masks(file), "one")
    assert (found.labels, found.ids.shape) == ((), (1, 24, 30))
