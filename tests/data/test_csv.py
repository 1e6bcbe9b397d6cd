from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitrail.data.csv import CsvDataset
from vitrail.data.storage import Folder
from vitrail.errors import BadSampleError, DataError


def table(folder: Path, text: str, *, encoding: str = "utf-8") -> CsvDataset:
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return CsvDataset.open(path)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.jpg,cat\nb.jpg,ant\n",
        "number,Image,weather,CLASS\n1,a.jpg,rain,cat\n2,b.jpg,sun,ant\n",
        "label,filename\ncat,a.jpg\nant,b.jpg\n",
        "what,which\na.jpg,cat\nb.jpg,ant\n",
        "a.jpg,cat\nb.jpg,ant",
        "path;label\r\na.jpg;cat\r\nb.jpg;ant\r\n",
        "path\tlabel\na.jpg\tcat\n\nb.jpg\tant\n",
        '"path","label"\n"a.jpg"," cat "\n"b.jpg","ant"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_and_delimiters(tmp_path: Path, text: str, encoding: str) -> None:
    data = table(tmp_path, text, encoding=encoding)
    assert data.ids == ["a.jpg", "b.jpg"]
    assert data.classes == ("ant", "cat")
    assert data.targets == [1, 0]
    assert not data.multilabel
    assert data.published == {}


def test_several_labels(tmp_path: Path) -> None:
    data = table(tmp_path, "path,labels\na.jpg,dog; cat\nb.jpg,\nc.jpg,cat\nd.jpg,cat;cat\n")
    assert data.multilabel
    assert data.classes == ("cat", "dog")
    assert data.targets == [(0, 1), (), (0,), (0,)]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,{number}\n" for number in (10, 9, 1))
    assert table(tmp_path, f"path,label\n{rows}").classes == ("1", "9", "10")


@pytest.mark.parametrize("column", ["text", "Transcription", "transcript"])
def test_texts(tmp_path: Path, column: str) -> None:
    # The last e and its accent are two characters, until they are composed.
    rows = 'a.png,40;7\nb.png," caf\u00e9 4 "\nc.png,"0,7"\nd.png,cafe\u0301\n'
    data = table(tmp_path, f"path,{column}\n{rows}")
    assert data.text
    assert not data.multilabel
    assert data.targets == ["40;7", "café 4", "0,7", "café"]
    assert data.classes == tuple(" ,047;acfé")
    assert data.published == {}


def test_a_label_goes_before_a_text(tmp_path: Path) -> None:
    data = table(tmp_path, "path,text,label\na.jpg,a small cat,cat\nb.jpg,an ant,ant\n")
    assert not data.text
    assert data.classes == ("ant", "cat")
    assert not table(tmp_path, "path,label\na.jpg,text\nb.jpg,b\n").text


def test_split_column(tmp_path: Path) -> None:
    text = "path,label,split\na.jpg,x,train\nb.jpg,y,VAL\nc.jpg,y,test\nd.jpg,x,train\n"
    assert table(tmp_path, text).published == {"train": [0, 3], "val": [1], "test": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no two columns"),
        ("path,label\n", "no rows"),
        ("path\na.jpg\n", "no two columns"),
        ("path,label\na.jpg,cat\nb.jpg,\n", "row 3 has no label"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,other\n", "row 3 has the split 'other'"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog\n", "row 3 is incomplete"),
        ("path,label\n,cat\n", "row 2 is incomplete"),
        ('path,label\n"a.jpg,cat\n', "not a CSV"),
        ("path,text\na.jpg,4\nb.jpg, \n", "row 3 has no text"),
    ],
)
def test_wrong_tables_name_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path, text)
    assert "labels.csv" in str(caught.value)


def test_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-8"):
        table(tmp_path, "path,label\na.jpg,Käfer\n", encoding="latin-1")


def test_read_relative_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (3, 2), 7).save(tmp_path / "images" / "a.png")
    data = table(tmp_path, "path,label\nimages\\a.png,x\nimages/none.png,y\n")
    sample = data.read(0)
    assert sample.id == "images/a.png"
    assert sample.image.shape == (3, 2, 3)
    with pytest.raises(BadSampleError, match="missing"):
        data.read(1)


def test_detection_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"")
    assert CsvDataset.detect(Folder(tmp_path)) is None
    (tmp_path / "prices.csv").write_text("path,label\nnone.jpg,x\n")
    (tmp_path / "licences.csv").write_text("file,licence\nimages/a.jpg,x\nimages/b.jpg,x\n")
    assert CsvDataset.detect(Folder(tmp_path)) is None
    text = "path,label\nimages/a.jpg,x\nimages/b.jpg,y\nimages/gone.jpg,y\n"
    (tmp_path / "labels.csv").write_text(text)
    data = CsvDataset.detect(Folder(tmp_path))
    assert data is not None
    assert len(data) == 3
    (tmp_path / "labels.csv").write_text(text.replace("label", "text"))
    data = CsvDataset.detect(Folder(tmp_path))
    assert data is not None
    assert data.text
    (tmp_path / "more.csv").write_text(text)
    with pytest.raises(DataError, match=r"labels\.csv and more\.csv could both"):
        CsvDataset.detect(Folder(tmp_path))
