"""One image's truth and answer as maps of classes, from which pixels are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16

from vitrail.masks import decode, union
from vitrail.types import VOID, Segmentation, Segments


@dataclass(frozen=True, slots=True)
class ClassMaps:
    """What each pixel is and what it is taken for.

    Attributes:
        truth: Index of the class; the number of classes where there is none.
        answer: Likewise.
        judged: False where nobody knows the truth.
        classes: Number of classes.
    """

    truth: Int16[np.ndarray, "H W"]
    answer: Int16[np.ndarray, "H W"]
    judged: Bool[np.ndarray, "H W"]
    classes: int

    def masks(self, label: int) -> tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
        """Truth and answer of one class; neither has pixels that are not judged."""
        return (self.truth == label) & self.judged, (self.answer == label) & self.judged


def class_maps(
    prediction: Segmentation,
    target: Segments,
    index: Mapping[str, int],
    *,
    background: bool,
) -> ClassMaps:
    """The class of every pixel.

    Args:
        prediction: Regions that do not overlap; where they do, the later one counts.
        target: In the same pixels; where segments overlap the first layer counts, as in training.
        index: Of each class name.
        background: Whether a pixel in no segment is background; else it is not judged.
    """
    _same_size(prediction, target)
    none = len(index)
    table = np.array([none if background else VOID, *target.labels], dtype=np.int16)
    last, *others = target.ids.numpy()[::-1]
    truth = table[last]
    for layer in others:
        truth = np.where(layer > 0, table[layer], truth)
    answer = np.full(target.size, none, dtype=np.int16)
    for region in prediction.regions:
        answer[decode(region.rle, target.size)] = index[region.label]
    return ClassMaps(truth, answer, truth != VOID, none)


def foreground_maps(
    prediction: Segmentation, target: Segments, threshold: float, *, background: bool
) -> ClassMaps:
    """Objects of any class as one class.

    A pixel that lies in a crowd or in a void segment, and in no object, is not judged.

    Args:
        prediction: Objects.
        target: In the same pixels.
        threshold: Score from which on an object counts.
        background: As in `class_maps`.
    """
    _same_size(prediction, target)
    crowds = target.crowds or (False,) * len(target.labels)
    known = [
        label != VOID and not crowd for label, crowd in zip(target.labels, crowds, strict=True)
    ]
    ids = target.ids.numpy()
    true = np.array([False, *known])[ids].any(axis=0)
    unknown = np.array([not background, *(not each for each in known)])[ids].any(axis=0)
    answer = decode(
        union([each.rle for each in prediction.regions if each.score >= threshold], target.size),
        target.size,
    )
    # Class 0 is foreground, 1 is none.
    return ClassMaps(
        np.where(true, 0, 1).astype(np.int16),
        np.where(answer, 0, 1).astype(np.int16),
        np.asarray(true | ~unknown),
        classes=1,
    )


def _same_size(prediction: Segmentation, target: Segments) -> None:
    assert prediction.size == target.size, (
        f"the answer is about {prediction.size} pixels, the truth about {target.size}"
    )
