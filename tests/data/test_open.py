from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_formats import SCENES, write_indices
from vitrail.data.dataset import Subset
from vitrail.data.open import fingerprint, open_labelled, open_source
from vitrail.data.recognise import recognise
from vitrail.data.split import duplicate_groups
from vitrail.errors import DataError
from vitrail.types import Boxes, Segments


def photos(root: Path, *folders: str, count: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
            image.save(root / folder / f"{number}.png")
    return root


def sizes(data: str, seed: int = 0) -> dict[str, int]:
    return {name: len(part) for name, part in open_source(data, seed=seed).splits.items()}


def test_a_folder_of_classes_is_cut(tmp_path: Path) -> None:
    source = open_source(str(photos(tmp_path, "cat", "dog")))
    assert source.format == "folder of classes"
    assert source.reason == "2 class folders (cat, dog) that hold images"
    assert list(source.splits) == ["train", "val", "test"]
    assert source.published == ()
    parts = {name: set(part.ids) for name, part in source.splits.items()}
    assert {name: len(ids) for name, ids in parts.items()} == {"train": 14, "val": 2, "test": 4}
    assert len(set.union(*parts.values())) == 20
    assert Counter(source.splits["test"].targets) == {0: 2, 1: 2}
    assert source.splits["val"].classes == ("cat", "dog")
    again = open_source(str(tmp_path), seed=0)
    other = open_source(str(tmp_path), seed=1)
    assert again.splits["test"].ids == source.splits["test"].ids
    assert other.splits["test"].ids != source.splits["test"].ids
    assert again.fingerprint == other.fingerprint == source.fingerprint


def test_published_parts_are_left_alone(tmp_path: Path) -> None:
    photos(tmp_path, "train/a", "train/b", "test/a", "test/b")
    source = open_source(str(tmp_path))
    assert source.format == "folder of classes with splits"
    assert source.published == ("train", "test")
    assert all(name.startswith("test/") for name in source.splits["test"].ids)
    assert sizes(str(tmp_path)) == {"train": 18, "val": 2, "test": 20}
    photos(tmp_path, "val/a", "val/b", count=3)
    assert sizes(str(tmp_path)) == {"train": 20, "val": 6, "test": 20}
    shutil.rmtree(tmp_path / "test")
    assert sizes(str(tmp_path)) == {"train": 16, "val": 6, "test": 4}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_archives_are_read_in_place(tmp_path: Path, kind: str) -> None:
    folder = photos(tmp_path / "data", "x/cat", "x/dog")
    path = tmp_path / f"data.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            archive.add(folder, ".")
    source, plain = open_source(str(path)), open_source(str(folder))
    assert source.fingerprint == plain.fingerprint
    for name, part in source.splits.items():
        assert part.ids == plain.splits[name].ids
        assert (part.read(0).image == plain.splits[name].read(0).image).all()
    assert {path.name for path in tmp_path.iterdir()} == {"data", path.name}


def test_a_table(tmp_path: Path) -> None:
    photos(tmp_path, "images", count=12)
    rows = "".join(f"images/{i}.png,{'a;b' if i % 2 else 'b'}\n" for i in range(12))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    for data in (tmp_path, tmp_path / "labels.csv"):
        source = open_source(str(data))
        assert source.format == "csv"
        assert "several classes" in source.reason
        assert source.splits["train"].multilabel
        assert set(source.splits["train"].targets) == {(0, 1), (1,)}
        assert source.splits["train"].read(0).image.shape == (3, 4, 5)


def test_a_table_of_texts(tmp_path: Path) -> None:
    photos(tmp_path, "images", count=20)
    rows = "".join(f"images/{i}.png,{i * 37 % 100:02}\n" for i in range(20))
    (tmp_path / "texts.csv").write_text(f"path,text\n{rows}")
    source = open_source(str(tmp_path))
    assert source.reason == (
        "holds a CSV of paths and labels; the labels are texts, in an alphabet of 10 symbols"
    )
    assert sum(map(len, source.splits.values())) == 20
    for part in source.splits.values():
        assert len(part) >= 1
        assert part.text
        assert part.classes == tuple("0123456789")
        assert part.read(0).target == part.targets[0]
        assert isinstance(part.targets[0], str)
    # One symbol can be written often or seldom: there is something to learn.
    rows = "".join(f"images/{i}.png,{'1' * (i % 3 + 1)}\n" for i in range(20))
    (tmp_path / "texts.csv").write_text(f"path,text\n{rows}")
    assert open_source(str(tmp_path)).splits["train"].classes == ("1",)
    (tmp_path / "texts.csv").write_text("path,text\nimages/1.png,1\n")
    with pytest.raises(
        DataError, match=r"too few images for a val part; give some more of every symbol$"
    ):
        open_source(str(tmp_path))


def test_strips_are_built_in() -> None:
    source = open_source("strips", seed=5)
    assert source.published == ("train", "val", "test")
    assert {name: len(part) for name, part in source.splits.items()} == {
        "train": 50_000,
        "val": 1_000,
        "test": 2_000,
    }
    assert source.fingerprint == open_source("strips").fingerprint
    long = open_labelled("strips:13-20", split="test")
    assert long.ids[17] == "test/00017"
    assert long.text
    assert min(len(str(target)) for target in long.targets) == 13
    assert len(open_labelled("strips")) == 53_000
    with pytest.raises(DataError, match="strips:20-13: '20-13' is no range"):
        open_source("strips:20-13")


def test_planted_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted").mkdir()
    monkeypatch.chdir(tmp_path)
    source = open_source("planted", seed=5)
    assert (source.format, source.published) == ("built-in", ("train", "val", "test"))
    assert {name: len(part) for name, part in source.splits.items()} == {
        "train": 20_000,
        "val": 1_000,
        "test": 1_000,
    }
    assert source.fingerprint == open_source("planted").fingerprint
    assert open_labelled("planted", split="test").read(3).evidence is not None
    with pytest.raises(DataError, match=r"\./planted: empty"):
        open_source("./planted")


def test_generated_data_with_masks() -> None:
    masked = recognise("shapes", "segment").dataset
    boxed = recognise("shapes").dataset
    assert (masked.segments, masked.boxes, boxed.boxes) == ("instance", False, True)
    assert masked.classes == boxed.classes
    for index in (0, 4_100):
        found, boxes = masked.targets[index], boxed.targets[index]
        assert isinstance(found, Segments)
        assert isinstance(boxes, Boxes)
        assert found.labels == tuple(box.label for box in boxes.items)
        areas = [int((found.ids == number + 1).sum()) for number in range(len(found.labels))]
        assert areas == [box.area for box in boxes.items]
        sample = masked.read(index)
        assert isinstance(sample.target, Segments)
        assert sample.image.equal(boxed.read(index).image)
    assert fingerprint(Subset(masked, range(5))) != fingerprint(Subset(masked, range(1, 6)))
    assert fingerprint(Subset(masked, range(5))) != fingerprint(Subset(boxed, range(5)))
    roads = recognise("roads").dataset
    assert roads.segments == "semantic"
    assert fingerprint(Subset(roads, range(2))) == fingerprint(Subset(roads, range(2)))


def test_masks_are_for_segmentation(tmp_path: Path) -> None:
    write_indices(tmp_path)
    assert open_labelled(str(tmp_path)).segments == "semantic"
    assert open_labelled(str(tmp_path), task="segment").segments == "semantic"
    with pytest.raises(DataError, match="images and their masks, not a class each; leave out"):
        open_labelled(str(tmp_path), task="classify")
    write_indices(tmp_path / "two", SCENES[:2])
    with pytest.raises(DataError, match="for a val part; give some more of every class"):
        open_source(str(tmp_path / "two"))


def test_images_without_masks(tmp_path: Path) -> None:
    photos(tmp_path, "images")
    with pytest.raises(DataError, match="images, but no masks; put these into a folder 'masks'"):
        open_source(str(tmp_path), task="segment")


def test_digits_are_built_in() -> None:
    source = open_source("digits")
    assert source.format == "built-in"
    assert sum(map(len, source.splits.values())) == 1797
    assert len(source.splits["test"]) == 359


def test_no_duplicate_crosses_a_cut(tmp_path: Path) -> None:
    photos(tmp_path, "a", "b", count=20)
    for number in range(10):
        shutil.copy(tmp_path / "a" / f"{number}.png", tmp_path / "a" / f"again{number}.png")
    for seed in range(5):
        homes: dict[bytes, str] = {}
        for name, part in open_source(str(tmp_path), seed=seed).splits.items():
            for index in range(len(part)):
                assert homes.setdefault(part.read_bytes(index), name) == name


def test_labelled(tmp_path: Path) -> None:
    photos(tmp_path / "one", "cats")
    assert open_labelled(str(tmp_path / "one")).classes == ("cats",)
    data = str(photos(tmp_path / "two", "val/a", "val/b", "train/a", "train/b"))
    whole = open_labelled(data)
    assert list(whole.ids) == sorted(whole.ids)
    assert len(whole) == 40
    assert len(open_labelled(data, split="val")) == 20
    for name in ("train", "test"):
        part = open_labelled(data, split=name, seed=3)
        assert part.ids == open_source(data, seed=3).splits[name].ids
    shutil.rmtree(tmp_path / "two" / "train")
    assert len(open_labelled(data, split="val")) == 20, "no train part is needed for that"


def test_the_fingerprint_names_the_data(tmp_path: Path) -> None:
    data = str(photos(tmp_path, "a", "b"))
    before = fingerprint(open_labelled(data))
    assert before == open_source(data, seed=9).fingerprint
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "00.png")
    renamed = fingerprint(open_labelled(data))
    with (tmp_path / "a" / "00.png").open("ab") as file:
        file.write(b"x")
    assert len({before, renamed, fingerprint(open_labelled(data))}) == 3


