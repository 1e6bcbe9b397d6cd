"""Calibration: does a probability of 0.8 mean right in 8 of 10 cases?"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int

from vitrail.config import Config

BINS = 15


class ReliabilityBin(Config):
    """One bar of a reliability diagram.

    Attributes:
        lower: Lower edge of the confidence bin; the bin is (lower, upper].
        upper: Upper edge.
        count: Predictions that fall into it.
        confidence: Their mean confidence (0 where count is 0).
        accuracy: The fraction of them that is right (0 where count is 0).
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def reliability(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"]
) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy in 15 bins of equal width (Guo et al. 2017, section 2)."""
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    safe = np.maximum(count, 1)
    mean = np.bincount(index, weights=confidence, minlength=BINS) / safe
    right = np.bincount(index, weights=correct.astype(float), minlength=BINS) / safe
    return tuple(
        ReliabilityBin(
            lower=i / BINS,
            upper=(i + 1) / BINS,
            count=int(count[i]),
            confidence=float(mean[i]),
            accuracy=float(right[i]),
        )
        for i in range(BINS)
    )


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean gap between confidence and accuracy, weighted by count (Guo et al., equation 3)."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / max(total, 1)


def fit_temperature(
    scores: Float[np.ndarray, "N C"], truth: Int[np.ndarray, "N C"], *, multilabel: bool
) -> float:
    """The temperature that makes the likelihood of the labels greatest (Guo et al., section 4.2).

    Labels count as right but for a chance of 1 / (N + 2), as if one more sample had been uncertain
    (Platt 1999, section 2.2): N samples without an error are no proof that none will come, and
    must not drive the temperature to zero.

    Args:
        scores: Probabilities at the model's present temperature.
        truth: One row of zeros and ones a sample.
        multilabel: Whether the scores are sigmoids of their own.

    Returns:
        A factor on the present temperature, between 0.05 and 20.
    """
    from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

    doubt = 1 / (len(scores) + 2)
    target = truth * (1 - doubt) + doubt / (2 if multilabel else scores.shape[1])
    safe = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    logits = np.log(safe) - np.log1p(-safe) if multilabel else np.log(safe)

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if multilabel:
            losses = np.logaddexp(0, scaled) - target * scaled
            return float(losses.mean())
        log_sum = np.logaddexp.reduce(scaled, axis=1)
        return float((log_sum - (target * scaled).sum(axis=1)).mean())

    limits = (np.log(0.05), np.log(20.0))
    found: Any = cast("Any", optimize).minimize_scalar(
        negative_log_likelihood, bounds=limits, method="bounded"
    )
    return float(np.exp(found.x))
