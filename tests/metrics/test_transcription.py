from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.metrics.transcription import TranscriptionMetrics, transcription_metrics

TEXTS = st.text(alphabet="01é", max_size=6)


def distance(a: str, b: str) -> int:
    """Levenshtein's distance, by its definition."""

    @lru_cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            between(i - 1, j) + 1,
            between(i, j - 1) + 1,
            between(i - 1, j - 1) + (a[i - 1] != b[j - 1]),
        )

    return between(len(a), len(b))


def test_by_hand() -> None:
    texts, truth = ["123", "12", "9123", "4", ""], ["123", "123", "123", "5", "12345"]
    result = transcription_metrics(texts, truth)
    assert result.count == 5
    assert result.metrics == {"exact_match": 1 / 5, "cer": (0 + 1 + 1 + 1 + 5) / 15}
    rows = [(r.length, r.count, r.exact_match, r.cer) for r in result.per_length]
    assert rows == [(1, 1, 0.0, 1.0), (3, 3, pytest.approx(1 / 3), 2 / 9), (5, 1, 0.0, 1.0)]
    assert TranscriptionMetrics.model_validate(result.model_dump()) == result


def test_more_symbols_than_there_are() -> None:
    assert transcription_metrics(["777"], ["7"]).metrics == {"exact_match": 0.0, "cer": 2.0}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(bool)), min_size=1, max_size=30))
def test_the_metrics_are_their_definitions(pairs: list[tuple[str, str]]) -> None:
    texts, truth = [list(column) for column in zip(*pairs, strict=True)]
    result = transcription_metrics(texts, truth)
    exact = sum(text == true for text, true in pairs) / len(pairs)
    cer = sum(distance(*pair) for pair in pairs) / sum(map(len, truth))
    assert result.metrics == {"exact_match": pytest.approx(exact), "cer": pytest.approx(cer)}
    assert set(result.intervals) == set(result.metrics)
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high
    rows = result.per_length
    assert [row.length for row in rows] == sorted({len(true) for true in truth})
    assert sum(row.count for row in rows) == len(pairs)
    assert sum(row.count * row.exact_match for row in rows) == pytest.approx(exact * len(pairs))
    assert sum(row.count * row.length * row.cer for row in rows) == pytest.approx(
        cer * sum(map(len, truth))
    )


def test_intervals_are_seeded_and_as_wide_as_chance() -> None:
    texts, truth = ["12"] * 1000, ["12"] * 900 + ["13"] * 100
    first, again = (transcription_metrics(texts, truth) for _ in range(2))
    assert first == again
    for name, deviation in (("exact_match", 0.3), ("cer", 0.15)):
        low, high = first.intervals[name]
        assert high - low == pytest.approx(2 * 1.96 * deviation / 1000**0.5, rel=0.15)
    assert transcription_metrics(texts, truth, intervals=False).intervals == {}


@pytest.mark.parametrize(("texts", "truth"), [([], []), (["1"], [3]), (["1"], [""]), (["1"], [])])
def test_what_cannot_be_measured(texts: list[str], truth: list[str | int]) -> None:
    with pytest.raises(AssertionError, match="metrics need"):
        transcription_metrics(texts, truth)
