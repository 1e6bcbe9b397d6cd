"""Each segment beside the truth: found, missed, split, merged, or taken for another class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from vitrail.masks import area, overlaps
from vitrail.metrics.mask_truth import Truth
from vitrail.types import Grid

Verdict = Literal["found", "other", "merged", "split", "missed", "crowd"]
"""What became of a true segment: an answer of its class found it; one of another class did; one
answer covers it and others; several answers lie in it; none of that. Crowds are not asked for."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One image.

    Attributes:
        verdicts: One a true segment.
        pairs: Answer and true segment that it found.
        wrong: Answers that found nothing; where they lie mostly in void or in a crowd of their
            class they are no mistake, and not here.
        mistaken: True segment and answer of another class that fits it.
    """

    verdicts: tuple[Verdict, ...]
    pairs: tuple[tuple[int, int], ...]
    wrong: tuple[int, ...]
    mistaken: tuple[tuple[int, int], ...]


def pair_segments(rles: Sequence[bytes], labels: Sequence[int], truth: Truth, size: Grid) -> Paired:
    """Pair the answers for an image with its segments, as panoptic quality does.

    An answer finds a segment of its class by an IoU above 0.5; the greatest IoU chooses first. A
    segment is merged into an answer of its class that covers more than half of it and of another
    one; it is split where two answers of its class or more lie in it by more than half.

    Args:
        rles: Pixels of each answer.
        labels: Class of each.
        truth: The segments of the image.
        size: Its height and width.
    """
    fit = _Fit(rles, labels, truth, size)
    pairs = fit.pairs()
    ours, theirs = {m for m, _ in pairs}, {n for _, n in pairs}
    verdicts: list[Verdict] = []
    mistaken: list[tuple[int, int]] = []
    for n, crowd in enumerate(truth.crowds):
        other = np.flatnonzero(~fit.same[:, n] & (fit.iou[:, n] > 0.5))
        if crowd:
            verdicts.append("crowd")
        elif n in theirs:
            verdicts.append("found")
        elif len(other):
            mistaken.append((n, int(other[fit.iou[other, n].argmax()])))
            verdicts.append("other")
        else:
            verdicts.append(fit.near(n))
    excused = fit.excused()
    wrong = [m for m in range(len(rles)) if m not in ours and not excused[m]]
    return Paired(tuple(verdicts), tuple(pairs), tuple(wrong), tuple(mistaken))


class _Fit:
    """How answers and segments overlap.

    Attributes:
        same: Whether answer and segment are of one class.
        iou: Of both, void pixels left out.
    """

    def __init__(
        self, rles: Sequence[bytes], labels: Sequence[int], truth: Truth, size: Grid
    ) -> None:
        # As if all were crowds: the share of each answer that lies in each segment.
        self._inside = overlaps(rles, truth.rles, size, [True] * len(truth.rles))
        self._void = np.zeros(len(rles))
        if truth.void is not None and rles:
            self._void = overlaps(rles, [truth.void], size, [True])[:, 0]
        ours = np.array([area(rle, size) for rle in rles], dtype=np.float64)
        theirs = np.array([area(rle, size) for rle in truth.rles], dtype=np.float64)
        shared = self._inside * ours[:, None]
        union = (ours * (1 - self._void))[:, None] + theirs - shared
        self._covered = _ratio(shared, np.broadcast_to(theirs, shared.shape))
        self._crowds = np.array(truth.crowds, dtype=np.bool_)
        self.same: Bool[np.ndarray, "M N"] = np.equal.outer(
            np.array(labels, dtype=np.int64), np.array(truth.labels, dtype=np.int64)
        )
        self.iou = _ratio(shared, union)

    def pairs(self) -> list[tuple[int, int]]:
        """Answers and the segments that they found, each at most once."""
        fits = np.argwhere(self.same & ~self._crowds & (self.iou > 0.5)).tolist()
        fits.sort(key=lambda pair: -self.iou[pair[0], pair[1]])
        pairs: list[tuple[int, int]] = []
        for m, n in fits:
            if all(m != other[0] and n != other[1] for other in pairs):
                pairs.append((m, n))
        return pairs

    def near(self, n: int) -> Verdict:
        """What became of a segment that no answer fits."""
        covered = self.same & ~self._crowds & (self._covered > 0.5)
        if (covered[:, n] & (covered.sum(axis=1) > 1)).any():
            return "merged"
        parts = self.same[:, n] & (self._inside[:, n] > 0.5)
        return "split" if int(parts.sum()) > 1 else "missed"

    def excused(self) -> Bool[np.ndarray, "M"]:
        """Answers that lie mostly where nobody judges them."""
        return self._void + (self._inside * (self.same & self._crowds)).sum(axis=1) > 0.5


def _ratio(part: Float[np.ndarray, "M N"], whole: Float[np.ndarray, "M N"]) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
