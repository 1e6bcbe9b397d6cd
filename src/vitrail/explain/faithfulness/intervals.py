"""Means over images with bootstrap intervals; every method's from the same resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vitrail.metrics.classification import RESAMPLES, interval


@dataclass(frozen=True, slots=True)
class Value:
    """A mean over images.

    Attributes:
        value: The mean.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: Images.
    """

    value: float
    low: float
    high: float
    count: int

    def below(self, other: Value) -> bool:
        """Whether it is less and the intervals are disjoint."""
        return self.high < other.low

    def to_dict(self) -> dict[str, float]:
        """With fixed names, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count}


def mean_of(values: Float[np.ndarray, "N"], *, seed: int = 0) -> Value:
    """The mean with its percentile interval over resampled images.

    Resamples depend on the seed and the number of values alone, so that rows of the same images
    are resampled alike.

    Args:
        values: One an image, at least one.
        seed: Of the resamples.
    """
    count = len(values)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    mean = float(values.mean())
    return Value(mean, *interval(drawn @ values / count, mean), count)
