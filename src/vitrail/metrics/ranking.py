"""Average precision: how well the scores of one class put its samples first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The samples from the highest score of one class to the lowest.

    Sorting once serves every resample of a bootstrap.

    Attributes:
        order: Indices of the samples.
        positive: 1 where the sample in this place has the class.
        ends: Last place of each run of equal scores: between equals there is no order.
    """

    order: Int[np.ndarray, "N"]
    positive: Int[np.ndarray, "N"]
    ends: Int[np.ndarray, "T"]


def rank(scores: Float[np.ndarray, "N"], truth: Int[np.ndarray, "N"]) -> Ranking:
    """Sort the samples of one class."""
    order = np.argsort(-scores, kind="stable")
    falls = np.diff(scores[order]) < 0
    return Ranking(order, truth[order], np.append(np.flatnonzero(falls), len(scores) - 1))


def average_precision(ranking: Ranking, counts: Int[np.ndarray, "N"]) -> float:
    """Sum over thresholds of (gain in recall) * precision, without interpolation.

    Args:
        ranking: The sorted samples.
        counts: How often each sample counts.

    Returns:
        A fraction, or NaN where no positive sample counts.
    """
    weights = counts[ranking.order]
    found = np.cumsum(weights * ranking.positive)[ranking.ends]
    shown = np.cumsum(weights)[ranking.ends]
    if found[-1] == 0:
        return float("nan")
    gain = np.diff(found, prepend=0)
    return float((gain * found / np.maximum(shown, 1)).sum() / found[-1])
