from __future__ import annotations

from pathlib import Path

import pytest

from boxed import SCENES, Scene, put_image
from vitrail.data.boxes import BoxFiles
from vitrail.data.boxes_csv import detect_boxes_csv, open_boxes_csv
from vitrail.data.open import open_labelled, open_source
from vitrail.data.storage import Folder
from vitrail.errors import DataError
from vitrail.types import Box, Boxes


def table(root: Path, text: str, name: str = "boxes.csv") -> BoxFiles:
    for scene in SCENES:
        if not (root / scene.file).exists():
            put_image(root / scene.file, scene)
    (root / name).write_text(text)
    data = open_boxes_csv(root / name)
    assert data is not None
    return data


ROWS = "one.png,1,2,30,40,cat\ntwo.png,,,,,\none.png,2,2,9.5,9,dog\n"


@pytest.mark.parametrize(
    "text",
    [
        f"path,x1,y1,x2,y2,label\n{ROWS}",
        f"filename,xmin,ymin,xmax,ymax,class\n{ROWS}",
        ROWS,
        f"Image;Left;Top;Right;Bottom;Category\n{ROWS}".replace(",", ";"),
        "width,height,label,path,x2,y2,x1,y1\n60,40,cat,one.png,30,40,1,2\n21,33,,two.png,,,,\n"
        "60,40,dog,one.png,9.5,9,2,2\n",
    ],
)
def test_columns(tmp_path: Path, text: str) -> None:
    data = table(tmp_path, text)
    assert list(data.ids) == ["one.png", "two.png"]
    assert data.classes == ("cat", "dog")
    assert data.targets == [
        Boxes((Box((1.0, 2.0, 30.0, 40.0), 0), Box((2.0, 2.0, 9.5, 9.0), 1)), (40, 60)),
        Boxes((), (33, 21)),
    ]
    assert data.unlabelled == ("empty.png", "four.png")


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f"one.png,1,2,{number},4,{number}\n" for number in (10, 9, 30))
    assert table(tmp_path, rows).classes == ("9", "10", "30")


def test_splits_in_a_column(tmp_path: Path) -> None:
    header = "path,x1,y1,x2,y2,label,split\n"
    data = table(tmp_path, f"{header}one.png,1,2,3,4,cat,train\ntwo.png,1,2,3,4,cat,Valid\n")
    assert data.published == {"train": [0], "val": [1]}
    assert table(tmp_path, "one.png,1,2,3,4,cat,train\n").published == {"train": [0]}
    with pytest.raises(DataError, match="row 3 has the split 'some'"):
        table(tmp_path, f"{header}one.png,1,2,3,4,cat,train\ntwo.png,1,2,3,4,cat,some\n")
    with pytest.raises(DataError, match=r"row 3 puts 'one\.png' into val, a row above into train"):
        table(tmp_path, f"{header}one.png,1,2,3,4,cat,train\none.png,1,2,9,4,cat,val\n")


def test_tables_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        table(
            tmp_path / split,
            f"filename,class,xmin,ymin,xmax,ymax\none.png,{split},1,2,3,4\n",
            "_a.csv",
        )
    data = detect_boxes_csv(Folder(tmp_path))
    assert data is not None
    assert data.published == {"train": [0], "val": [1]}
    assert list(data.ids) == ["train/one.png", "valid/one.png"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("one.png,5,2,5,4,cat", "row 2: the box of 'cat' is empty (5, 2, 5, 4)"),
        ("one.png,5,2,3,4,cat", "row 2: the box of 'cat' is inverted"),
        ("one.png,5,x,8,4,cat", "no finite number"),
        ("one.png,5,,8,4,cat", "no finite number"),
        ("one.png,60,2,70,4,cat", "lies outside the image of 60 x 40 pixels"),
        ("one.png,1,2,3,4,", "row 2: without a label"),
    ],
)
def test_bad_rows_are_left_out_and_listed(tmp_path: Path, row: str, reason: str) -> None:
    data = table(tmp_path, f"path,x1,y1,x2,y2,label\n{row}\ntwo.png,1,2,3,4,dog\n")
    (label,) = data.dropped
    assert label.id == "one.png"
    assert label.reason.startswith("boxes.csv, ")
    assert reason in label.reason


@pytest.mark.parametrize(
    ("row", "message"),
    [("one.png,1,2,3", "row 3 is incomplete"), (",1,2,3,4,cat", "row 3 has no path")],
)
def test_wrong_tables(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path, f"path,x1,y1,x2,y2,label\none.png,1,2,3,4,cat\n{row}\n")
    assert "boxes.csv" in str(caught.value)


def test_which_table_it_is(tmp_path: Path) -> None:
    for number in range(12):
        put_image(tmp_path / f"{number}.png", Scene(f"{number}", (9, 9), []))
    text = "".join(f"{n}.png,{'cat' if n % 2 else 'dog'}\n" for n in range(12))
    (tmp_path / "labels.csv").write_text(f"path,label\n{text}")
    assert detect_boxes_csv(Folder(tmp_path)) is None
    assert open_source(str(tmp_path)).format == "csv"
    assert open_source(str(tmp_path / "labels.csv")).format == "csv"
    boxes = "".join(f"{n}.png,1,2,8,9,cat\n" for n in range(12))
    (tmp_path / "labels.csv").write_text(f"path,x1,y1,x2,y2,label\n{boxes}")
    for data in (tmp_path, tmp_path / "labels.csv"):
        source = open_source(str(data))
        assert source.format == "csv of boxes"
        assert sum(map(len, source.splits.values())) == 12
    (tmp_path / "prices.csv").write_text("path,x1,y1,x2,y2,label\nnone.png,1,2,3,4,cat\n")
    assert len(open_labelled(str(tmp_path))) == 12, "its images are elsewhere"


def test_one_image_under_two_names(tmp_path: Path) -> None:
    rows = "./one.png,1,2,3,4,a\n.\\one.png,1,2,3,4,a\n"
    with pytest.raises(DataError, match=r"path 'one\.png' in two ways; write it in one"):
        table(tmp_path, f"path,x1,y1,x2,y2,label\n{rows}")
