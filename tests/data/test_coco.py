from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from boxed import SCENES, Scene, ids_of, put_image, write_coco
from vitrail.data.boxes import BoxFiles
from vitrail.data.coco import detect_coco, open_coco
from vitrail.data.open import open_labelled, open_source
from vitrail.data.storage import Folder, open_storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Box, Boxes

IDS = ids_of(("cat", "dog", "ant hill"), "from 1")


def opened(root: Path) -> BoxFiles:
    data = detect_coco(Folder(root))
    assert data is not None
    return data


def changed(root: Path, **changes: Any) -> Path:
    """The tiny set with other values; a function changes the list that is there."""
    write_coco(root, SCENES, IDS)
    file = root / "annotations" / "boxes.json"
    table = json.loads(file.read_text())
    for key, change in changes.items():
        change(table[key])
    file.write_text(json.dumps(table))
    return file


def target(data: BoxFiles, file: str) -> Boxes:
    found = data.targets[list(data.ids).index(f"images/{file}")]
    assert isinstance(found, Boxes)
    return found


def test_an_image_without_annotations_is_a_sample(tmp_path: Path) -> None:
    changed(tmp_path)
    data = opened(tmp_path)
    assert target(data, "empty.png") == Boxes((), (20, 30))
    sample = data.read(data.ids.index("images/empty.png"))
    assert sample.target == Boxes((), (20, 30))


def test_crowds_and_areas(tmp_path: Path) -> None:
    changed(tmp_path, annotations=lambda rows: rows[0].update(iscrowd=1, area=77.5))
    data = opened(tmp_path)
    first, second = target(data, "one.png").items
    assert first == Box((3.0, 4.0, 20.0, 30.0), 0, crowd=True, area=77.5)
    assert not second.crowd


def test_the_size_is_read_where_it_is_not_stated(tmp_path: Path) -> None:
    def forget(rows: list[dict[str, Any]]) -> None:
        del rows[0]["width"]
        rows[1]["height"] = 0

    changed(tmp_path, images=forget)
    data = opened(tmp_path)
    assert [target(data, scene.file).size for scene in SCENES] == [s.size for s in SCENES]


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([1, 2, 3, 0], "'cat' is empty (1, 2, 4, 2)"),
        ([1, 2, -3, 4], "'cat' is inverted"),
        ([1, float("nan"), 3, 4], "'cat' has a corner that is no finite number"),
        ([1, float("inf"), 3, 4], "'cat' has a corner that is no finite number"),
        ([1, 10**400, 3, 4], "'cat' has a corner that is no finite number"),
        ([60, 2, 3, 4], "'cat' lies outside the image of 60 x 40 pixels"),
        ([1, 2, 3], "'cat' without a box of four numbers"),
        (["1", 2, 3, 4], "'cat' without a box of four numbers"),
        (None, "'cat' without a box of four numbers"),
    ],
)
def test_bad_boxes_are_left_out_and_listed(tmp_path: Path, bbox: object, reason: str) -> None:
    changed(tmp_path, annotations=lambda rows: rows[0].update(id=99, bbox=bbox))
    data = opened(tmp_path)
    assert len(target(data, "one.png").items) == 1
    (label,) = data.dropped
    assert label.id == "images/one.png"
    assert label.reason.startswith("annotations/boxes.json, annotation 99: ")
    assert reason in label.reason


def test_boxes_that_stick_out_are_cut_off(tmp_path: Path) -> None:
    changed(tmp_path, annotations=lambda rows: rows[0].update(bbox=[-5, 30, 20, 11]))
    data = opened(tmp_path)
    assert target(data, "one.png").items[0].corners == (0, 30, 15, 40)
    assert [label.reason for label in data.clipped] == [
        "annotations/boxes.json, annotation 0: the box of 'cat' sticks out of the image by "
        "5 pixels (-5, 30, 15, 41)"
    ]
    shutil.rmtree(tmp_path)
    changed(tmp_path, annotations=lambda rows: rows[0].update(bbox=[50, 30, 11, 10.5]))
    data = opened(tmp_path)
    assert target(data, "one.png").items[0].corners == (50, 30, 60, 40)
    assert not data.clipped, "a pixel is rounding"


