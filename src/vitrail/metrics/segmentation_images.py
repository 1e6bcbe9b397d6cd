"""What is counted in each image, from which every metric of segmentation follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vitrail.metrics.agreement import f_measure
from vitrail.metrics.boundary import boundary_within, within
from vitrail.metrics.mask_ap import MaskRows
from vitrail.metrics.mask_curve import LEVELS, confidence_map, histogram
from vitrail.metrics.mask_overlap import confusion, counted
from vitrail.metrics.mask_truth import truth_of
from vitrail.metrics.panoptic_quality import quality
from vitrail.metrics.segmentation_maps import ClassMaps, class_maps, foreground_maps
from vitrail.types import Segmentation, Segments

AnswerKind = Literal["semantic", "instance", "panoptic"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Attributes:
        index: Of each class name.
        answer: Classes, objects, or both.
        background: Whether a pixel in no segment is background.
        tolerance: Pixels.
        threshold: Score from which on an object counts, where it is not average precision.
        full: Whether boundaries, centrelines and pieces are measured too.
    """

    index: dict[str, int]
    answer: AnswerKind
    background: bool
    tolerance: int
    threshold: float
    full: bool

    @property
    def thin(self) -> bool:
        """Whether there is one class on a background; then it may be a thin one."""
        return self.answer == "semantic" and self.background and len(self.index) == 1


@dataclass(slots=True)
class Counts:
    """What was counted, one entry an image.

    Attributes:
        table: True against answered classes, "no class" last; the sum of all images.
        pixels: Of each class, "no class" included, as `f_measure` takes them.
        pairs: What is pooled over images, by metric, likewise.
        values: What is averaged over images, by metric; NaN where an image says nothing.
        quality: What `panoptic_quality.quality` gives.
        rows: Objects and answers of all images.
        levels: What `mask_curve.histogram` gives; the sum of all images.
        sure: Images whose answer has a probability at each pixel.
    """

    table: Int[np.ndarray, "K K"]
    pixels: list[Int[np.ndarray, "K 4"]] = field(default_factory=list[np.ndarray])
    pairs: dict[str, list[Int[np.ndarray, "4"]]] = field(
        default_factory=dict[str, list[np.ndarray]]
    )
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    quality: list[Float[np.ndarray, "C 4"]] = field(default_factory=list[np.ndarray])
    rows: MaskRows = field(default_factory=MaskRows)
    levels: Int[np.ndarray, "2 L"] = field(
        default_factory=lambda: np.zeros((2, LEVELS), dtype=np.int64)
    )
    sure: int = 0


def count(predictions: Sequence[Segmentation], targets: Sequence[Segments], plan: Plan) -> Counts:
    """Go through the images once, one at a time: targets may be read from files on the way."""
    kinds = 2 if plan.answer == "instance" else len(plan.index) + 1
    seen = Counts(table=np.zeros((kinds, kinds), dtype=np.int64))
    for prediction, target in zip(predictions, targets, strict=True):
        if plan.answer == "instance":
            maps = foreground_maps(prediction, target, plan.threshold, background=plan.background)
        else:
            maps = class_maps(prediction, target, plan.index, background=plan.background)
        _count_pixels(maps, seen)
        if plan.answer != "semantic":
            _count_segments(prediction, target, plan, seen)
        if plan.full:
            _count_boundaries(maps, plan, seen)
            if plan.thin:
                _count_thin(maps, plan, seen)
        if plan.thin and prediction.confidence is not None:
            truth, _ = maps.masks(0)
            levels = confidence_map(prediction.confidence, prediction.size)
            seen.levels += histogram(levels, truth, maps.judged)
            seen.sure += 1
    return seen


def _count_pixels(maps: ClassMaps, seen: Counts) -> None:
    table = confusion(maps)
    seen.table += table
    seen.pixels.append(counted(table))


def _count_segments(prediction: Segmentation, target: Segments, plan: Plan, seen: Counts) -> None:
    truth = truth_of(target, background=plan.background)
    regions = [
        each
        for each in prediction.regions
        if plan.answer == "panoptic" or each.score >= plan.threshold
    ]
    rles, labels = [each.rle for each in regions], [plan.index[each.label] for each in regions]
    seen.quality.append(quality(rles, labels, truth, target.size, len(plan.index)))
    if plan.answer == "instance":
        seen.rows.add(prediction, truth, plan.index)


def _count_boundaries(maps: ClassMaps, plan: Plan, seen: Counts) -> None:
    masks = [maps.masks(label) for label in _present(seen.pixels[-1])]
    pairs = [boundary_within(answer, truth, plan.tolerance) for truth, answer in masks]
    _average("boundary_f", pairs, maps, seen)


def _count_thin(maps: ClassMaps, plan: Plan, seen: Counts) -> None:
    # Shapes are looked at here: the library that does it is imported when somebody asks.
    from vitrail.metrics.topology import betti0_error, centrelines

    truth, answer = maps.masks(0)
    near, lines = within(answer, truth, plan.tolerance), centrelines(answer, truth)
    seen.pairs.setdefault("f1_tolerance", []).append(near)
    seen.pairs.setdefault("cldice_pooled", []).append(lines)
    _average("f1_tolerance_per_image", [near], maps, seen)
    _average("cldice", [lines], maps, seen)
    error = float(betti0_error(answer, truth)) if maps.judged.any() else np.nan
    seen.values.setdefault("betti0_error", []).append(error)


def _average(name: str, pairs: list[Int[np.ndarray, "4"]], maps: ClassMaps, seen: Counts) -> None:
    """The mean over the classes of an image; 1 where it has none, NaN where none is judged."""
    value = float(np.mean([f_measure(each) for each in pairs])) if pairs else 1.0
    seen.values.setdefault(name, []).append(value if maps.judged.any() else np.nan)


def _present(pixels: Int[np.ndarray, "K 4"]) -> list[int]:
    """Classes that an image shows or is said to show."""
    return np.flatnonzero(pixels[:-1, 1] + pixels[:-1, 3]).tolist()
