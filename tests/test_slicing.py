from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scenes import tiny_detector
from tiny import ListDataset, photo
from vitrail import slicing
from vitrail.data.dataset import Dataset
from vitrail.data.workers import Serial
from vitrail.errors import UserError
from vitrail.predict import Row, predict
from vitrail.slicing import Tiles, Window, merge, predict_sliced, tiles
from vitrail.types import Corners, Detection, Sample

CAT = ("cat",)


def seen(boxes: list[Corners], window: Window, least: float = 0.0) -> Detection:
    """What a perfect detector says of a window: every visible part of an object, whole or not."""
    found: list[tuple[float, Corners]] = []
    for x1, y1, x2, y2 in boxes:
        left, top = max(x1 - window.left, 0), max(y1 - window.top, 0)
        right = min(x2 - window.left, window.width)
        bottom = min(y2 - window.top, window.height)
        share = max(right - left, 0) * max(bottom - top, 0) / ((x2 - x1) * (y2 - y1))
        if right > left and bottom > top and (x2 - x1) >= least * window.width:
            found.append((0.5 + share / 2, (left, top, right, bottom)))
    found.sort(key=lambda row: -row[0])
    corners = tuple(box for _, box in found)
    return Detection(corners, CAT * len(found), tuple(score for score, _ in found))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(4, 120), st.floats(0, 0.9))
def test_tiles_cover_the_image_and_overlap(
    height: int, width: int, side: int, share: float
) -> None:
    whole, *parts = tiles((height, width), side, share)
    assert whole == Window(0, 0, height, width)
    if max(height, width) <= side:
        assert not parts
        return
    covered = np.zeros((height, width), dtype=int)
    for top, left, high, wide in parts:
        assert (high, wide) == (min(side, height), min(side, width))
        assert top >= 0 <= left
        assert top + high <= height
        assert left + wide <= width
        covered[top : top + high, left : left + wide] += 1
    assert covered.min() >= 1
    lefts = sorted({left for _, left, _, _ in parts})
    assert all(b - a <= side * (1 - share) + 1 for a, b in pairwise(lefts))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_each_object_once(seed: int, coarse: bool) -> None:
    """Objects anywhere, no larger than the overlap; the whole image may show none of them."""
    rng = np.random.default_rng(seed)
    size, side, overlap = (400, 520), 160, 0.3
    boxes: list[Corners] = []
    for row in range(0, 400, 50):  # a grid apart, so that no two are one
        for column in range(0, 520, 52):
            if rng.random() < 0.5:
                x, y = column + rng.uniform(0, 8), row + rng.uniform(0, 8)
                w, h = rng.uniform(10, 40, 2)
                boxes.append((x, y, min(x + w, 520.0), min(y + h, 400.0)))
    windows = tiles(size, side, overlap)
    found = merge([seen(boxes, w, 0.05 if coarse else 0.0) for w in windows], windows, size)
    assert sorted(found.boxes) == pytest.approx(np.array(sorted(boxes)).reshape(-1, 4))
    assert found.labels == CAT * len(boxes)
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_an_object_larger_than_a_tile_is_the_whole_image_s() -> None:
    box = (20.0, 30.0, 380.0, 250.0)
    windows = tiles((300, 400), 100, 0.2)
    assert merge([seen([box], w) for w in windows], windows, (300, 400)).boxes == (box,)


WINDOWS = [Window(0, 0, 100, 100), Window(0, 60, 100, 100)]


def one(box: Corners, score: float, label: str = "cat") -> Detection:
    return Detection((box,), (label,), (score,))


def test_a_sure_part_does_not_give_way_to_an_unsure_whole() -> None:
    cut, whole = (70.0, 10.0, 100.0, 30.0), (10.0, 10.0, 60.0, 30.0)
    unsure = merge([one(cut, 0.9), one(whole, 0.1)], WINDOWS, (100, 160))
    assert unsure.boxes == (cut,)
    sure = merge([one(cut, 0.9), one(whole, 0.5)], WINDOWS, (100, 160))
    assert sure.boxes == ((70.0, 10.0, 120.0, 30.0),)