@pytest.mark.parametrize(
    ("names", "data", "message"),
    [
        (["a/1.jpg"], "flower", "no such file or folder; did you mean 'flowers'"),
        (["a/1.jpg"], "no/such", "no such file or folder"),
        ([], "flowers", "empty"),
        (["a/1.jpg", "a/2.jpg"], "flowers", "only one class \\('a'\\)"),
        (["1.jpg", "2.jpg"], "flowers", "2 images, but no class folders.* and no masks"),
        (["train/1.jpg", "val/2.jpg"], "flowers", "2 images, but no class folders"),
        (["a.txt", "b.pdf"], "flowers", "no images among 2 files"),
        (["val/a/1.jpg", "val/b/1.jpg"], "flowers", "has val, but no train"),
        (["a/1.jpg", "b/1.jpg"], "flowers", "too few images"),
        (["a/1.jpg", "b/1.jpg"], "flowers/a/1.jpg", "single image"),
        (["a.txt"], "flowers/a.txt", "neither a folder nor an archive"),
        (["a.zip"], "flowers/a.zip", "archive is damaged"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, names: list[str], data: str, message: str) -> None:
    (tmp_path / "flowers").mkdir()
    for name in names:
        (tmp_path / "flowers" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flowers" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path / data))
    assert "\n" not in str(caught.value)


def test_fashion_mnist_by_name(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_DATA", str(shared_data))
    source = open_source("fashion-mnist")
    assert source.format == "idx"
    assert source.published == ("train", "test")
    assert source.splits["train"].classes[8] == "Bag"
    assert {name: len(part) for name, part in source.splits.items()} == {
        "train": 54000,
        "val": 6000,
        "test": 10000,
    }


def test_flowers_in_an_archive(shared_data: Path) -> None:
    data = str(shared_data / "flowers-128.tar.xz")
    source = open_source(data)
    assert sum(map(len, source.splits.values())) == 3483
    assert source.splits["train"].classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    whole = open_labelled(data)
    twins = [group for group in duplicate_groups(whole) if len(group) > 1]
    assert len(twins) == 3
    for group in twins:
        homes = {
            name
            for name, part in source.splits.items()
            if {whole.ids[i] for i in group} & set(part.ids)
        }
        assert len(homes) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.json", "", r"only one class \('images'\).*; no boxes .* labels\.json: not JSON"),
        ("labels.json", "[]", r"labels\.json: not COCO"),
        ("boxes.csv", "path,x1,y1,x2,y2,label\nno.png,1,2,3,4,a\n", "names no image that is there"),
        ("boxes.csv", '"', r"boxes\.csv: not a CSV file"),
    ],
)
def test_a_label_file_that_was_passed_over(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"x")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert open_labelled(str(tmp_path)).classes == ("images",), "one class may be measured"
