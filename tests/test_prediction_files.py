from __future__ import annotations

import csv
import errno
import json
import os
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from vitrail.errors import UserError
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers
from vitrail.prediction_files import BOX_COLUMNS, write_predictions
from vitrail.types import Classification, Detection

ROWS = [
    Row("a.png", Classification("cät", 0.75, {"cät": 0.75, "d,og": 0.1 + 0.2})),
    Row("b, c.png", error="truncated\nfile"),
]


def test_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.jsonl"
    assert write_predictions(iter(ROWS), out) == (2, 1)
    first, second = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    assert first == {
        "path": "a.png",
        "label": "cät",
        "score": 0.75,
        "scores": {"cät": 0.75, "d,og": 0.1 + 0.2},
    }
    assert second == {"path": "b, c.png", "error": "truncated\nfile"}


def test_csv(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert write_predictions(ROWS, out) == (2, 1)
    with out.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["path", "label", "score", "error", "score_cät", "score_d,og"]
    assert (first["path"], first["label"], first["error"]) == ("a.png", "cät", "")
    assert float(first["score_d,og"]) == 0.1 + 0.2
    assert (second["path"], second["label"]) == ("b, c.png", "")
    assert second["error"] == "truncated\nfile"


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:]])
def test_parquet(rows: list[Row], tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    write_predictions(rows, out)
    table = parquet.read_table(out)
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    plain = {"path": "string", "label": "string", "score": "double", "error": "string"}
    assert types.items() >= plain.items()
    for row, written in zip(rows, table.to_pylist(), strict=True):
        assert written["path"] == row.path
        assert written["error"] == row.error
        if row.prediction:
            assert written["score_d,og"] == 0.1 + 0.2


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_no_rows(suffix: str, tmp_path: Path) -> None:
    assert write_predictions([], tmp_path / f"rows{suffix}") == (0, 0)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.json"])
def test_an_unknown_suffix_is_refused_before_anything_is_predicted(
    name: str, tmp_path: Path
) -> None:
    def rows() -> object:
        raise AssertionError("was asked")
        yield

    with pytest.raises(UserError, match=r"write predictions as \.jsonl, \.csv, \.parquet"):
        write_predictions(rows(), tmp_path / name)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'vitrail\[parquet\]'"):
        write_predictions(ROWS, tmp_path / "rows.parquet")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_predictions(ROWS, tmp_path / "rows.csv")
    assert not list(tmp_path.iterdir())


FOUND = [
    Row(
        "a.png",
        Detection(((0.1 + 0.2, 1.0, 20.5, 1 / 3), (0.0, 0.0, 1.0, 1.0)), ("c,t", "d"), (0.75, 0.1)),
        size=(20, 30),
    ),
    Row("empty.png", Detection((), (), ()), size=(20, 30)),
    Row("bad.png", error="truncated file"),
]
NUMBERS = Numbers({"c,t": 7, "d": 3}, {"a.png": 40, "empty.png": 2, "bad.png": 5})


def test_objects_as_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert write_predictions(FOUND, out, NUMBERS) == (3, 1)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    boxes = [[0.1 + 0.2, 1.0, 20.5, 1 / 3], [0.0, 0.0, 1.0, 1.0]]
    assert lines == [
        {"path": "a.png", "boxes": boxes, "labels": ["c,t", "d"], "scores": [0.75, 0.1]},
        {"path": "empty.png", "boxes": [], "labels": [], "scores": []},
        {"path": "bad.png", "error": "truncated file"},
    ]


def test_a_line_an_object(tmp_path: Path) -> None:
    """Digit for digit; neither an empty image nor an error is lost."""
    out = tmp_path / "rows.csv"
    assert write_predictions(FOUND, out, NUMBERS) == (3, 1)
    with out.open(newline="", encoding="utf-8") as file:
        first, second, empty, bad = csv.DictReader(file)
    assert tuple(first) == BOX_COLUMNS
    corners = tuple(float(first[name]) for name in ("x1", "y1", "x2", "y2"))
    assert corners == FOUND[0].prediction.boxes[0]
    assert (first["label"], float(first["score"]), first["error"]) == ("c,t", 0.75, "")
    assert (second["path"], second["label"], second["score"]) == ("a.png", "d", "0.1")
    assert set(empty.items()) == {(name, "") for name in BOX_COLUMNS[1:]} | {("path", "empty.png")}
    assert (bad["path"], bad["x1"], bad["error"]) == ("bad.png", "", "truncated file")


@pytest.mark.parametrize("rows", [FOUND, FOUND[1:], FOUND[2:], []])
def test_objects_as_parquet(rows: list[Row], tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    write_predictions(rows, out, NUMBERS)
    table = parquet.read_table(out)
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    texts = {"path": "string", "label": "string", "error": "string"}
    assert types == dict.fromkeys(BOX_COLUMNS, "double") | texts
    written = table.to_pylist()
    assert {line["path"] for line in written} == {row.path for row in rows}
    if len(rows) == 3:
        assert [written[0][name] for name in BOX_COLUMNS[1:5]] == [0.1 + 0.2, 1.0, 20.5, 1 / 3]
        assert written[2]["x1"] is None
        assert written[3]["error"] == "truncated file"


@pytest.mark.parametrize("name", ["rows.txt", "rows.yaml", "labels.d"])
def test_a_detector_s_formats_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.parquet, \.json \(COCO\) or into a folder \(YOLO\)"):
        write_predictions(FOUND, tmp_path / name, NUMBERS)


def test_the_kind_of_rows_is_seen_without_numbers(tmp_path: Path) -> None:
    write_predictions(FOUND, tmp_path / "rows.csv")
    header = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == ",".join(BOX_COLUMNS)
