"""Metrics of segmentation: areas, boundaries, centrelines, objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vitrail.config import Config
from vitrail.metrics.agreement import f_measure, mean_of_defined, pooled_f_measure
from vitrail.metrics.classification import RESAMPLES, interval
from vitrail.metrics.detection_curves import Curve, curve
from vitrail.metrics.detection_intervals import precision_intervals
from vitrail.metrics.detection_matches import Evaluated
from vitrail.metrics.mask_curve import pixel_curve
from vitrail.metrics.mask_overlap import dice, iou, precision, recall
from vitrail.metrics.measured import Measured
from vitrail.metrics.panoptic_quality import panoptic_quality
from vitrail.metrics.segmentation_images import AnswerKind, Counts, Plan, count
from vitrail.types import Segmentation, Segments


class ClassSegmentation(Config):
    """Metrics of one class; None where it is not asked for, or there is nothing to measure.

    Attributes:
        name: Its name.
        pixels: Pixels that are of it; None for objects, which overlap.
        iou: Intersection over union of all pixels of the set, as the next three.
        dice: F1 of the pixels.
        precision: Share of the pixels taken for it that are of it.
        recall: Share of its pixels that are found.
        objects: Segments to be found; None for classes alone.
        ap: Average precision of masks, mean over IoU 0.5 to 0.95.
        ap50: Average precision at IoU 0.5.
        pq: Panoptic quality, the product of the next two.
        sq: Mean IoU of the segments that are found.
        rq: F1 of finding them.
    """

    name: str
    pixels: int | None = None
    iou: float | None = None
    dice: float | None = None
    precision: float | None = None
    recall: float | None = None
    objects: int | None = None
    ap: float | None = None
    ap50: float | None = None
    pq: float | None = None
    sq: float | None = None
    rq: float | None = None


class ImageSegmentation(Config):
    """One image, to find those that went worst.

    Attributes:
        pixels: Pixels that are judged.
        wrong: Those of them that are taken for something else.
        dice: As in the mean `dice`; None where no pixel is judged.
        pq: Panoptic quality of its segments, all classes together; None for classes alone, and
            without segments.
        cldice: As in the mean `cldice`, where that is measured.
    """

    pixels: int
    wrong: int
    dice: float | None
    pq: float | None = None
    cldice: float | None = None


class SegmentationMetrics(Measured):
    """All that is measured on one labelled set.

    Void pixels count nowhere: they are cut from truth and answers before anything is measured.
    Background is a class of `miou` and `pixel_accuracy` alone. What an image neither shows nor is
    said to show does not count there; an image without any truth and answer counts 1, one with
    truth or answer alone 0. Metrics of nothing are 0.

    Attributes:
        count: Images measured.
        metrics: Fractions from 0 to 1, but for `betti0_error`.

            Of classes, and of the classes of panoptic answers: `miou`, `pixel_accuracy` and `f1`
            (of all foreground pixels, classes together) are pooled over all pixels of the set;
            `dice` is the mean over images of each one's mean over classes. `boundary_f` is DAVIS's
            F of boundaries with `tolerance` pixels, the mean likewise.

            Of one class on a background also `iou`, pooled; `f1_tolerance`, pooled, and
            `f1_tolerance_per_image`: answered pixels within `tolerance` pixels of the truth, true
            ones within as many of the answer; `cldice` (Shit et al. 2021), the mean over images,
            and `cldice_pooled`; `betti0_error`, the mean difference in the number of pieces.

            Of objects: COCO's `mask_map` (mean over IoU 0.5 to 0.95 and classes), `mask_map50`,
            `mask_map75`; `dice`, `f1`, `iou` and `boundary_f` of all objects from the threshold on
            as one foreground; `pq`, `sq` and `rq` of these objects.

            Of panoptic answers `pq`, `sq`, `rq` (Kirillov et al. 2019), and `pq_th` and `pq_st` of
            objects and stuff alone.
        intervals: Bootstrap 95 % interval of all but `mask_map75`: images are drawn, seeded, 1000
            times; for `mask_map` and `mask_map50` 200 times, less often on large data.
        answer: What was answered: classes, objects, or both.
        per_class: One row a class; there is none for the background.
        confusion: Pixels. Rows are true classes, columns answered ones; the last of each is the
            background, or no answer. Empty for objects.
        images: One row an image, in order.
        curve: Precision and recall by threshold: of pixels where there is one class and every
            answer has a probability a pixel, of objects at IoU 0.5; else None.
        threshold: That of the best F1 in `curve`; None without one. It is chosen on the very images
            that are measured.
    """

    answer: AnswerKind
    per_class: tuple[ClassSegmentation, ...]
    confusion: tuple[tuple[int, ...], ...]
    images: tuple[ImageSegmentation, ...]
    curve: Curve | None
    threshold: float | None


def segmentation_metrics(  # noqa: PLR0913 what was asked for takes four
    predictions: Sequence[Segmentation],
    targets: Sequence[Segments],
    classes: Sequence[str],
    *,
    answer: AnswerKind,
    background: bool,
    things: Sequence[bool] | None = None,
    threshold: float = 0.5,
    tolerance: int = 2,
    intervals: bool = True,
    full: bool = True,
) -> SegmentationMetrics:
    """Measure segments against the truth.

    Args:
        predictions: One an image, in pixels of the original image.
        targets: One an image, in the same pixels; read once each, one at a time.
        classes: Class names, all that the predictions use.
        answer: Classes, objects, or both.
        background: Whether a pixel in no segment is background; else nobody judges it.
        things: Of `panoptic`, whether each class is one of objects.
        threshold: Of `instance`: score from which on an object counts, but in average precision.
        tolerance: Pixels by which boundaries and thin things may be off.
        intervals: Whether to bootstrap; validation while training does without.
        full: Whether to measure boundaries, centrelines and pieces, which take long.
    """
    assert len(predictions) == len(targets) > 0, "metrics need at least one image, one answer each"
    index = {name: i for i, name in enumerate(classes)}
    plan = Plan(index, answer, background, tolerance, threshold, full)
    seen = count(predictions, targets, plan)
    headline = _Headline(seen, plan, things)
    found = seen.rows.evaluate(len(classes)) if answer == "instance" else None
    once = headline.values(np.ones((1, len(targets))))
    metrics = {name: float(np.nan_to_num(value[0])) for name, value in once.items()}
    precisions = {} if found is None else _precisions(found)
    drawn: dict[str, tuple[float, float]] = {}
    if intervals:
        drawn = headline.intervals(metrics)
        if found is not None:
            both = {name: precisions[name] for name in ("mask_map", "mask_map50")}
            drawn |= precision_intervals(found.matches, both)
    points = _curve(seen, found)
    return SegmentationMetrics(
        count=len(targets),
        metrics=precisions | metrics,
        intervals=drawn,
        answer=answer,
        per_class=tuple(_row(name, i, seen, found) for i, name in enumerate(classes)),
        confusion=() if answer == "instance" else tuple(tuple(r) for r in seen.table.tolist()),
        images=_images(seen),
        curve=points,
        threshold=None if points is None or points.best is None else points.best.threshold,
    )


class _Headline:
    """The metrics for any way of counting the images: once each, or as a bootstrap draws them."""

    def __init__(self, seen: Counts, plan: Plan, things: Sequence[bool] | None) -> None:
        self._plan = plan
        self._pixels = np.stack(seen.pixels)
        self._pairs = {name: np.stack(each) for name, each in seen.pairs.items()}
        self._values = {"dice": _dice(self._pixels)} | {
            name: np.array(each) for name, each in seen.values.items()
        }
        self._quality = np.stack(seen.quality) if seen.quality else None
        self._things = None if things is None else np.array(things, dtype=np.bool_)

    def values(self, weights: Float[np.ndarray, "R N"]) -> dict[str, Float[np.ndarray, "R"]]:
        """Each metric for each row of weights; NaN where there is nothing to measure."""
        result = self._areas(weights)
        for name, each in self._values.items():
            result[name] = mean_of_defined(np.broadcast_to(each, weights.shape), weights)
        for name, pairs in self._pairs.items():
            result[name] = pooled_f_measure(weights @ pairs)
        if self._quality is not None:
            sums = np.tensordot(weights, self._quality, axes=1)
            names = ("pq", "sq", "rq")
            result |= dict(zip(names, _mean_quality(sums, None), strict=True))
            if self._plan.answer == "panoptic" and self._things is not None:
                result["pq_th"] = _mean_quality(sums, self._things)[0]
                result["pq_st"] = _mean_quality(sums, ~self._things)[0]
        return result

    def intervals(self, metrics: dict[str, float]) -> dict[str, tuple[float, float]]:
        """Draw images with replacement."""
        images = len(self._pixels)
        rng = np.random.default_rng(0)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
        result: dict[str, tuple[float, float]] = {}
        for name, values in self.values(weights.astype(np.float64)).items():
            defined = values[~np.isnan(values)]
            if defined.size:
                result[name] = interval(defined, metrics[name])
        return result

    def _areas(self, weights: Float[np.ndarray, "R N"]) -> dict[str, Float[np.ndarray, "R"]]:
        pixels = np.tensordot(weights, self._pixels, axes=1)
        foreground = pooled_f_measure(pixels[:, :-1].sum(axis=1))
        if self._plan.answer == "instance" or self._plan.thin:
            own = {"iou": iou(pixels[:, 0])}
        else:
            own = {}
        if self._plan.answer != "instance":
            scored = iou(pixels if self._plan.background else pixels[:, :-1])
            right, true = pixels[..., 0].sum(axis=1), pixels[..., 3].sum(axis=1)
            accuracy = np.divide(right, true, out=np.full_like(true, np.nan), where=true > 0)
            own |= {"miou": mean_of_defined(scored), "pixel_accuracy": accuracy}
        return own | {"f1": foreground}


def _dice(pixels: Float[np.ndarray, "N K 4"]) -> Float[np.ndarray, "N"]:
    judged = pixels[..., 3].sum(axis=1) > 0
    return np.where(judged, dice(pixels[:, :-1]), np.nan)


def _mean_quality(
    sums: Float[np.ndarray, "R C 4"], among: Bool[np.ndarray, "C"] | None
) -> list[Float[np.ndarray, "R"]]:
    return list(mean_of_defined(np.moveaxis(panoptic_quality(sums, among), -1, 0)))


def _precisions(found: Evaluated) -> dict[str, float]:
    whole = found.precision[..., 0]
    parts = {"mask_map": whole, "mask_map50": whole[0], "mask_map75": whole[5]}
    return {
        name: float(np.nan_to_num(mean_of_defined(part.ravel()))) for name, part in parts.items()
    }


def _curve(seen: Counts, found: Evaluated | None) -> Curve | None:
    if found is not None:
        return curve(found.matches)
    return pixel_curve(seen.levels) if seen.sure == len(seen.pixels) else None


def _row(name: str, place: int, seen: Counts, found: Evaluated | None) -> ClassSegmentation:
    row: dict[str, float | None] = {}
    if seen.quality:
        counts = np.sum(seen.quality, axis=0)
        each = map(_known, panoptic_quality(counts)[place])
        row |= dict(zip(("pq", "sq", "rq"), each, strict=True))
        row["objects"] = int(counts[place, 1] + counts[place, 3])
    if found is not None:
        row["ap"] = _known(mean_of_defined(found.precision[:, :, place, 0].ravel()))
        row["ap50"] = _known(mean_of_defined(found.precision[0, :, place, 0]))
    else:
        pixels = np.sum(seen.pixels, axis=0)[place]
        row |= {"precision": precision(pixels), "recall": recall(pixels), "pixels": int(pixels[3])}
        row["iou"] = _known(iou(pixels))
        row["dice"] = None if row["iou"] is None else float(f_measure(pixels))
    return ClassSegmentation.model_validate({"name": name, **row})


def _images(seen: Counts) -> tuple[ImageSegmentation, ...]:
    pixels = np.stack(seen.pixels)
    true, right = pixels[..., 3].sum(axis=1), pixels[..., 0].sum(axis=1)
    lines = seen.values.get("cldice", [np.nan] * len(pixels))
    rows: list[ImageSegmentation] = []
    for i, each in enumerate(_dice(pixels)):
        pq = None
        if seen.quality:
            pq = _known(panoptic_quality(seen.quality[i].sum(axis=0, keepdims=True))[0, 0])
        rows.append(
            ImageSegmentation(
                pixels=int(true[i]),
                wrong=int(true[i] - right[i]),
                dice=_known(each),
                pq=pq,
                cldice=_known(lines[i]),
            )
        )
    return tuple(rows)


def _known(value: float | Float[np.ndarray, ""]) -> float | None:
    return None if np.isnan(value) else float(value)
