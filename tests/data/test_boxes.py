from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitrail.data.boxes import LEAST, Annotations, BoxFiles, Entry, Mark, clip, flaw
from vitrail.data.dataset import Subset
from vitrail.data.storage import Folder
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Box, Boxes, Corners

numbers = st.floats(-1e4, 1e4)


@given(st.tuples(numbers, numbers, numbers, numbers), st.tuples(*[st.integers(1, 5000)] * 2))
def test_what_is_kept_of_a_box_lies_within(corners: Corners, size: tuple[int, int]) -> None:
    inside = clip(corners, size)
    if inside is None:
        return
    x1, y1, x2, y2 = inside
    assert 0 <= x1 < x2 <= size[1]
    assert 0 <= y1 < y2 <= size[0]
    assert flaw(inside) == ""
    assert clip(inside, size) == inside
    assert x1 >= corners[0]
    assert y2 <= corners[3]


@given(st.lists(st.floats(), min_size=4, max_size=4))
def test_a_box_without_flaws_has_an_area(sides: list[float]) -> None:
    x1, y1, x2, y2 = corners = tuple(sides)
    wrong = flaw(corners)
    assert (wrong == "") == (all(map(math.isfinite, sides)) and min(x2 - x1, y2 - y1) > LEAST)


def made(folder: Path, *entries: Entry, size: tuple[int, int] = (20, 30)) -> BoxFiles:
    for entry in entries:
        Image.new("RGB", size[::-1]).save(folder / entry.place[1])
    return BoxFiles(Annotations("made", "for a test", str(folder), entries, ("cat", "dog")))


def entry(folder: Path, name: str, corners: Corners, size: tuple[int, int] | None) -> Entry:
    x1, y1, x2, y2 = map(float, corners)
    return Entry((Folder(folder), name), "x", [Mark((x1, y1, x2, y2), "dog", "box 1")], size=size)


def test_boxes_are_put_on_the_decoded_image(tmp_path: Path) -> None:
    data = made(tmp_path, entry(tmp_path, "1.png", (1, 2, 30, 25), (26, 30)))
    assert data.targets == [Boxes((Box((1.0, 2.0, 30.0, 25.0), 1),), (26, 30))]
    assert data.read(0).target == Boxes((Box((1.0, 2.0, 30.0, 20.0), 1),), (20, 30))


def test_labels_of_another_image_are_bad_samples(tmp_path: Path) -> None:
    data = made(tmp_path, entry(tmp_path, "1.png", (1, 2, 3, 4), (30, 20)))
    with pytest.raises(BadSampleError, match="before the camera's rotation"):
        data.read(0)
    data = made(tmp_path, entry(tmp_path, "1.png", (40, 2, 50, 4), (60, 60)))
    with pytest.raises(BadSampleError, match=r"has 30 x 20 pixels, a box lies outside at \(40, 2"):
        data.read(0)


def test_what_was_dropped_follows_its_sample(tmp_path: Path) -> None:
    good = entry(tmp_path, "1.png", (1, 2, 3, 4), None)
    bad = replace(entry(tmp_path, "2.png", (1, 2, 1, 4), None), split="val")
    data = made(tmp_path, replace(good, split="train"), bad)
    assert data.published == {"train": [0], "val": [1]}
    assert [label.id for label in data.dropped] == ["2.png"]
    assert Subset(data, [0]).dropped == []
    assert Subset(data, [1]).dropped == list(data.dropped)
    assert Subset(data, [1]).boxes


def test_a_broken_label_is_a_bad_sample_and_no_empty_image(tmp_path: Path) -> None:
    good = entry(tmp_path, "1.png", (1, 2, 3, 4), None)
    bad = Entry((Folder(tmp_path), "2.png"), "x", broken="x: damaged")
    data = made(tmp_path, good, bad)
    with pytest.raises(BadSampleError, match="x: damaged"):
        data.read(1)
    with pytest.raises(DataError, match=r"no usable box in 1 images; correct .* x: damaged$"):
        made(tmp_path, bad)
    with pytest.raises(DataError, match=r"no box in 1 images; label some objects$"):
        made(tmp_path, replace(bad, broken=""))


def test_images_of_no_split_are_left_out(tmp_path: Path) -> None:
    first = entry(tmp_path, "1.png", (1, 2, 3, 4), None)
    data = made(
        tmp_path, replace(first, split="train"), entry(tmp_path, "2.png", (1, 2, 3, 4), None)
    )
    assert data.ids == ["1.png"]
    assert data.reason == "for a test; 1 images of no split were left out"
