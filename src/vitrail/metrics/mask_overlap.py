"""How many pixels of each class are taken for which, and IoU, Dice and accuracy from that."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from vitrail.metrics.agreement import f_measure, mean_of_defined
from vitrail.metrics.segmentation_maps import ClassMaps


def confusion(maps: ClassMaps) -> Int[np.ndarray, "K K"]:
    """Count the judged pixels of an image.

    Returns:
        Rows are true classes, columns answered ones; the last of each is "no class".
    """
    kinds = maps.classes + 1
    pairs = maps.truth.astype(np.intp) * kinds + maps.answer
    if not maps.judged.all():
        pairs = pairs[maps.judged]
    return np.bincount(pairs.ravel(), minlength=kinds * kinds).reshape(kinds, kinds)


def counted(table: Int[np.ndarray, "K K"]) -> Int[np.ndarray, "K 4"]:
    """The pixels of each class as `f_measure` takes them."""
    right = np.diagonal(table)
    return np.stack([right, table.sum(axis=0), right, table.sum(axis=1)], axis=-1)


def iou(counts: Num[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    """Intersection over union; NaN where there is neither truth nor answer."""
    right, answered, _, true = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    whole = answered + true - right
    return np.divide(right, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def precision(counts: Num[np.ndarray, "4"]) -> float | None:
    """Share of the answer that is right; None without an answer."""
    return float(counts[0] / counts[1]) if counts[1] else None


def recall(counts: Num[np.ndarray, "4"]) -> float | None:
    """Share of the truth that is found; None without any."""
    return float(counts[2] / counts[3]) if counts[3] else None


def dice(counts: Int[np.ndarray, "N C 4"]) -> Float[np.ndarray, "N"]:
    """Dice of each image: the mean over the classes that it shows or is said to show.

    Returns:
        1 for an image without truth and answer, as MONAI's `DiceMetric(ignore_empty=False)`.
    """
    present = counts[..., 1] + counts[..., 3] > 0
    value = mean_of_defined(np.where(present, f_measure(counts), np.nan))
    return np.where(np.isnan(value), 1.0, value)