def test_the_border_of_the_image_cuts_nothing() -> None:
    left, right = (0.0, 0.0, 20.0, 20.0), (80.0, 80.0, 100.0, 100.0)
    found = merge([one(left, 0.9), one(right, 0.8)], WINDOWS, (100, 160))
    assert found.boxes == (left, (140.0, 80.0, 160.0, 100.0))


def test_other_classes_and_objects_of_one_window_stay() -> None:
    box, shifted = (65.0, 10.0, 95.0, 40.0), (5.0, 10.0, 35.0, 40.0)
    found = merge([one(box, 0.9), one(shifted, 0.8, "dog")], WINDOWS, (100, 160))
    assert found.labels == ("cat", "dog")
    twins = Detection((box, (66.0, 11.0, 95.0, 40.0)), ("cat", "cat"), (0.9, 0.8))
    assert len(merge([twins, one(shifted, 0.7)], WINDOWS, (100, 160)).boxes) == 2
    nothing = Detection((), (), ())
    assert merge([nothing, nothing], WINDOWS, (100, 160)) == nothing


def test_an_image_no_larger_than_a_tile_is_predicted_plainly() -> None:
    model = tiny_detector()
    dataset = ListDataset([photo(0, 20, 40), None, photo(1, 40, 12)])
    plain = list(predict(model, dataset, batch_size=1, workers=Serial()))
    assert list(predict_sliced(model, dataset, size=40, batch_size=1)) == plain
    rows = list(predict_sliced(model, dataset, size=16))
    assert [(row.path, row.size) for row in rows] == [(row.path, row.size) for row in plain]
    assert rows[1] == Row("1.png", error="truncated file")
    assert rows[0].prediction != plain[0].prediction


def test_pixels_of_tiles() -> None:
    image = photo(3, 30, 40)
    parts = Tiles(Sample("a", image, None), [Window(2, 5, 10, 20)])
    assert torch.equal(parts.read(0).image, image[:, 2:12, 5:25])
    assert parts.read_bytes(0) == image[:, 2:12, 5:25].contiguous().numpy().tobytes()


def test_objects_of_a_large_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """From pixels to the merged answer, with bright rectangles as objects."""

    def bright(model: object, dataset: Dataset, **_: object) -> Iterator[Row]:
        for index, path in enumerate(dataset.ids):
            areas, _ = ndimage.label(dataset.read(index).image[0].numpy() > 128)
            boxes = [
                (float(x.start), float(y.start), float(x.stop), float(y.stop))
                for y, x in ndimage.find_objects(areas)
            ]
            yield Row(path, Detection(tuple(boxes), CAT * len(boxes), (0.5,) * len(boxes)))

    monkeypatch.setattr(slicing, "predict", bright)
    image = torch.zeros((3, 200, 330), dtype=torch.uint8)
    boxes = [(0, 0, 9, 12), (90, 40, 110, 60), (150, 90, 160, 200), (318, 188, 330, 200)]
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 255
    dataset = ListDataset([image])
    (row,) = predict_sliced(tiny_detector(), dataset, size=100, overlap=0.25)
    assert sorted(row.prediction.boxes) == [tuple(map(float, box)) for box in sorted(boxes)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0.2), (10, 1.0), (10, -0.1)])
def test_what_cannot_be_cut(size: int, overlap: float) -> None:
    with pytest.raises(UserError, match="at least one pixel, and an overlap"):
        next(predict_sliced(tiny_detector(), ListDataset([]), size=size, overlap=overlap))


def test_a_slip_of_the_tile_is_an_error_and_not_a_night() -> None:
    data = ListDataset([photo(0, 120, 120)])
    (row,) = predict_sliced(tiny_detector(CAT), data, size=1)
    assert row.prediction is None
    assert row.error == "22,501 tiles are too many; give a larger --slice or less --overlap"
