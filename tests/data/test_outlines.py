from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mask_formats import runs_of, text_of
from vitrail.data.outlines import (
    Objects,
    Shape,
    covers_nothing,
    fill,
    from_runs,
    polygon_flaw,
    runs_flaw,
    unpacked,
)

MASKS = arrays(
    bool,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.booleans(),
    fill=st.nothing(),
)
SQUARE = (1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0)


@given(MASKS)
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    size = (mask.shape[0], mask.shape[1])
    runs, text = runs_of(mask), text_of(mask)
    assert list(unpacked(text)) == runs
    assert (from_runs(runs, size) == mask).all()
    assert (runs_flaw(text, size) == "") == mask.any()


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=30))
def test_long_runs_are_read(runs: list[int]) -> None:
    from pycocotools import mask as coco

    size = [sum(runs), 1]
    text = coco.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()
    assert list(unpacked(text)) == runs


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ((10, 2), "run lengths of 12 pixels for an image of 5 x 4; export them again"),
        ((10, 50), "run lengths of 60 pixels"),
        ((-3, 23), "run lengths of 20 pixels"),
        ((), "run lengths of 0 pixels"),
        ((20,), "without a pixel inside"),
        ("~~~", "'~' in run lengths"),
        ("o", "cut off"),
        ("o" * 99, "in run lengths"),
        ("é", "'é' in run lengths"),
        ("", "run lengths of 0 pixels"),
    ],
)
def test_run_lengths_that_cannot_be(runs: tuple[int, ...] | str, message: str) -> None:
    assert message in runs_flaw(runs, (4, 5))


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=60))
def test_no_text_goes_past_its_image(text: str) -> None:
    flaw = runs_flaw(text, (4, 5))
    assert flaw or from_runs(unpacked(text), (4, 5)).sum() == sum(unpacked(text)[1::2])


@pytest.mark.parametrize(
    ("points", "flaw"),
    [
        (SQUARE, ""),
        ((-3.0, -3.0, 2.0, -3.0, 2.0, 2.0), ""),
        ((1.0, 1.0, 4.0, 4.0), "has 4 numbers; an outline has three points or more"),
        ((*SQUARE, 2.0), "has 9 numbers"),
        ((), "has 0 numbers"),
        ((math.nan, *SQUARE[1:]), "no finite number"),
        ((math.inf, *SQUARE[1:]), "no finite number"),
        ((1e9, *SQUARE[1:]), "far outside the image"),
        (tuple(value + 10 for value in SQUARE), "lies outside the image of 5 x 6 pixels"),
    ],
)
def test_outlines_that_cannot_be_filled(points: tuple[float, ...], flaw: str) -> None:
    found = polygon_flaw(points, (6, 5))
    assert flaw in found
    assert bool(found) == bool(flaw)


def test_thin_outlines() -> None:
    assert covers_nothing([(0.0, 0.0, 1.0, 1.0, 2.0, 2.0)], (5, 5))
    assert covers_nothing([(1.2, 1.2, 1.3, 1.2, 1.3, 1.3)], (5, 5))
    assert covers_nothing([(-10.0, -10.0, 5.0, -10.0, -10.0, 5.0)], (9, 9)), "beside the image"
    assert not covers_nothing([SQUARE], (5, 5))
    assert not covers_nothing([(0.0, 2.0, 5.0, 2.0, 5.0, 3.0, 0.0, 3.0)], (5, 5))
    assert not covers_nothing([(0.0, 0.0, 1.0, 1.0, 2.0, 2.0), SQUARE], (5, 5))


def test_filling() -> None:
    mask = fill([SQUARE, (0.0, 5.0, 6.0, 5.0, 6.0, 6.0, 0.0, 6.0)], (6, 6))
    truth = np.zeros((6, 6), dtype=bool)
    truth[1:4, 1:4] = truth[5] = True
    assert (mask == truth).all()


def test_the_digest_has_no_order() -> None:
    shapes = (Shape(0, "a", (SQUARE,)), Shape(1, "b", runs=(3, 4)))
    first = Objects((5, 5), shapes).digest()
    assert first == Objects((5, 5), shapes[::-1]).digest()
    assert first != Objects((5, 6), shapes).digest()
    assert first != Objects((5, 5), shapes[:1]).digest()
    crowd = Shape(0, "a", (SQUARE,), crowd=True)
    assert first != Objects((5, 5), (crowd, shapes[1])).digest()
    assert Objects((5, 5), (crowd,)).draw().crowds == (True,)
