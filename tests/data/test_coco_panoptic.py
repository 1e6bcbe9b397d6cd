from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask_formats import SCENES, put_mask, regions, target, write_panoptic
from vitrail.data.coco_panoptic import open_coco_panoptic
from vitrail.data.open import open_labelled
from vitrail.data.segments import MaskFiles
from vitrail.errors import BadSampleError, DataError
from vitrail.types import VOID


def changed(root: Path, **changes: Any) -> Path:
    """The scenes with other values; a function changes the list that is there."""
    write_panoptic(root, SCENES)
    file = root / "panoptic.json"
    table = json.loads(file.read_text())
    for key, change in changes.items():
        change(table[key])
    file.write_text(json.dumps(table))
    return file


def opened(file: Path) -> MaskFiles:
    data = open_coco_panoptic(file)
    assert data is not None
    return data


def test_things_stuff_and_void(tmp_path: Path) -> None:
    data = opened(changed(tmp_path))
    assert (data.segments, data.background) == ("panoptic", False)
    assert data.things == (False, False, True)
    assert data.category_ids == (1, 2, 7)
    assert (
        data.reason == "panoptic.json with segments_info: 4 images, 1 classes of things, 2 of stuff"
    )
    found = target(data, "two")
    assert found.labels == (2, 2, VOID)
    assert found.ids.shape == (1, 20, 33)
    assert found.ids.min() == 1, "every pixel has a segment"


def test_crowds(tmp_path: Path) -> None:
    file = changed(tmp_path, annotations=lambda r: r[1]["segments_info"][0].update(iscrowd=1))
    assert target(opened(file), "two").crowds == (True, False, False)


def test_a_file_below_its_images(tmp_path: Path) -> None:
    file = changed(tmp_path)
    (tmp_path / "annotations").mkdir()
    file = file.rename(tmp_path / "annotations" / "panoptic.json")
    (tmp_path / "panoptic").rename(tmp_path / "annotations" / "panoptic")
    below = opened(file)
    whole = open_labelled(str(tmp_path))
    for scene in SCENES:
        own = regions(below, target(below, scene.stem))
        assert own == regions(whole, target(whole, scene.stem))
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    for path in (tmp_path / "annotations" / "panoptic").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(DataError, match="none of its 4 images is there; put them beside it"):
        open_coco_panoptic(file)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert open_coco_panoptic(tmp_path / "a.json") is None


def test_an_image_without_a_row_is_listed(tmp_path: Path) -> None:
    data = opened(changed(tmp_path, annotations=lambda rows: rows.pop(0)))
    assert data.unlabelled == ("images/one.png",)
    assert len(data) == 3

    def stray(rows: list[dict[str, Any]]) -> None:
        rows.append({"image_id": 99, "file_name": "x.png", "segments_info": []})

    data = opened(changed(tmp_path / "stray", annotations=stray))
    assert [skipped.reason for skipped in data.unmatched] == [
        "segments of image_id 99, which is not listed"
    ]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (5, "has the segment 5, which segments_info does not list; export both again"),
        (0, r"has no pixel of the segment 70001 that segments_info lists"),
        (None, "no mask that can be read"),
    ],
)
def test_masks_that_contradict_their_rows(tmp_path: Path, number: int | None, message: str) -> None:
    data = opened(changed(tmp_path))
    path = tmp_path / "panoptic" / "one.png"
    if number is None:
        path.write_bytes(b"x")
    else:
        put_mask(path, np.full((24, 30, 3), (number, 0, 0), dtype=np.uint8))
    with pytest.raises(BadSampleError, match=rf"the mask panoptic/one\.png.*{message}"):
        data.read(0)
    assert data.digest(0)


def segment(**values: object) -> Any:
    return lambda rows: rows[0]["segments_info"][0].update(values)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", segment(id=0), "segments_info of image_id 10 has the id 0"),
        ("annotations", segment(id=1 << 24), "has the id 16777216"),
        ("annotations", segment(id=140_002), "has the id 140002; give each segment its own"),
        ("annotations", segment(category_id=5), "category_id 5, which is none of the 3"),
        ("annotations", lambda rows: rows[0].pop("file_name"), "with the file None"),
        ("annotations", lambda rows: rows[0].pop("image_id"), "annotation of image_id None"),
        ("annotations", lambda rows: rows[0].update(image_id=11), "image_id 11 has two"),
        ("categories", lambda rows: rows[0].pop("isthing"), "category 1 has isthing None"),
        ("categories", lambda rows: rows[0].update(isthing=[]), r"category 1 has isthing \[\]"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, key: str, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_coco_panoptic(changed(tmp_path, **{key: change}))
    assert "panoptic.json" in str(caught.value)


def nested(root: Path, folder: str) -> Path:
    """The second mask has the name of the first, in a folder of its own."""
    file = changed(root, annotations=lambda rows: rows[1].update(file_name="b/one.png"))
    (root / folder / "b").mkdir(parents=True, exist_ok=True)
    for path in (root / "panoptic").glob("*.png"):
        path.rename(root / folder / path.name)
    (root / folder / "two.png").rename(root / folder / "b" / "one.png")
    return file


@pytest.mark.parametrize("folder", ["panoptic", "elsewhere"])
def test_folders_of_masks_count(tmp_path: Path, folder: str) -> None:
    file = nested(tmp_path, folder)
    if folder == "elsewhere":  # `one.png` may be meant by the end of both paths
        with pytest.raises(
            DataError, match=r"could both be the mask one\.png; put .* at panoptic/"
        ):
            opened(file)
        (tmp_path / folder / "one.png").rename(tmp_path / folder / "uno.png")
        table = json.loads(file.read_text())
        table["annotations"][0]["file_name"] = "uno.png"
        file.write_text(json.dumps(table))
    data = opened(file)
    assert target(data, "one").size == SCENES[0].size
    assert target(data, "two").size == SCENES[1].size


def test_two_images_with_one_mask(tmp_path: Path) -> None:
    file = changed(tmp_path, annotations=lambda rows: rows[1].update(file_name="lost/one.png"))
    with pytest.raises(DataError, match=r"image_id 10 and 11 have one mask, panoptic/one\.png"):
        opened(file)


def test_no_segment_at_all(tmp_path: Path) -> None:
    def clear(rows: list[Any]) -> None:
        for row in rows:
            row["segments_info"] = []

    with pytest.raises(DataError, match="none of 4 images has a segment in segments_info"):
        opened(changed(tmp_path, annotations=clear))
