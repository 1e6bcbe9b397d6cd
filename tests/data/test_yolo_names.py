from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.data.storage import Folder
from vitrail.data.yolo_names import Sheet, find_sheets, read_list, read_yaml
from vitrail.errors import DataError


def sheet(folder: Path, text: str) -> Sheet | None:
    (folder / "data.yaml").write_text(text)
    return read_yaml(Folder(folder), "data.yaml")


def test_names_are_text_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    found = sheet(tmp_path, "names: [no, on, 1, 0x10, null, '2024-01-01']\n")
    assert found is not None
    assert list(found.names.values()) == ["no", "on", "1", "0x10", "null", "2024-01-01"]


def test_numbers_with_gaps_in_any_order(tmp_path: Path) -> None:
    found = sheet(tmp_path, "names:\n  7: dog\n  3: ' cat '\nval: v\npath: /data/x\n")
    assert found == Sheet("data.yaml", {3: "cat", 7: "dog"}, {"val": ["v"]}, "/data/x")
    assert list(found.names) == [3, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat, cat]", "classes 0 and 1 are both 'cat'"),
        ("names: {0: cat, 0: dog}", "'names' has number 0 twice"),
        ("names: {a: cat}", "'names' has the number 'a'"),
        ("names: {-1: cat}", "'names' has the number '-1'"),
        ("names: [cat, '']", "class 1 has no name"),
        ("names: [cat, [dog]]", "class 1 has no name"),
        ("names: []", "names no class"),
        ("names: cat", "'names' is neither a list"),
        ("nc: 3\nnames: [cat]", "'nc' says 3 classes, 'names' has 1"),
    ],
)
def test_contradictions(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        sheet(tmp_path, text)
    assert str(caught.value).startswith("data.yaml: ")


@pytest.mark.parametrize(
    "text",
    ["", "epochs: 3", "- names", "names: [cat", "\t", "names: *gone", "[" * 600, "\x00"],
)
def test_other_files(tmp_path: Path, text: str) -> None:
    assert sheet(tmp_path, text) is None


def test_nothing_is_built_and_nothing_grows(tmp_path: Path) -> None:
    made = tmp_path / "made"
    found = sheet(tmp_path, f"names: [cat]\nx: !!python/object/apply:os.mkdir ['{made}']\n")
    assert found is not None
    assert not made.exists()
    levels = "".join(
        f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'ha'}]\n" for n in range(12)
    )
    assert sheet(tmp_path, f"{levels}names: [cat]\nloop: &loop [*loop]\n") == found


def test_a_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\r\nKäfer\r\n\r\n".encode())
    storage = Folder(tmp_path)
    assert read_list(storage, "classes.txt").names == {0: "cat", 1: "Käfer"}
    assert [found.path for found in find_sheets(storage)] == ["classes.txt"]
    (tmp_path / "classes.txt").write_bytes(b"cat\n\ndog\n")
    with pytest.raises(DataError, match="class 1 has no name"):
        read_list(storage, "classes.txt")
    (tmp_path / "classes.txt").write_bytes("Käfer".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_list(storage, "classes.txt")
