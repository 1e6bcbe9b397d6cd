"""Each answer of a detector beside the objects: right, of another class, or about nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vitrail.metrics.detection_matches import xywh
from vitrail.types import Boxes, Corners, Detection

OVERLAP = 0.5
"""IoU from which on a detection is about an object."""

Verdict = Literal["right", "other", "nothing", "crowd"]
"""Whether an answer has the class of its object, another one, no object, or lies on a crowd."""


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


def judge(found: Detection, target: Boxes, classes: Sequence[str], threshold: float) -> Judged:
    """Pair the answers for an image with its objects.

    The surest answer chooses first, among the objects that are free and that it overlaps by
    `OVERLAP`: one of its own class before others, then the one that it overlaps most.

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
    from pycocotools import mask

    if not boxes or not target.items:
        return np.zeros((len(boxes), len(target.items)))
    ours = np.array([xywh(corners) for corners in boxes])
    theirs = np.array([xywh(box.corners) for box in target.items])
    return np.asarray(mask.iou(ours, theirs, [int(box.crowd) for box in target.items]))
