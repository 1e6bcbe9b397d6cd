"""Two simple classifiers on frozen features: nearest neighbours and a regularised linear one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int

from vitrail.metrics.classification import RESAMPLES, interval

NEIGHBOURS = (1, 5, 10, 20)
"""Numbers of neighbours that are tried."""
PENALTIES = tuple(float(c) for c in np.logspace(-4, 3, 8))
"""Values of scikit-learn's C, the inverse of the penalty, that are tried."""
STEPS = 300
"""Most steps of the solver. Where it has not converged, the penalty hardly matters."""
DISTANCES = 64
"""Megabytes of distances that are held at once."""

Vectors = Float[np.ndarray, "_n D"]
Labels = Int[np.ndarray, "_n"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classifier says of the test part.

    Attributes:
        right: Whether each test image was classified rightly.
        chosen: The number of neighbours, or C, that was best on the validation part.
        train_top1: Share of its own training images that it gets right; each of them is its own
            nearest neighbour.
    """

    right: Bool[np.ndarray, "N"]
    chosen: float
    train_top1: float


@dataclass(frozen=True, slots=True)
class Scaled:
    """Features and labels of the three parts, each feature with mean 0 and variance 1 in train."""

    train: tuple[Vectors, Labels]
    val: tuple[Vectors, Labels]
    test: tuple[Vectors, Labels]


def nearest_neighbours(data: Scaled) -> Answer:
    """Majority of the nearest training images by cosine; k is chosen on the validation part."""
    import sklearn  # pyright: ignore[reportMissingTypeStubs]
    from sklearn.neighbors import (  # pyright: ignore[reportMissingTypeStubs]
        KNeighborsClassifier,
    )

    best: tuple[float, int, Any] | None = None
    with cast("Any", sklearn).config_context(working_memory=DISTANCES):
        for k in sorted({min(k, len(data.train[1])) for k in NEIGHBOURS}):
            found: Any = cast("Any", KNeighborsClassifier)(k, metric="cosine", algorithm="brute")
            found.fit(*data.train)
            score = _top1(found, *data.val)
            if best is None or score > best[0]:
                best = (score, k, found)
        assert best is not None
        _, k, found = best
        return Answer(_right(found, *data.test), float(k), _top1(found, *data.train))


def logistic_probe(data: Scaled) -> Answer:
    """Multinomial logistic regression with an L2 penalty; C is chosen on the validation part.

    On a tie the stronger penalty wins. Each fit begins at the one before it.
    """
    from sklearn.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
        ConvergenceWarning,
    )
    from sklearn.linear_model import (  # pyright: ignore[reportMissingTypeStubs]
        LogisticRegression,
    )

    found: Any = cast("Any", LogisticRegression)(max_iter=STEPS, warm_start=True)
    best: tuple[float, Answer] | None = None
    for c in PENALTIES:
        found.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cast("Any", ConvergenceWarning))
            found.fit(*data.train)
        score = _top1(found, *data.val)
        if best is None or score > best[0]:
            best = (score, Answer(_right(found, *data.test), c, _top1(found, *data.train)))
    assert best is not None
    return best[1]


def scale(train: Vectors, *others: Vectors) -> list[Vectors]:
    """Each feature with mean 0 and variance 1 in the training part; constant ones become 0."""
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    factor = np.where(std > 1e-8 * (np.abs(mean) + 1e-30), 1 / np.where(std > 0, std, 1), 0.0)
    return [((part - mean) * factor).astype(np.float64) for part in (train, *others)]


def top1_interval(right: Bool[np.ndarray, "N"]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the share that is right: counts drawn as resamples would."""
    rng, share = np.random.default_rng(0), float(right.mean())
    return interval(rng.binomial(len(right), share, size=RESAMPLES) / len(right), share)


def gap_interval(right: Bool[np.ndarray, "N"], other: Bool[np.ndarray, "N"]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the difference of two classifiers on the same images."""
    rng, count = np.random.default_rng(0), len(right)
    difference = right.astype(np.int64) - other.astype(np.int64)
    shares = [float((difference == value).mean()) for value in (1, 0, -1)]
    drawn = rng.multinomial(count, shares, size=RESAMPLES)
    return interval((drawn[:, 0] - drawn[:, 2]) / count, float(difference.mean()))


def _top1(found: Any, vectors: Vectors, labels: Labels) -> float:
    return float(_right(found, vectors, labels).mean())


def _right(found: Any, vectors: Vectors, labels: Labels) -> Bool[np.ndarray, "_n"]:
    return np.asarray(found.predict(vectors) == labels)
