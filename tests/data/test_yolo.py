from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from boxed import SCENES, Objects, Scene, farthest, ids_of, named, put_image, write_yolo
from vitrail.data.boxes import BoxFiles
from vitrail.data.open import open_labelled
from vitrail.data.storage import Folder
from vitrail.data.yolo import detect_yolo
from vitrail.errors import DataError
from vitrail.types import Boxes

IDS = ids_of(("cat", "dog", "ant hill"), "from 0")
TRUTH: dict[str, Objects] = {scene.file: sorted(scene.objects) for scene in SCENES}


def opened(root: Path) -> BoxFiles:
    data = detect_yolo(Folder(root))
    assert data is not None
    return data


def tiny(root: Path) -> Path:
    write_yolo(root, SCENES, IDS)
    return root


def rows(root: Path, text: str, stem: str = "one") -> BoxFiles:
    tiny(root)
    (root / "labels" / f"{stem}.txt").write_text(text)
    return opened(root)


def boxes(data: BoxFiles, stem: str = "one") -> Boxes:
    target = data.targets[[Path(name).stem for name in data.ids].index(stem)]
    assert isinstance(target, Boxes)
    return target


@pytest.mark.parametrize("name", ["classes.txt", "labels/classes.txt", "obj.names"])
def test_a_list_of_names(tmp_path: Path, name: str) -> None:
    root = tiny(tmp_path)
    (root / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"nothing that names their classes; add a classes\.txt"):
        opened(root)
    (root / name).write_text("cat\r\ndog\r\nant hill\r\n\r\n")
    data = opened(root)
    assert farthest(named(data), TRUTH) < 1e-3
    assert data.category_ids == (0, 1, 2)


def test_labels_beside_the_images(tmp_path: Path) -> None:
    """As LabelImg writes them."""
    root = tiny(tmp_path)
    for file in (root / "labels").iterdir():
        file.rename(root / "images" / file.name)
    (root / "images").rename(root / "photos")
    assert farthest(named(opened(root)), TRUTH) < 1e-3


def test_outlines_count_with_the_box_around_them(tmp_path: Path) -> None:
    data = rows(tmp_path, "0 0.1 0.5 0.2 0.25 0.5 0.75\n1 0.5 0.5 0.2 0.2\n")
    assert [box.corners for box in boxes(data).items] == [
        pytest.approx((6, 10, 30, 30)),
        pytest.approx((24, 16, 36, 24)),
    ]
    assert "of 1 outlines the boxes around them" in data.reason


def test_points_behind_the_box(tmp_path: Path) -> None:
    tiny(tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("kpt_shape: [1, 2]\n")
    (tmp_path / "labels" / "one.txt").write_text("1 0.5 0.5 0.2 0.2 0.9 0.9\n")
    data = opened(tmp_path)
    assert boxes(data).items[0].corners == pytest.approx((24, 16, 36, 24))
    assert "outline" not in data.reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 0 0.2", "the box of 'cat' is empty"),
        ("0 0.5 0.5 -0.1 0.2", "the box of 'cat' is inverted"),
        ("0 nan 0.5 0.1 0.2", "no finite number"),
        ("0 nan 0.5 0.1 0.2 0.3 0.4", "no finite number"),
        ("0 320 240 100 50", "lies outside"),
        ("0 0.5 0.5 0.1", "4 numbers; a row has a class and 4"),
        ("0 0.5 0.5 0.1 0.2 0.9", "6 numbers; a row has a class and 4"),
        ("cat 0.5 0.5 0.1 0.2", "is no row of numbers"),
        ("0.5 0.5 0.5 0.1 0.2", "the class 0.5 is no whole number"),
        ("-1 0.5 0.5 0.1 0.2", "the class -1 is no whole number"),
    ],
)
def test_bad_rows_are_left_out_and_listed(tmp_path: Path, row: str, reason: str) -> None:
    data = rows(tmp_path, f"\n{row}\n1 0.5 0.5 0.2 0.2\n")
    assert len(boxes(data).items) == 1
    (label,) = data.dropped
    assert label.id == "images/one.png"
    assert label.reason.startswith("labels/one.txt, line 2: ")
    assert reason in label.reason


def test_a_class_that_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, "0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.2 0.2\n")
    assert str(caught.value) == (
        f"{tmp_path}/labels/one.txt: line 2 has class 3, but data.yaml names 3 classes (0 to 2); "
        "correct one of them"
    )


