from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mask_formats import put_image, put_mask, write_instances
from vitrail.data.instance_folder import detect_instance_folder
from vitrail.data.open import open_labelled, open_source
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Folder
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Segments


def opened(root: Path) -> MaskFiles:
    data = detect_instance_folder(Folder(root))
    assert data is not None
    return data


def test_what_is_said(tmp_path: Path) -> None:
    write_instances(tmp_path)
    data = open_labelled(str(tmp_path))
    assert isinstance(data, MaskFiles)
    assert data.format == "folder of masks an image"
    assert data.reason == (
        "4 folders with an image and a mask file for each of its objects: 8 masks of the class "
        "'object'"
    )
    assert data.ids[0] == "four/images/four.png"


def test_splits_and_the_name_of_the_class(tmp_path: Path) -> None:
    write_instances(tmp_path / "train")
    write_instances(tmp_path / "test")
    (tmp_path / "classes.txt").write_text("background\nnucleus\n")
    data = opened(tmp_path)
    assert {name: len(part) for name, part in data.published.items()} == {"train": 4, "test": 4}
    assert data.classes == ("nucleus",)
    (tmp_path / "classes.txt").write_text("cell\nnucleus\n")
    with pytest.raises(DataError, match=r"2 classes are named, but masks in folders .* name one"):
        opened(tmp_path)


def test_one_image_and_its_mask_are_no_objects(tmp_path: Path) -> None:
    put_image(tmp_path / "images" / "7.png", (9, 9))
    put_mask(tmp_path / "masks" / "7_mask.png", np.eye(9, dtype=np.uint8) * 255)
    assert detect_instance_folder(Folder(tmp_path)) is None
    assert open_labelled(str(tmp_path)).segments == "semantic"


def test_images_without_masks_are_listed(tmp_path: Path) -> None:
    write_instances(tmp_path)
    put_image(tmp_path / "five" / "images" / "five.png", (9, 9))
    put_mask(tmp_path / "six" / "masks" / "1.png", np.eye(9, dtype=np.uint8))
    data = opened(tmp_path)
    assert data.unlabelled == ("five/images/five.png",)
    assert "1 images without a folder of masks were left out" in data.reason
    assert [skipped.id for skipped in data.unmatched] == ["six/masks"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((24, 30), np.uint8), r"the mask one/masks/001\.png is empty; take it out"),
        (
            np.full((24, 30), 2, np.uint8),
            r"001\.png has values up to 2; one object a file",
        ),
        (np.ones((24, 31), np.uint8), r"001\.png has 31 x 24 pixels, others of its image 30 x 24"),
        (None, r"the mask one/masks/001\.png: no mask that can be read"),
    ],
)
def test_bad_masks(tmp_path: Path, values: np.ndarray | None, message: str) -> None:
    write_instances(tmp_path)
    path = tmp_path / "one" / "masks" / "001.png"
    if values is None:
        path.write_bytes(b"none")
    else:
        put_mask(path, values)
    data = opened(tmp_path)
    with pytest.raises(BadSampleError, match=message):
        data.read(list(data.ids).index("one/images/one.png"))
    assert data.digest(0)


def test_other_layouts(tmp_path: Path) -> None:
    for number in range(3):
        put_image(tmp_path / "images" / f"{number}.png", (8, 8))
        put_mask(tmp_path / "masks" / f"{number}.png", np.eye(8, dtype=np.uint8))
    assert detect_instance_folder(Folder(tmp_path)) is None
    (data,) = {open_labelled(str(tmp_path)).segments}
    assert data == "semantic"


def test_the_nuclei(shared_data: Path) -> None:
    source = open_source(str(shared_data / "nuclei" / "stage1_train_256x256.zip"))
    sizes = {name: len(part) for name, part in source.splits.items()}
    assert sizes == {"train": 240, "val": 27, "test": 67}
    train = source.splits["train"]
    assert (train.classes, train.segments) == (("object",), "instance")
    target = train.read(0).target
    assert isinstance(target, Segments)
    assert target.size == (256, 256)
    assert len(target.labels) == int(target.ids.max())
