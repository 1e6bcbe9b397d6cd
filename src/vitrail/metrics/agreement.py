"""Precision, recall and F from what an answer and the truth see of each other.

Pixels, pixels with a tolerance, skeletons and boundaries differ in what is counted, not in this.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num


def f_measure(counts: Num[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    """Harmonic mean of precision and recall.

    Args:
        counts: What of the answer is right, the answer, what of the truth is found, the truth.

    Returns:
        1 where there is neither truth nor answer, 0 where there is one of them alone.
    """
    right, answered, found, true = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    # 2PR / (P + R) without the divisions that fail: P = right / answered, R = found / true.
    below = right * true + found * answered
    value = np.divide(2 * right * found, below, out=np.zeros_like(below), where=below > 0)
    return np.where((answered == 0) & (true == 0), 1.0, value)


def pooled_f_measure(counts: Num[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    """`f_measure` of many images together; NaN where there is neither truth nor answer.

    Args:
        counts: As `f_measure` takes them, added up.
    """
    counts = np.asarray(counts, dtype=np.float64)
    nothing = (counts[..., 1] == 0) & (counts[..., 3] == 0)
    return np.where(nothing, np.nan, f_measure(counts))


def mean_of_defined(
    values: Float[np.ndarray, "*N C"], weights: Float[np.ndarray, "*N C"] | None = None
) -> Float[np.ndarray, "*N"]:
    """Mean over the last axis of all that is not NaN; NaN where nothing is.

    Args:
        values: To be averaged.
        weights: How much each counts; all alike by default.
    """
    defined = ~np.isnan(values) * (1.0 if weights is None else weights)
    count = np.asarray(defined.sum(axis=-1), dtype=np.float64)
    total = np.asarray((np.nan_to_num(values) * defined).sum(axis=-1), dtype=np.float64)
    return np.divide(total, count, out=np.full_like(count, np.nan), where=count > 0)
