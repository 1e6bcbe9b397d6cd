"""What became of the true segments of all test images: found, missed, split, merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from vitrail.masks import area
from vitrail.metrics.mask_truth import truth_of
from vitrail.metrics.segment_pairs import Paired, pair_segments
from vitrail.report_regions import VERDICTS
from vitrail.report_segments_shown import Shown
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Segmentation, Segments, Target

SIZES = (
    ("small, up to 32 x 32 pixels", 32.0**2),
    ("medium, up to 96 x 96", 96.0**2),
    ("large", float("inf")),
)
"""COCO's sizes and the area in pixels up to which an object is of one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of the true segments of all test images.

    Attributes:
        verdicts: How many of each; crowds are not among them.
        by_size: For each size, likewise.
        wrong: Answers that found nothing.
        mistaken: True and answered class of segments that were taken for another one.
    """

    verdicts: Counter[str]
    by_size: dict[str, Counter[str]]
    wrong: int
    mistaken: Counter[tuple[str, str]]


def judge_all(task: SegmentConfig, targets: Sequence[Target], shown: Sequence[Shown]) -> Judged:
    """Pair the segments of every image, one image at a time.

    Args:
        task: What was asked for.
        targets: The segments of the split, with the model's class numbers.
        shown: The images that were answered.
    """
    index = {name: i for i, name in enumerate(task.classes)}
    judged = Judged(Counter(), {name: Counter() for name, _ in SIZES}, 0, Counter())
    wrong = 0
    for one in shown:
        target = cast("Segments", targets[one.index])
        truth = truth_of(target, background=task.background)
        regions = one.found.regions
        labels = [index[region.label] for region in regions]
        paired = pair_segments([r.rle for r in regions], labels, truth, target.size)
        wrong += len(paired.wrong)
        for rle, verdict in zip(truth.rles, paired.verdicts, strict=True):
            if verdict != "crowd":
                pixels = area(rle, target.size)
                judged.verdicts[verdict] += 1
                judged.by_size[_size(pixels)][verdict] += 1
        _count_mistaken(judged, paired, [task.classes[n] for n in truth.labels], one.found)
    return replace(judged, wrong=wrong)


def _count_mistaken(
    judged: Judged, paired: Paired, true: Sequence[str], found: Segmentation
) -> None:
    for n, m in paired.mistaken:
        judged.mistaken[true[n], found.regions[m].label] += 1


def _size(pixels: int) -> str:
    return next(name for name, most in SIZES if pixels <= most)


def rows_by_size(judged: Judged) -> list[dict[str, Any]]:
    """What became of the objects of each size that there is."""
    return [
        {
            "name": name,
            "objects": counts.total(),
            "counts": [counts[verdict] for verdict in VERDICTS],
        }
        for name, counts in (*judged.by_size.items(), ("all", judged.verdicts))
        if counts.total()
    ]
