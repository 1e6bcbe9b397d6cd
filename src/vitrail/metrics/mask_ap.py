"""Average precision of masks, by COCO's rules: what is handed to its evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitrail.masks import area, as_coco, decode, encode, overlaps
from vitrail.metrics.detection_matches import MOST, Evaluated, evaluate
from vitrail.metrics.mask_truth import Truth
from vitrail.types import Grid, Segmentation


@dataclass(slots=True)
class MaskRows:
    """Objects and answers of all images, as run lengths.

    COCO counts the 100 surest answers of a class in an image. Where an image has more objects than
    that, as many count: else nobody could find them all.
    """

    objects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    found: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    images: int = 0
    most: int = MOST

    def add(self, prediction: Segmentation, truth: Truth, index: Mapping[str, int]) -> None:
        """Take in one image.

        COCO knows no void: its pixels are cut from the answers, and an answer that lies more than
        half in it is left out.
        """
        self.images += 1
        size = prediction.size
        for rle, label, crowd in zip(truth.rles, truth.labels, truth.crowds, strict=True):
            self.objects.append(self._row(rle, size, label) | {"iscrowd": int(crowd)})
        for region in prediction.regions:
            rle = region.rle if truth.void is None else _cut(region.rle, truth.void, size)
            if rle is not None:
                row = self._row(rle, size, index[region.label])
                self.found.append(row | {"iscrowd": 0, "score": region.score})
        self.most = max(self.most, *Counter(truth.labels).values(), 0)

    def evaluate(self, classes: int) -> Evaluated:
        """Run COCO's evaluation; all sizes of objects together."""
        return evaluate(
            self.objects,
            self.found,
            images=self.images,
            classes=classes,
            kind="segm",
            sizes=1,
            most=self.most,
        )

    def _row(self, rle: bytes, size: Grid, label: int) -> dict[str, Any]:
        return {
            "image_id": self.images,
            "category_id": label + 1,
            "segmentation": as_coco(rle, size),
            "area": area(rle, size),
        }


def _cut(rle: bytes, void: bytes, size: Grid) -> bytes | None:
    share = float(overlaps([rle], [void], size, [True])[0, 0])
    if share == 0:
        return rle
    if share > 0.5:
        return None
    return encode(decode(rle, size) & ~decode(void, size))
