from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import edit_distance

from vitrail.metrics.alignment import Pair, align

TEXTS = st.text(alphabet="01é", max_size=7)


@pytest.mark.parametrize(
    ("true", "read", "expected"),
    [
        ("123", "123", [("1", "1"), ("2", "2"), ("3", "3")]),
        ("123", "193", [("1", "1"), ("2", "9"), ("3", "3")]),
        ("123", "13", [("1", "1"), ("2", None), ("3", "3")]),
        ("13", "123", [("1", "1"), (None, "2"), ("3", "3")]),
        ("12", "", [("1", None), ("2", None)]),
        ("", "7", [(None, "7")]),
        ("", "", []),
        ("123", "19", [("1", "1"), ("2", None), ("3", "9")]),
    ],
)
def test_by_hand(true: str, read: str, expected: list[Pair]) -> None:
    assert align(true, read) == expected


@given(TEXTS, TEXTS)
def test_both_texts_are_kept_and_edits_are_fewest(true: str, read: str) -> None:
    pairs = align(true, read)
    assert "".join(a for a, _ in pairs if a is not None) == true
    assert "".join(b for _, b in pairs if b is not None) == read
    assert (None, None) not in pairs
    distance = edit_distance([read], [true], reduction="none") if true or read else 0
    assert sum(a != b for a, b in pairs) == int(distance)