def test_a_missing_image_is_a_bad_sample(tmp_path: Path) -> None:
    changed(tmp_path)
    (tmp_path / "images" / "two.png").unlink()
    put_image(tmp_path / "images" / "other.png", SCENES[0])
    data = opened(tmp_path)
    with pytest.raises(BadSampleError, match="missing"):
        data.read(data.ids.index("images/two.png"))
    assert data.unlabelled == ("images/other.png",), "no sample, but it is known"
    assert len(data) == 4


def test_annotations_of_images_that_are_not_listed(tmp_path: Path) -> None:
    changed(tmp_path, images=lambda rows: rows.pop())
    data = opened(tmp_path)
    assert len(data) == 3
    assert [(label.id, label.reason) for label in data.unmatched] == [
        ("annotations/boxes.json", "2 annotations for image_id 13, which is not listed")
    ]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", lambda r: r[0].update(category_id=9), "category_id 9, .* 3 categories"),
        ("annotations", lambda r: r[0].update(category_id=None), "category_id None"),
        ("annotations", lambda r: r[0].pop("image_id"), "no image_id"),
        ("annotations", lambda r: r.append(7), "'annotations' is no list of objects"),
        ("categories", lambda r: r[0].update(id=2), "category id 2 is"),
        ("categories", lambda r: r[0].update(name="dog"), "are both 'dog'; make them one class"),
        ("categories", lambda r: r[0].update(id="1"), "whole number"),
        ("categories", lambda r: r[0].update(name=" "), "whole number as 'id' and a 'name'"),
        ("images", lambda r: r[0].update(id=11), "image id 11 occurs twice"),
        ("images", lambda r: r[0].update(file_name="two.png"), "lists 'images/two.png' twice"),
        ("images", lambda r: r[0].pop("file_name"), "'file_name'"),
        ("annotations", lambda r: r.clear(), "no box in 4 images"),
        (
            "annotations",
            lambda r: [row.update(bbox=[0, 0, 0, 0]) for row in r],
            "no usable box in 4 images; correct the first of 6",
        ),
    ],
)
def test_contradictions_are_named(tmp_path: Path, key: str, change: Any, message: str) -> None:
    changed(tmp_path, **{key: change})
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "annotations/boxes.json" in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2", "[" * 100_000, '"images" "annotations" "categories"'])
def test_files_that_are_no_json(tmp_path: Path, text: str) -> None:
    file = changed(tmp_path)
    file.write_text(text)
    with pytest.raises(DataError, match=r"boxes\.json: not JSON"):
        open_coco(file)
    file.write_text("[]")
    with pytest.raises(DataError, match="not COCO"):
        open_coco(file)


def test_other_json_is_passed_over(tmp_path: Path) -> None:
    assert detect_coco(Folder(tmp_path)) is None
    changed(tmp_path)
    table = (tmp_path / "annotations" / "boxes.json").read_text()
    panoptic = json.loads(table)
    panoptic["annotations"] = [{"segments_info": [], "image_id": 10}]
    (tmp_path / "panoptic.json").write_text(json.dumps(panoptic))
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": []}')
    assert len(opened(tmp_path)) == 4
    (tmp_path / "annotations" / "instances.json").write_text(table)
    assert opened(tmp_path).reason.startswith("annotations/instances.json with"), "goes first"
    (tmp_path / "annotations" / "my_instances.json").write_text(table)
    with pytest.raises(DataError, match="could both be the labels; give the path"):
        opened(tmp_path)
    assert len(open_coco(tmp_path / "annotations" / "boxes.json")) == 4


def two_parts(root: Path, train: str, val: str, images: tuple[str, str]) -> None:
    """Two files of one image each, of the same name but other boxes."""
    for place, (file, folder) in enumerate(zip((train, val), images, strict=True)):
        scene = Scene("1.png", (20 + place, 30), [("cat", (1, 1, 5 + place, 9))], image_id=1)
        write_coco(root / "made", [scene], {"cat": 4})
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "made/annotations/boxes.json").rename(root / file)
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "made/images/1.png").rename(root / folder / "1.png")
        shutil.rmtree(root / "made")


