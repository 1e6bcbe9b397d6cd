from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.metrics.calibration import (
    BINS,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def test_a_hand_made_case() -> None:
    # Two in (0.8, 0.8667], three in (0.9333, 1].
    confidence = np.array([0.81, 0.85, 0.94, 0.98, 1.0])
    correct = np.array([True, False, True, True, True])
    bins = reliability(confidence, correct)
    assert len(bins) == BINS == 15
    assert [b.count for b in bins] == [0] * 12 + [2, 0, 3]
    assert bins[12].confidence == pytest.approx(0.83)
    assert bins[12].accuracy == pytest.approx(0.5)
    assert bins[14].accuracy == 1.0
    mean = (0.94 + 0.98 + 1.0) / 3
    expected = 2 / 5 * (0.83 - 0.5) + 3 / 5 * (1 - mean)
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_bins_are_open_at_the_left_and_closed_at_the_right() -> None:
    edges = np.arange(16) / 15
    bins = reliability(edges, np.zeros(16, dtype=bool))
    assert [b.count for b in bins] == [2] + [1] * 14


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_error_is_a_fraction_and_counts_are_kept(pairs: list[tuple[float, bool]]) -> None:
    confidence = np.array([c for c, _ in pairs])
    bins = reliability(confidence, np.array([r for _, r in pairs]))
    assert sum(b.count for b in bins) == len(pairs)
    assert 0 <= expected_calibration_error(bins) <= 1
    for b in bins:
        if b.count:
            assert b.lower - 1e-12 <= b.confidence <= b.upper + 1e-12


def test_no_predictions_no_error() -> None:
    empty = reliability(np.zeros(0), np.zeros(0, dtype=bool))
    assert expected_calibration_error(empty) == 0


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_recovers_a_known_temperature(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    truth = np.array([rng.multinomial(1, p) for p in softmax(logits)])
    too_sharp = softmax(logits * temperature)
    found = fit_temperature(too_sharp, truth, multilabel=False)
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_recovers_a_known_temperature_of_many_labels(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (10_000, 3))
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    found = fit_temperature(1 / (1 + np.exp(-logits * temperature)), truth, multilabel=True)
    assert found == pytest.approx(temperature, rel=0.05)


@settings(deadline=None, max_examples=30)
@given(st.booleans(), st.integers(0, 999), st.integers(1, 5))
def test_fit_stays_in_its_limits(multilabel: bool, seed: int, count: int) -> None:
    """Also for a few samples that are all right or all wrong, with zeros and ones as scores."""
    rng = np.random.default_rng(seed)
    scores = np.eye(3)[rng.integers(0, 3, count)]
    truth = np.eye(3, dtype=np.int64)[rng.integers(0, 3, count)]
    assert 0.05 <= fit_temperature(scores, truth, multilabel=multilabel) <= 20
