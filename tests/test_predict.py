from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxed import SCENES, WRITERS, ids_of
from scenes import tiny_detector
from tiny import ListDataset, photo, tiny_model
from vitrail.data.preprocess import Preprocess, TokenBudget
from vitrail.data.workers import Serial, Threads
from vitrail.errors import DataError
from vitrail.model import Model
from vitrail.predict import Row, open_for, predict
from vitrail.types import Classification, Detection


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


FOUND = Detection(
    ((0.0, 0.0, 5.0, 5.0), (1.0, 1.0, 9.0, 9.0), (2.0, 2.0, 4.0, 4.0)),
    ("cat", "dog", "cat"),
    (0.9, 0.5, 0.2),
    (3, 1, 2),
)


def test_a_detector_s_rows_know_the_size_of_their_image() -> None:
    rows = list(predict(tiny_detector(), some(), batch_size=2, workers=Serial()))
    assert [row.size for row in rows[:3]] == [(8, 20), (11, 19), None]
    found = rows[0].prediction
    assert isinstance(found, Detection)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert all(
        0 <= x <= 20 and 0 <= y <= 8
        for x1, y1, x2, y2 in found.boxes
        for x, y in ((x1, y1), (x2, y2))
    )


def test_sure_objects() -> None:
    row = Row("a.png", FOUND, size=(9, 9))
    sure = row.above(0.5)
    assert sure.prediction == Detection(FOUND.boxes[:2], ("cat", "dog"), (0.9, 0.5), (3, 1))
    assert (sure.path, sure.size) == (row.path, row.size)
    assert (row.answer, sure.answer) == ("2 cat, 1 dog", "1 cat, 1 dog")
    assert row.above(0.95).answer == "(nothing)"
    other = Row("b.png", Classification("cat", 0.3, {"cat": 0.3}))
    assert other.above(0.9) is other
    assert Row("c.png", error="truncated").above(0.9).answer == "error: truncated"


def test_what_a_person_names_is_opened_with_its_numbers(tmp_path: Path) -> None:
    """A labelled set of images with numbers; every other folder is one of images."""
    for name, write in WRITERS.items():
        write(tmp_path / name, SCENES, ids_of(("cat", "dog", "ant hill"), "with gaps"))
    model = tiny_detector()
    file = tmp_path / "coco" / "annotations" / "boxes.json"
    for path in (tmp_path / "coco", file):
        found = open_for(model, [str(path)])
        assert list(found.image_ids) == [10, 11, 12, 13]
    for name in ("voc", "yolo", "csv"):
        assert open_for(model, [str(tmp_path / name)]).image_ids is None
    images = str(tmp_path / "coco" / "images")
    for asked in ([images], [images, str(tmp_path / "voc")]):
        assert open_for(model, asked).image_ids is None
    assert open_for(tiny_model(), [str(tmp_path / "coco")]).image_ids is None
    (tmp_path / "broken.json").write_text('{"images": [], "annotations": [], "categories": 3}')
    with pytest.raises(DataError, match=r"broken\.json"):
        open_for(model, [str(tmp_path / "broken.json")])
