from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vitrail.metrics.ranking import average_precision, rank

samples = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.integers(0, 1), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(samples)
def test_is_that_of_scikit_learn_with_ties_and_weights(rows: list[tuple[float, int, int]]) -> None:
    scores, truth, counts = (np.array(column) for column in zip(*rows, strict=True))
    found = average_precision(rank(scores, truth), counts)
    if not (truth * counts).any():
        assert math.isnan(found)
        return
    repeated = average_precision_score(np.repeat(truth, counts), np.repeat(scores, counts))
    assert found == pytest.approx(repeated)


def test_by_hand() -> None:
    ranking = rank(np.array([0.2, 0.9, 0.6]), np.array([1, 1, 0]))
    assert average_precision(ranking, np.ones(3, dtype=np.int64)) == pytest.approx((1 + 2 / 3) / 2)
