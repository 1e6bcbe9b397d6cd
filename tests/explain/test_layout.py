"""Rows and columns of attention on the image: numbers, names, pixels, windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import ExplainError
from vitrail.explain.layout import Pooled, Query, Reading, Symbols, Whole, Windowed
from vitrail.nn.windows import Windows

WHOLE = Whole((2, 3), 4, ("class", "register 1"))


@pytest.mark.parametrize(
    ("query", "row"),
    [(0, 0), (7, 7), ("class", 0), ("register 1", 1), ((0, 0), 2), ((3, 11), 4), ((7, 4), 6)],
)
def test_rows_of_all_tokens(query: Query, row: int) -> None:
    assert WHOLE.rows == 8
    assert WHOLE.row(query) == row


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (8, "query 8: the queries of this layer go from 0 to 7"),
        (-1, "query -1: the queries of this layer go from 0 to 7"),
        ("cls", r"query 'cls': the named tokens are 'class', 'register 1'; a place is given"),
        ((8, 0), r"pixel \(8, 0\) .* rows go from 0 to 7, columns to 11"),
        ((0, 12), "is outside the image"),
        ((-1, 0), "is outside the image"),
    ],
)
def test_what_is_no_row_is_refused(query: Query, said: str) -> None:
    with pytest.raises(ExplainError, match=said):
        WHOLE.row(query)


def test_a_model_without_named_tokens_says_so() -> None:
    with pytest.raises(ExplainError, match="this model has no named tokens"):
        Whole((2, 3), 4).row("class")


def test_the_prefix_is_left_out_of_a_map() -> None:
    weights = torch.arange(16.0).view(2, 8)
    laid = WHOLE.lay(5, weights)
    assert laid.tolist() == [[[2, 3, 4], [5, 6, 7]], [[10, 11, 12], [13, 14, 15]]]


def test_other_kinds_of_rows() -> None:
    pooled, reading = Pooled((2, 3), 4, ("class",)), Reading((2, 3), 4)
    assert pooled.row(0) == 0
    assert reading.row(5) == Symbols().row(5) == 5
    for layout, query, said in (
        (pooled, 1, "queries of this layer go from 0 to 0"),
        (pooled, "class", "this pooling has one learned query, number 0"),
        (reading, "class", "a text's symbols are given by number"),
        (reading, -1, "from 0 on"),
        (Symbols(), (0, 0), "a text's symbols are given by number"),
    ):
        with pytest.raises(ExplainError, match=said):
            layout.row(query)


def region(pixel: tuple[int, int], windows: Windows, stride: int) -> tuple[int, int]:
    """Which window a pixel is in, by arithmetic: borders lie at shift, shift + size, ..."""
    y, x = ((at // stride - windows.shift) // windows.size for at in pixel)
    return y, x


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(1, 3))
def test_windows_lie_where_arithmetic_puts_them(
    rows: int, columns: int, size: int, shifted: bool, stride: int
) -> None:
    windows = Windows((rows, columns), size, size // 2 if shifted else 0)
    layout = Windowed((rows, columns), stride, windows)
    places = layout.places()
    assert sorted(places[places >= 0].tolist()) == list(range(rows * columns))
    assert layout.rows == len(places)
    generator = torch.Generator().manual_seed(rows * 10 + columns)
    y, x = (int(torch.randint(n, (1,), generator=generator)) for n in (rows, columns))
    pixel = (y * stride + stride - 1, x * stride)
    row = layout.row(pixel)
    assert int(places[row]) == y * columns + x
    # What it looks at: itself, by the weight of its own column; its window, by all weights.
    own = torch.zeros(1, size**2)
    own[0, row % size**2] = 1
    laid = layout.lay(row, own)[0]
    assert laid.nonzero().tolist() == [[y, x]]
    # The roll brings others into the window; the mask keeps them apart.
    mask = windows.mask(torch.device("cpu"))
    allowed = torch.ones(size**2)
    if mask is not None:
        allowed[mask[row // size**2, 0, row % size**2] < 0] = 0
    same = [
        [i, j]
        for i in range(rows)
        for j in range(columns)
        if region((i * stride, j * stride), windows, stride) == region(pixel, windows, stride)
    ]
    assert layout.lay(row, allowed).nonzero().tolist() == same


def test_windows_have_no_named_tokens() -> None:
    layout = Windowed((4, 4), 2, Windows((4, 4), 2))
    with pytest.raises(ExplainError, match="windows have no such token; give a pixel"):
        layout.row("class")
    with pytest.raises(ExplainError, match="go from 0 to 15"):
        layout.row(16)
