from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.metrics.detection_curves import POINTS, curve
from vitrail.metrics.detection_matches import IOUS, Matches

SCORES = st.integers(0, 9).map(lambda i: i / 10)
FOUND = st.lists(st.tuples(SCORES, st.booleans(), st.booleans()), max_size=30)


def matches(found: list[tuple[float, bool, bool]], missed: int = 0) -> Matches:
    """Scores, whether right, whether ignored; each right one finds an object."""
    found = sorted(found, key=lambda row: -row[0])
    scores, right, ignored = (np.array([row[i] for row in found]) for i in range(3))
    return Matches(
        scores=scores.astype(np.float64),
        images=np.zeros(len(found), dtype=np.int64),
        right=np.tile(right.astype(np.bool_), (len(IOUS), 1)),
        ignored=np.tile(ignored.astype(np.bool_), (len(IOUS), 1)),
        objects=np.array([sum(r and not i for _, r, i in found) + missed]),
    )


@settings(deadline=None, max_examples=100)
@given(FOUND, FOUND, st.integers(0, 3))
def test_every_point_is_its_definition(first: list, second: list, missed: int) -> None:
    given_rows = [row for row in first + second if not row[2]]
    objects = sum(right for _, right, _ in given_rows) + missed
    found = curve([matches(first, missed), matches(second)])
    best = 0.0
    for threshold in {score for score, right, _ in given_rows if right}:
        sure = [right for score, right, _ in given_rows if score >= threshold]
        best = max(best, 2 * sum(sure) / (len(sure) + objects))
    for point in found.points:
        sure = [right for score, right, _ in given_rows if score >= point.threshold]
        assert point.precision == pytest.approx(sum(sure) / len(sure))
        assert point.recall == pytest.approx(sum(sure) / objects)
    assert (found.best.f1 if found.best else 0.0) == pytest.approx(best)
    assert found.best is None or found.best in found.points
    recalls = [point.recall for point in found.points]
    assert recalls == sorted(set(recalls))
    assert len(found.points) == len({score for score, right, _ in given_rows if right})


def test_a_long_curve_is_thinned_from_end_to_end() -> None:
    scores = np.linspace(1, 0, 1000)
    found = curve([matches([(float(score), True, False) for score in scores])])
    assert len(found.points) == POINTS
    assert (found.points[0].threshold, found.points[-1].threshold) == (1.0, 0.0)
    assert found.best == found.points[-1]
