from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from vitrail.data.open import open_images
from vitrail.errors import BadSampleError, DataError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "photos/b.png", "photos/deep/c.png", "photos/odd.xyz", "photos/noend"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / name, "PNG")
    for name in ("photos/notes.txt", "photos/.hidden.png", "photos/labels.csv"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


FOLDER = ["photos/b.png", "photos/deep/c.png", "photos/noend", "photos/odd.xyz"]


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        (["a.png"], ["a.png"]),
        (["photos"], FOLDER),
        (["photos/"], FOLDER),
        (["./photos"], FOLDER),
        (["photos/*.png"], ["photos/b.png"]),
        (["photos/**/*.png"], ["photos/b.png", "photos/deep/c.png"]),
        (["**/c.*", "a.png"], ["photos/deep/c.png", "a.png"]),
        (["photos/d*"], ["photos/deep/c.png"]),
        (["a.png", "photos/b.png", "photos", "a.png"], ["a.png", *FOLDER]),
        (["photos/notes.txt"], ["photos/notes.txt"]),
    ],
)
def test_patterns(patterns: list[str], ids: list[str]) -> None:
    data = open_images(patterns)
    assert data.ids == ids
    assert data.targets == [None] * len(ids)
    assert data.classes == ()
    folder_given = any(pattern.strip("./") == "photos" for pattern in patterns)
    assert data.ignored == (2 if folder_given else 0)


def test_read(here: Path) -> None:
    data = open_images(["a.png", str(here / "photos" / "odd.xyz"), "photos/notes.txt"])
    assert data.read(0).image.shape == (3, 2, 3)
    assert data.read(1).id == str(here / "photos" / "odd.xyz")
    assert data.read(1).target is None
    with pytest.raises(BadSampleError, match="empty"):
        data.read(2)


def test_names_with_magic_letters(here: Path) -> None:
    (here / "a.png").rename(here / "[a].png")
    assert open_images(["[a].png"]).ids == ["[a].png"]


def test_archives(here: Path) -> None:
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.write("photos/b.png", "x/b.png")
        archive.write("photos/notes.txt", "x/notes.txt")
    data = open_images(["all.zip"])
    assert data.ids == ["all.zip/x/b.png"]
    assert data.ignored == 1
    assert data.read(0).image.shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["a.pnj"], "a.pnj: no such file or folder; did you mean 'a.png'"),
        (["*.gif"], r"\*\.gif: no images found"),
        (["a.png", "*.gif"], r"\*\.gif: no images found"),
        (["empty"], "empty: no images found"),
        (["broken.zip"], "archive is damaged"),
        ([], "no images given"),
    ],
)
def test_nothing_found(here: Path, patterns: list[str], message: str) -> None:
    (here / "empty").mkdir()
    (here / "broken.zip").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=message) as caught:
        open_images(patterns)
    assert "\n" not in str(caught.value)


def test_the_hostile_folder_is_listed_whole(shared_data: Path) -> None:
    folder = shared_data / "hostile"
    data = open_images([str(folder)])
    with (folder / "manifest.csv").open(newline="") as file:
        wanted = {str(folder / row["file"]) for row in csv.DictReader(file)}
    assert len(wanted) > 900
    assert wanted <= set(data.ids)
    assert len(data) + data.ignored == sum(path.is_file() for path in folder.rglob("*"))
