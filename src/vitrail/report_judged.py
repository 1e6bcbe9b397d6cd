"""Each answer of a detector beside the objects: right, of another class, or about nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vitrail.metrics.detection_confusion import OVERLAP
from vitrail.metrics.detection_matches import match
from vitrail.types import Box, Boxes, Corners, Detection

Verdict = Literal["right", "other", "nothing", "crowd"]
"""Whether an answer has the class of its object, another one, no object, or lies on a crowd."""

STEPS = 100
"""Thresholds between 0 and 1 at which answers are counted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One detection.

    Attributes:
        number: Its place in the prediction.
        verdict: What it is worth.
        about: Number of the object that it is about; None without one.
    """

    number: int
    verdict: Verdict
    about: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One image.

    Attributes:
        answers: The detections that count, the surest first.
        missed: Numbers of the objects that none of them is about.
    """

    answers: tuple[Answer, ...]
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What comes of believing answers from each threshold on, at IoU 0.5.

    Attributes:
        thresholds: Scores, ascending.
        support: Objects of each class.
        given: Answers of each class from each threshold on; those on crowds are left out.
        right: How many of them found an object.
    """

    thresholds: tuple[float, ...]
    support: tuple[int, ...]
    given: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]


def judge(found: Detection, target: Boxes, classes: Sequence[str], threshold: float) -> Judged:
    """Pair answers with objects by the rules of `detection_confusion.confusion`.

    Args:
        found: The prediction for an image.
        target: Its objects, in the same pixels.
        classes: Class names.
        threshold: Score from which on an answer counts.
    """
    sure = [i for i, score in enumerate(found.scores) if score >= threshold]
    sure.sort(key=lambda i: -found.scores[i])
    shares = overlaps([found.boxes[i] for i in sure], target)
    free = {i for i, box in enumerate(target.items) if not box.crowd}
    answers: list[Answer] = []
    for i, row in zip(sure, shares, strict=True):
        label = classes.index(found.labels[i])
        near = [k for k in free if row[k] >= OVERLAP]
        if near:
            chosen = max(near, key=lambda k: (target.items[k].label == label, row[k], -k))
            free.remove(chosen)
            same = target.items[chosen].label == label
            answers.append(Answer(i, "right" if same else "other", chosen))
        elif any(
            box.crowd and box.label == label and share >= OVERLAP
            for box, share in zip(target.items, row, strict=True)
        ):
            answers.append(Answer(i, "crowd"))
        else:
            answers.append(Answer(i, "nothing"))
    return Judged(tuple(answers), tuple(sorted(free)))


def overlaps(boxes: Sequence[Corners], target: Boxes) -> Float[np.ndarray, "D G"]:
    """IoU of each box and object; with a crowd, the share of the box that lies in it."""
    ours = np.array(boxes, dtype=np.float64).reshape(-1, 1, 4)
    theirs = np.array([box.corners for box in target.items], dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(ours[..., :2], theirs[..., :2])
    high = np.minimum(ours[..., 2:], theirs[..., 2:])
    shared: NDArray[np.float64] = (high - low).clip(min=0).prod(axis=-1)
    own: NDArray[np.float64] = (ours[..., 2:] - ours[..., :2]).prod(axis=-1)
    other: NDArray[np.float64] = (theirs[..., 2:] - theirs[..., :2]).prod(axis=-1)
    crowd = np.array([box.crowd for box in target.items], dtype=np.bool_)
    return shared / np.maximum(own + (other - shared) * ~crowd, 1e-9)


def area_of(box: Box) -> float:
    """Pixels of an object; of its box where the data do not know them."""
    if box.area is not None:
        return box.area
    x1, y1, x2, y2 = box.corners
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def count_by_threshold(
    predictions: Sequence[Detection],
    targets: Sequence[Boxes],
    classes: Sequence[str],
    threshold: float,
) -> Counts:
    """Answers that are right and wrong from every threshold on.

    Args:
        predictions: One an image.
        targets: One an image.
        classes: Class names.
        threshold: One that is among the thresholds beside the even steps.
    """
    places = sorted({i / STEPS for i in range(STEPS + 1)} | {threshold})
    given: list[tuple[int, ...]] = []
    right: list[tuple[int, ...]] = []
    support: list[int] = []
    for one in match(predictions, targets, classes).matches:
        kept = ~one.ignored[0]
        scores, hits = one.scores[kept], np.append(0, np.cumsum(one.right[0, kept]))
        ends = np.searchsorted(-scores, -np.array(places), side="right")
        given.append(tuple(int(end) for end in ends))
        right.append(tuple(int(hits[end]) for end in ends))
        support.append(int(one.objects.sum()))
    return Counts(tuple(places), tuple(support), tuple(given), tuple(right))
