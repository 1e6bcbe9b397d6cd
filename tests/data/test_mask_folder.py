from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mask_formats import put_image, put_mask
from vitrail.data.mask_folder import detect_mask_folder
from vitrail.data.open import open_labelled, open_source
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Folder
from vitrail.errors import DataError

MASK = np.zeros((9, 11), dtype=np.uint8)
MASK[2:5, 3:8] = 255


def put(root: Path, *pairs: tuple[str, str]) -> Path:
    for image, mask in pairs:
        if image:
            put_image(root / image, (9, 11))
        if mask:
            put_mask(root / mask, MASK)
    return root


def opened(root: Path) -> MaskFiles:
    data = detect_mask_folder(Folder(root))
    assert data is not None
    return data


LAYOUTS = [
    ("images/{}.jpg", "masks/{}.png"),
    ("img/{}.jpg", "labels/{}.png"),
    ("data/JPEGImages/{}.jpg", "data/SegmentationClass/{}.png"),
    ("images/{}.png", "annotations/{}_mask.png"),
    ("images/{}.png", "gt/{}-label.png"),
    ("{}.jpg", "{}_mask.png"),
    ("all/{}_sat.jpg", "all/{}_mask.png"),
    ("road_segmentation/images/{}.jpg", "road_segmentation/masks/{}.png"),
    ("deep/a/images/{}.png", "deep/a/annotation/{}.png"),
]


@pytest.mark.parametrize(("image", "mask"), LAYOUTS)
def test_layouts(tmp_path: Path, image: str, mask: str) -> None:
    put(tmp_path, *((image.format(i), mask.format(i)) for i in "abc"))
    data = opened(tmp_path)
    assert list(data.ids) == [image.format(i) for i in "abc"]
    assert data.published == {}
    assert data.read(1).target is not None
    assert isinstance(open_labelled(str(tmp_path)), MaskFiles)


SPLITS = [
    ("train/images/{}.jpg", "train/masks/{}.png", "val/images/{}.jpg", "val/masks/{}.png"),
    ("images/train/{}.jpg", "masks/train/{}.png", "images/valid/{}.jpg", "masks/valid/{}.png"),
    ("train_images/{}.jpg", "train_masks/{}.png", "val_images/{}.jpg", "val_masks/{}.png"),
    (
        "images/train2017/{}.jpg",
        "m/mask/train2017/{}.png",
        "images/val2017/{}.jpg",
        "mask/val2017/{}.png",
    ),
    ("train/{}.png", "trainannot/{}.png", "val/{}.png", "valannot/{}.png"),
    ("train/{}.png", "train_labels/{}_L.png", "val/{}.png", "val_labels/{}_L.png"),
    ("images/train/{}.jpg", "masks/{}.png", "images/val/{}x.jpg", "masks/{}x.png"),
]


@pytest.mark.parametrize("layout", SPLITS)
def test_published_splits(tmp_path: Path, layout: tuple[str, str, str, str]) -> None:
    """Images of two splits may have the same names."""
    for image, mask in (layout[:2], layout[2:]):
        put(tmp_path, *((image.format(i), mask.format(i)) for i in "abc"))
    data = opened(tmp_path)
    assert {name: len(part) for name, part in data.published.items()} == {"train": 3, "val": 3}
    assert open_source(str(tmp_path)).published == ("train", "val")


def test_an_archive(tmp_path: Path) -> None:
    put(tmp_path / "x", *((f"images/{i}.jpg", f"masks/{i}.png") for i in "abc"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted((tmp_path / "x").rglob("*.*g")):
            archive.write(path, Path("top") / path.relative_to(tmp_path / "x"))
    data = open_labelled(str(tmp_path / "x.zip"))
    assert isinstance(data, MaskFiles)
    assert len(data) == 3


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    pairs = [(f"images/{i}.jpg", f"masks/{i}.png") for i in "abc"]
    put(tmp_path, *pairs, ("images/alone.jpg", ""), ("", "masks/lost.png"))
    data = opened(tmp_path)
    assert len(data) == 3
    assert data.unlabelled == ("images/alone.jpg",)
    assert [skipped.id for skipped in data.unmatched] == ["masks/lost.png"]
    assert "1 images without a mask were left out" in data.reason


def test_a_mask_is_never_that_of_another_split(tmp_path: Path) -> None:
    put(tmp_path, ("train/images/a.jpg", "train/masks/a.png"), ("val/images/b.jpg", ""))
    put(tmp_path, ("", "train/masks/b.png"))
    data = opened(tmp_path)
    assert list(data.ids) == ["train/images/a.jpg"]
    assert data.unlabelled == ("val/images/b.jpg",)


def test_two_masks_for_an_image(tmp_path: Path) -> None:
    for i in "abc":
        put(tmp_path, (f"{i}.jpg", f"{i}_1stHO.png"), ("", f"{i}_2ndHO.png"))
    with pytest.raises(
        DataError, match=r"a\.jpg has the masks a_1stHO\.png and a_2ndHO\.png; keep"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["with_mask/1.png", "without_mask/2.png"],
        ["cat/1.png", "dog/1.png"],
        ["images/1.png"],
        ["masks/1.png"],
        ["images/1.png", "masks/2.png"],
        ["1.png", "2.png"],
        ["face/1.png", "mask/1.png"],
    ],
)
def test_other_folders_are_passed_over(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        put_image(tmp_path / name, (30, 40))
    assert detect_mask_folder(Folder(tmp_path)) is None


def test_one_name_among_many_makes_no_masks(tmp_path: Path) -> None:
    """Classes of icons, one of them saved as a copy whose name ends like a mask's."""
    for number in range(6):
        put_mask(tmp_path / "a" / f"{number}.png", MASK)
        put_mask(tmp_path / "b" / f"{number}.png", MASK)
    put_mask(tmp_path / "a" / "3_l.png", MASK)
    assert detect_mask_folder(Folder(tmp_path)) is None
    assert open_labelled(str(tmp_path)).classes == ("a", "b")
    assert open_labelled(str(tmp_path), task="classify").classes == ("a", "b")


def test_photographs_of_a_class_named_mask(tmp_path: Path) -> None:
    for number in range(3):
        put_image(tmp_path / "mask" / f"{number}.png", (40, 50))
        put_image(tmp_path / "bare" / f"{number}.png", (40, 50))
    (tmp_path / "classes.txt").write_text("bare\nmask\n")
    assert open_labelled(str(tmp_path)).classes == ("bare", "mask")


def test_real_folders(shared_data: Path) -> None:
    data = open_labelled(str(shared_data / "roads"))
    assert isinstance(data, MaskFiles)
    assert (len(data), data.classes) == (76, ("foreground",))
    assert data.format == "image and mask folders"
    target = data.read(5).target
    assert target is not None
    with pytest.raises(DataError, match=r"1stHO\.png and Image_01L_2ndHO\.png; keep one an image"):
        open_labelled(str(shared_data / "chase_db1"))
