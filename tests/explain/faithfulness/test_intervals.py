from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitrail.explain.faithfulness.intervals import Value, mean_of


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_an_interval_holds_its_value(values: list[float], seed: int) -> None:
    found = mean_of(np.array(values), seed=seed)
    assert found.low <= found.value <= found.high
    assert found.count == len(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_it_is_as_wide_as_the_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = mean_of(values)
    assert 0.8 < (found.high - found.low) / (2 * 1.96 * values.std() / 20) < 1.2


def test_the_same_images_are_drawn_for_every_row() -> None:
    values = np.random.default_rng(1).random(50)
    one, two = mean_of(values), mean_of(1 + 2 * values)
    np.testing.assert_allclose([two.low, two.high], [1 + 2 * one.low, 1 + 2 * one.high])


def test_below_means_disjoint() -> None:
    low, high, between = Value(1.0, 0.0, 2.0, 9), Value(4.0, 3.0, 5.0, 9), Value(2.5, 1.5, 3.5, 9)
    assert low.below(high)
    assert not high.below(low)
    assert not low.below(between)
    assert low.to_dict() == {"value": 1, "low": 0, "high": 2, "count": 9}
