from __future__ import annotations

import zlib

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from vitrail.metrics.mask_curve import confidence_map, histogram, pixel_curve


def test_as_counted_threshold_by_threshold() -> None:
    rng = np.random.default_rng(0)
    truth, judged = rng.random((40, 50)) < 0.3, rng.random((40, 50)) < 0.9
    truth &= judged
    probability = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1)
    levels = confidence_map(
        zlib.compress((probability * 255).round().astype(np.uint8).tobytes()), (40, 50)
    )
    found = pixel_curve(histogram(levels, truth, judged))
    assert [p.threshold for p in found.points] == sorted(
        (p.threshold for p in found.points), reverse=True
    )
    scores = []
    for point in found.points:
        # The threshold holds for probabilities as for levels.
        mask = (probability >= point.threshold)[judged]
        assert np.array_equal(mask, (levels / 255 >= point.threshold)[judged])
        assert point.precision == pytest.approx(precision_score(truth[judged], mask))
        assert point.recall == pytest.approx(recall_score(truth[judged], mask))
        scores.append(f1_score(truth[judged], mask))
    assert found.best is not None
    assert found.best == found.points[int(np.argmax(scores))]
    assert 0 < found.best.threshold < 1


def test_nothing_is_right() -> None:
    zero = np.zeros((2, 2), dtype=np.uint8)
    no, yes = np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    for levels, truth in ((zero, yes), (zero + 9, no)):
        found = pixel_curve(histogram(levels, truth, yes))
        assert found.best is None
        assert found.points == ()


def test_the_surest_level_has_a_threshold() -> None:
    levels = np.array([[0, 255]], dtype=np.uint8)
    found = pixel_curve(histogram(levels, levels > 0, levels >= 0))
    assert found.best is not None
    assert found.best.f1 == 1
    assert found.best.threshold < 1