@pytest.mark.parametrize(
    ("train", "val", "images"),
    [
        (
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            ("train2017", "val2017"),
        ),
        (
            "train/_annotations.coco.json",
            "valid/_annotations.coco.json",
            ("train", "valid"),
        ),
        ("a/train.json", "a/validation.json", ("a/images/train", "a/images/val")),
    ],
)
def test_published_splits(tmp_path: Path, train: str, val: str, images: tuple[str, str]) -> None:
    two_parts(tmp_path, train, val, images)
    data = opened(tmp_path)
    assert data.published == {"train": [0], "val": [1]}
    assert list(data.ids) == [f"{folder}/1.png" for folder in images]
    for index, width in enumerate((5, 6)):
        found = data.read(index).target
        assert isinstance(found, Boxes)
        assert found == Boxes(
            (Box((1.0, 1.0, width, 9.0), 0, area=8 * (width - 1)),), (20 + index, 30)
        )
    (tmp_path / images[0] / "1.png").unlink()
    with pytest.raises(DataError, match=r"none of its 1 images is there"):
        opened(tmp_path)  # and never the image of the same name in val


def test_files_must_agree_on_categories(tmp_path: Path) -> None:
    two_parts(tmp_path, "train.json", "val.json", ("train", "val"))
    file = tmp_path / "val.json"
    for old, new in (('"id": 4', '"id": 5'), ('"name": "cat"', '"name": "dog"')):
        text = file.read_text()
        file.write_text(text.replace(old, new).replace('"category_id": 4', '"category_id": 5'))
        if "dog" not in file.read_text():
            with pytest.raises(DataError, match="another file has id 4 for 'cat'"):
                opened(tmp_path)
        else:
            assert opened(tmp_path).classes == ("cat", "dog"), "a class that only one has"


def test_one_class_is_enough(tmp_path: Path) -> None:
    scenes = [Scene(f"{i}.png", (20, 30), [("cat", (1, 1, 5, 9))]) for i in range(10)]
    write_coco(tmp_path, scenes, {"cat": 0})
    splits = open_source(str(tmp_path)).splits
    assert {name: len(part) for name, part in splits.items()} == {"train": 7, "val": 1, "test": 2}
    assert splits["train"].classes == ("cat",)
    assert splits["test"].image_ids is not None


@pytest.mark.parametrize(
    "name", ["images/one.png", r"images\one.png", "./one.png", "/home/me/one.png", "../../one.png"]
)
def test_names_of_other_machines(tmp_path: Path, name: str) -> None:
    def rename(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["file_name"] = name.replace("one.png", row["file_name"])

    changed(tmp_path, images=rename)
    assert opened(tmp_path).ids[0] == "images/one.png"


def test_an_archive_and_a_file(tmp_path: Path) -> None:
    file = changed(tmp_path / "data")
    plain = opened(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted((tmp_path / "data").rglob("*.*")):
            archive.write(path, Path("top") / path.relative_to(tmp_path / "data"))
    packed = detect_coco(open_storage(tmp_path / "data.zip"))
    assert packed is not None
    assert packed.targets == plain.targets
    assert (packed.read(1).image == plain.read(1).image).all()
    single = open_labelled(str(file))
    assert single.targets == plain.targets
    assert single.read(1).target == plain.read(1).target


def test_a_size_that_no_image_has_is_not_believed(tmp_path: Path) -> None:
    file = changed(tmp_path, images=lambda rows: rows[0].update(width=10**400))
    assert len(target(open_coco(file), "one.png").items) == 2


def test_labels_of_unlisted_images_are_why_there_is_no_box(tmp_path: Path) -> None:
    def as_text(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["image_id"] = str(row["image_id"])

    changed(tmp_path, annotations=as_text)
    with pytest.raises(DataError, match=r"correct the first of 3 .* which is not listed"):
        opened(tmp_path)
