from __future__ import annotations

import numpy as np
import pytest

from vitrail.metrics.agreement import f_measure, mean_of_defined


def test_harmonic_mean() -> None:
    # P = 3/4, R = 1/2: 2PR / (P + R) = 0.6.
    assert f_measure(np.array([3, 4, 5, 10])) == pytest.approx(0.6)


def test_nothing_agrees_with_nothing_alone() -> None:
    counts = np.array([[0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 3], [0, 2, 0, 2]])
    assert f_measure(counts).tolist() == [1, 0, 0, 0]


def test_mean_of_what_is_defined() -> None:
    values = np.array([[1.0, np.nan, 4.0], [np.nan, np.nan, np.nan]])
    assert mean_of_defined(values).tolist() == pytest.approx([2.5, np.nan], nan_ok=True)
    weights = np.array([[3.0, 7.0, 1.0], [1.0, 1.0, 1.0]])
    assert mean_of_defined(values, weights)[0] == pytest.approx(7 / 4)
