from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mask_formats import put_image, put_mask, write_csv
from vitrail.data.mask_csv import detect_mask_csv, open_mask_csv
from vitrail.data.open import open_labelled, open_source
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Folder
from vitrail.errors import BadSampleError, DataError


def put(root: Path, text: str) -> Path:
    for number in range(4):
        put_image(root / f"{number}.png", (8, 9))
        put_mask(root / f"{number}_m.png", np.eye(8, 9, dtype=np.uint8))
    (root / "sub").mkdir(exist_ok=True)
    (root / "sub" / "table.csv").write_text(text)
    return root / "sub" / "table.csv"


def test_splits_and_places(tmp_path: Path) -> None:
    rows = "".join(
        f"../{i}.png\t../{i}_m.png\t{s}\n" for i, s in enumerate(("train", "val", "test"))
    )
    table = put(tmp_path, f"Image\tMask\tSubset\n{rows}")
    data = open_labelled(str(table))
    assert isinstance(data, MaskFiles)
    assert data.published == {"train": [0], "val": [1], "test": [2]}
    assert data.format == "csv of masks"
    assert data.reason.startswith("table.csv with columns for path and mask: 3 masks: binary")
    assert data.read(2).target is not None
    assert open_source(str(table)).published == ("train", "val", "test")


def test_one_table_of_a_folder(tmp_path: Path) -> None:
    write_csv(tmp_path)
    data = detect_mask_csv(Folder(tmp_path))
    assert data is not None
    assert data.ids[0] == "a/one.png"
    (tmp_path / "more.csv").write_text("path,mask\na/one.png,b/0.png\n")
    with pytest.raises(DataError, match=r"more\.csv and table\.csv could both say"):
        detect_mask_csv(Folder(tmp_path))


def test_other_tables(tmp_path: Path) -> None:
    table = put(tmp_path, "path,label\n../0.png,a\n../1.png,b\n")
    assert open_mask_csv(table) is None
    assert detect_mask_csv(Folder(tmp_path)) is None
    assert open_labelled(str(table)).classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,mask\n../0.png,\n", "row 2 is incomplete; give it a path and a mask"),
        ("path,mask,split\n../0.png,../0_m.png,some\n", "row 2 has the split 'some'"),
        ("path,mask\n../0.png,../0_m.png\n../0.png,../1_m.png\n", "row 3 has '../0.png' again"),
        ("path,mask\n", "no rows; write one 'path,mask' a line"),
        ("path,mask\n../0.png,../no.png\n", "no mask can be read: ../no.png the file is missing"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        open_mask_csv(put(tmp_path, text))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    rows = "../0.png,../0_m.png\n../no.png,../1_m.png\n../2.png,../no_m.png\n"
    data = open_labelled(str(put(tmp_path, f"path,mask\n{rows}")))
    assert data.read(0).target is not None
    with pytest.raises(BadSampleError, match="the file is missing"):
        data.read(1)
    with pytest.raises(BadSampleError, match=r"the mask \.\./no_m\.png: the file is missing"):
        data.read(2)


def test_two_annotators_by_a_table(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "chase_db1"
    names = sorted(path.stem for path in folder.glob("*.jpg"))
    rows = [
        f"{folder}/{name}.jpg,{folder}/{name}_1stHO.png,{'train' if place < 20 else 'test'}\n"
        for place, name in enumerate(names)
    ]
    (tmp_path / "first.csv").write_text(f"path,mask,split\n{''.join(rows)}")
    data = open_labelled(str(tmp_path / "first.csv"))
    assert isinstance(data, MaskFiles)
    assert {name: len(part) for name, part in data.published.items()} == {"train": 20, "test": 8}
    assert data.draw(27).size == (960, 999)


def test_a_damaged_table_is_not_passed_over(tmp_path: Path) -> None:
    """Else the folders beside it would be paired by name."""
    file = put(tmp_path, "path,mask\n../0.png,../0_m.png\n../1.png\n")
    with pytest.raises(DataError, match=r"table\.csv: no two columns found"):
        open_mask_csv(file)
    with pytest.raises(DataError, match=r"table\.csv: no two columns found"):
        detect_mask_csv(Folder(tmp_path))
