from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.data.mask_classes import class_files, named
from vitrail.data.storage import Folder
from vitrail.errors import DataError
from vitrail.types import VOID

CAMVID = "64 128 64\tAnimal\n192 0 128\t\tArchway\n0 0 0\tVoid\n"
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nArchway:192,0,128::\n"
TABLE = "name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\n"
NUMBERED = "id,name,r,g,b\n0,background,0,0,0\n1,Lane 2,192,0,128\n"


@pytest.mark.parametrize(
    ("file", "text", "colours"),
    [
        ("label_colors.txt", CAMVID, {0x408040: "Animal", 0xC00080: "Archway", 0: "Void"}),
        ("labelmap.txt", CVAT, {0: "background", 0xC00080: "Archway"}),
        ("class_dict.csv", TABLE, {0x408040: "Animal", 0xC00080: "Archway"}),
        ("palette.csv", NUMBERED, {0: "background", 0xC00080: "Lane 2"}),
        ("palette.json", '{"a": [1, 2, 3]}', {0x010203: "a"}),
        ("palette.json", '[{"name": "a", "color": [1, 2, 3]}]', {0x010203: "a"}),
    ],
)
def test_palettes(tmp_path: Path, file: str, text: str, colours: dict[int, str]) -> None:
    (tmp_path / file).write_text(text)
    (found,) = class_files(Folder(tmp_path))
    assert dict(found.colours) == colours
    assert dict(found.names) == dict(enumerate(colours.values()))


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("classes.txt", "a\nb\n", {0: "a", 1: "b"}),
        ("classes.json", '["a", "b"]', {0: "a", 1: "b"}),
        ("classes.json", '{"3": "a", "5": "b"}', {3: "a", 5: "b"}),
        ("classes.json", '{"a": 3, "b": 5}', {3: "a", 5: "b"}),
        ("data.yaml", "names: [a, b]", {0: "a", 1: "b"}),
        ("data.yaml", "classes:\n  0: no\n  9: b", {0: "no", 9: "b"}),
        ("sub/data.yml", "names:\n  2: a", {2: "a"}),
    ],
)
def test_names(tmp_path: Path, file: str, text: str, names: dict[int, str]) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    (found,) = class_files(Folder(tmp_path))
    assert dict(found.names) == names
    assert not found.colours


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a 1 2 3")
    (tmp_path / "data.yaml").write_text("path: here")
    assert class_files(Folder(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("palette.csv", "", "no colour; write a name and red, green, blue"),
        ("palette.csv", "name,r,g,b\na,1,2\n", r"line 2 is 'a,1,2'; write a name"),
        ("palette.csv", "a,1,2,300\n", r"line 1 has the colour \(1, 2, 300\)"),
        ("palette.csv", "a,1,2,3\nb,1,2,3\n", r"\(1, 2, 3\) is 'a' and 'b'; give each"),
        ("palette.json", "{", "not JSON"),
        ("palette.json", '{"a": 1}', "'a' without a name or colour"),
        ("palette.json", '{"a": [1, 2]}', r"'a' has the colour \(1, 2\)"),
        ("classes.json", '{"a": "b"}', "no classes; write a list of names"),
        ("classes.json", '["a", "a"]', "two values are 'a'"),
        ("classes.json", "[]", "no classes"),
        ("classes.txt", "a\na", "are both 'a'"),
        ("data.yaml", "classes: {x: a}", "'classes' has the number 'x'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        class_files(Folder(tmp_path))
    assert file in str(caught.value)


def test_a_palette_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "palette.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="save it as UTF-8"):
        class_files(Folder(tmp_path))


def test_what_names_mean() -> None:
    found = named({0: "Background", 3: "road", 4: "Ignore", 5: "river", 8: "road"})
    assert found.classes == ("road", "river")
    assert found.values == (3, 5)
    assert dict(found.meaning) == {0: None, 3: 0, 4: VOID, 5: 1, 8: 0}
    assert found.background
    assert not named({1: "road"}).background
