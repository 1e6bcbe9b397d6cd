from __future__ import annotations

import csv
import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tiny import ListDataset, photo, tiny_model
from vitrail.data.preprocess import Preprocess, TokenBudget
from vitrail.data.workers import Serial, Threads
from vitrail.errors import UserError
from vitrail.model import Model
from vitrail.predict import Row, predict, write_predictions
from vitrail.types import Classification


def some(count: int = 7) -> ListDataset:
    """Photos of many sizes; the third cannot be read."""
    images: list[torch.Tensor | None] = [photo(i, 8 + 3 * i, 20 - i) for i in range(count)]
    images[2] = None
    return ListDataset(images)


@pytest.mark.parametrize("workers", [Serial(), Threads(3)])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_one_row_an_image_in_order(workers: Serial | Threads, batch_size: int) -> None:
    model, dataset = tiny_model().train(), some()
    rows = list(predict(model, dataset, batch_size=batch_size, workers=workers))
    assert [row.path for row in rows] == list(dataset.ids)
    assert not model.training
    for i, row in enumerate(rows):
        if i == 2:
            assert row == Row("2.png", error="truncated file")
            continue
        image = model.config.preprocess.prepare(dataset.images[i])
        (expected,) = model.task.postprocess(model(image[None]))
        assert row.error is None
        assert row.prediction.label == expected.label
        assert row.prediction.scores == pytest.approx(expected.scores, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([None, (8, 12), (12, 8), (8, 8)]), max_size=9), st.integers(1, 4))
def test_order_is_kept_where_sizes_are_mixed(sizes: list, batch_size: int) -> None:
    """A model that keeps the aspect ratio gets a batch a size, in whatever order."""
    plain = tiny_model()
    budget = Preprocess(resize=TokenBudget(patch=4, tokens=6))
    model = Model(plain.config.model_copy(update={"preprocess": budget}))
    dataset = ListDataset([size and photo(i, *size) for i, size in enumerate(sizes)])
    rows = list(predict(model, dataset, batch_size=batch_size, workers=Serial()))
    assert [row.path for row in rows] == list(dataset.ids)
    assert [row.prediction is None for row in rows] == [size is None for size in sizes]


def test_the_same_file_twice_gives_two_rows() -> None:
    dataset = ListDataset([photo(0), photo(1), photo(0)], ids=["a.png", "b.png", "a.png"])
    for batch_size in (1, 3):
        rows = list(predict(tiny_model(), dataset, batch_size=batch_size, workers=Serial()))
        assert [row.path for row in rows] == ["a.png", "b.png", "a.png"]
        assert rows[0].prediction.label == rows[2].prediction.label


def test_rows_come_as_batches_are_done() -> None:
    rows = predict(tiny_model(), some(), batch_size=1, workers=Serial())
    assert next(rows).path == "0.png"
    rows.close()


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