def test_images_without_labels_and_labels_without_images(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    (root / "labels" / "two.txt").unlink()
    (root / "labels" / "gone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    put_image(root / "logo.png", SCENES[0])
    data = opened(root)
    assert boxes(data, "two") == Boxes((), (33, 21))
    assert data.unlabelled == ("images/two.png",)
    assert [label.id for label in data.unmatched] == ["labels/gone.txt"]
    assert "logo.png" not in data.ids


def test_turned_photographs(tmp_path: Path) -> None:
    """Shares are of the upright image, as every viewer shows it."""
    root = tiny(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(root / "images" / "one.jpg", exif=exif)
    (root / "images" / "one.png").unlink()
    (root / "labels" / "one.txt").write_text("0 0.25 0.5 0.5 1\n")
    data = opened(root)
    assert boxes(data) == Boxes(boxes(data).items, (60, 40))
    assert boxes(data).items[0].corners == (0, 0, 20, 60)
    sample = data.read([Path(name).stem for name in data.ids].index("one"))
    assert sample.target == boxes(data)


SCENE = Scene("1.png", (20, 30), [("cat", (3, 4, 12, 16))])


def published(root: Path, train: str, val: str) -> None:
    for folder in (train, val):
        labels = Path(*("labels" if part == "images" else part for part in Path(folder).parts))
        write_yolo(root / "made", [SCENE], {"cat": 0})
        for source, place in (("images/1.png", folder), ("labels/1.txt", labels)):
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / "made" / source).rename(root / place / Path(source).name)
        for path in ("images", "labels"):
            (root / "made" / path).rmdir()
        (root / "made" / "data.yaml").unlink()


@pytest.mark.parametrize(
    "text",
    [
        "names: [cat]\n",
        "path: .\ntrain: images/train\nval: images/val\nnames: [cat]\n",
        "path: ../data/cats  # elsewhere\ntrain: images/train\nval: images/val/\nnames:\n  0: cat",
        "train: ../images/train\nval: ../images/val\nnc: 1\nnames: ['cat']\n",
        "train: [images/train]\nval: [images/val]\nnames: {0: cat}\n",
        "train: train.txt\nval: lists/val.txt\nnames: [cat]\n",
    ],
)
def test_published_splits(tmp_path: Path, text: str) -> None:
    published(tmp_path, "images/train", "images/val")
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "lists").mkdir()
    (tmp_path / "train.txt").write_text("./images/train/1.png\n")
    (tmp_path / "lists" / "val.txt").write_text("/home/me/images/val/1.png\n")
    for data in (opened(tmp_path), open_labelled(str(tmp_path / "data.yaml"))):
        assert isinstance(data, BoxFiles)
        assert list(data.ids) == ["images/train/1.png", "images/val/1.png"]
        assert data.published == {"train": [0], "val": [1]}
        assert data.targets == [boxes(data, "1")] * 2
        assert boxes(data, "1").items[0].corners == pytest.approx((3, 4, 12, 16))


def test_split_folders_above(tmp_path: Path) -> None:
    published(tmp_path, "train/images", "valid/images")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: [cat]\n"
    )
    assert opened(tmp_path).published == {"train": [0], "val": [1]}
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        for name in ("train", "valid", "data.yaml"):
            archive.add(tmp_path / name, f"top/{name}")
    packed = open_labelled(str(tmp_path / "data.tar"))
    assert list(packed.ids) == ["top/train/images/1.png", "top/valid/images/1.png"]


def test_text_beside_images_is_no_label(tmp_path: Path) -> None:
    for folder in ("cat", "dog"):
        for number in range(4):
            put_image(tmp_path / folder / f"{number}.png", Scene(f"{folder}{number}", (8, 8), []))
            (tmp_path / folder / f"{number}.txt").write_text("a photo of a pet\n")
    assert detect_yolo(Folder(tmp_path)) is None
    assert open_labelled(str(tmp_path)).classes == ("cat", "dog")


def test_which_file_names_the_classes(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    (root / "other.yaml").write_text("names: [a, b, c]\n")
    (root / "settings.yaml").write_text("epochs: 3\n")
    with pytest.raises(DataError, match=r"data\.yaml and other\.yaml could both name the classes"):
        opened(root)
    assert open_labelled(str(root / "other.yaml")).classes == ("a", "b", "c")
    with pytest.raises(DataError, match=r"settings\.yaml: no key 'names'; write names"):
        open_labelled(str(root / "settings.yaml"))
    for file in (root / "labels").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no label files for 0 images"):
        open_labelled(str(root / "data.yaml"))


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        (b"names:\n\t0: a\n", r"data\.yaml: not YAML \(.*line 2"),
        ("names: [gr\u00f6\u00dfe]\n".encode("latin-1"), r"data\.yaml: not UTF-8 text"),
        (b"nc: 3\n", r"data\.yaml: no key 'names'"),
        (
            b"path: /far/away\ntrain: train2\nnames: [a, b, c]\n",
            r"no images where it says \(train: train2, path: /far/away\); write folders",
        ),
        (
            b"train: images\nval: images\nnames: [a, b, c]\n",
            r"'images/empty\.png' is in train and in val; give each image one split",
        ),
    ],
)
def test_a_sheet_that_does_not_fit_says_why(tmp_path: Path, sheet: bytes, message: str) -> None:
    (tiny(tmp_path) / "data.yaml").write_bytes(sheet)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    sheet = "train: .\\images\nval: C:\\far\\away\nnames: [a, b, c]\n"
    (tiny(tmp_path) / "data.yaml").write_text(sheet)
    data = opened(tmp_path)
    assert list(data.published) == ["train"], "backslashes are separators"
    assert "; no images where it says val: C:\\far\\away" in data.reason
