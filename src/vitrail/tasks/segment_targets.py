"""Segments as a model's own: its class numbers, its losses' tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import DataError
from vitrail.tasks.mask_loss import MaskTruth
from vitrail.tasks.matching import Truth
from vitrail.tasks.segment_loss import IGNORED, PixelTruth
from vitrail.types import VOID, Grid, Segments, Target


class Relabelled(Sequence[Target]):
    """Segments with another's class numbers, read when they are asked for."""

    def __init__(self, targets: Sequence[Target], index: Sequence[int]) -> None:
        self._targets, self._index = targets, tuple(index)

    def __len__(self) -> int:
        """How many."""
        return len(self._targets)

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        """One of them, or some."""
        if isinstance(index, slice):
            return Relabelled(self._targets[index], self._index)
        target = self._targets[index]
        if not isinstance(target, Segments):
            raise DataError(
                "evaluation needs a label for every sample; to label new images: predict"
            )
        labels = tuple(VOID if label == VOID else self._index[label] for label in target.labels)
        return replace(target, labels=labels)


def pixel_truth(
    targets: Sequence[Target], *, background: bool, device: torch.device | str
) -> PixelTruth:
    """The output that is right at each pixel.

    Where segments overlap the first layer counts. A pixel of no segment is background; where there
    is no such output it is not judged.
    """
    rows = [_classes(target, background=background) for target in targets]
    return PixelTruth(torch.stack(rows).to(device))


def _classes(target: Target, *, background: bool) -> Tensor:
    assert isinstance(target, Segments), "a segmenter learns from segments"
    nothing = 0 if background else IGNORED
    outputs = [IGNORED if label == VOID else label + background for label in target.labels]
    table = torch.tensor([nothing, *outputs])
    ids = target.ids[0]
    for layer in target.ids[1:]:
        ids = torch.where(ids == 0, layer, ids)
    return table[ids.long()]


def mask_truths(
    targets: Sequence[Target],
    extents: Sequence[Grid],
    *,
    semantic: bool,
    device: torch.device | str,
) -> list[MaskTruth]:
    """The segments of each view one by one; crowds of objects and void pixels are not judged.

    Args:
        targets: In pixels of the views.
        extents: Rows and columns of each view that show its image; empty where all do.
        semantic: Whether the segments of a class are one.
        device: Where tensors go.
    """
    extents = extents or [target.size for target in targets if isinstance(target, Segments)]
    return [
        _masks(target, extent, semantic=semantic, device=device)
        for target, extent in zip(targets, extents, strict=True)
    ]


def _masks(
    target: Target, extent: Grid, *, semantic: bool, device: torch.device | str
) -> MaskTruth:
    assert isinstance(target, Segments), "a segmenter learns from segments"
    ids = target.ids.to(device)
    crowds = target.crowds or (False,) * len(target.labels)
    shown = set(np.unique(ids.numpy(force=True)).tolist()) - {0}
    kept = [
        number
        for number, (label, crowd) in enumerate(zip(target.labels, crowds, strict=True), start=1)
        if number in shown and label != VOID and (semantic or not crowd)
    ]
    others = sorted(shown.difference(kept))
    labels = [target.labels[number - 1] for number in kept]
    groups = [[number] for number in kept]
    if semantic:
        labels = sorted(set(labels))
        groups = [[n for n in kept if target.labels[n - 1] == label] for label in labels]
    table = ids.new_zeros((len(groups) + 1, len(target.labels) + 1), dtype=torch.bool)
    for row, numbers in enumerate([*groups, others]):
        table[row, numbers] = True
    masks = table[:, ids[0].long()]
    for layer in ids[1:]:
        masks |= table[:, layer.long()]
    truth = Truth(torch.tensor(labels, dtype=torch.long, device=device), _boxes(masks[:-1], extent))
    return MaskTruth(truth, masks[:-1], ~masks[-1])


def _boxes(masks: Tensor, extent: Grid) -> Tensor:
    """Around each mask, cxcywh as shares of what shows the image."""
    if not len(masks):
        return masks.new_zeros((0, 4), dtype=torch.float32)
    ends: list[Tensor] = []
    for axis, shown in ((1, extent[1]), (2, extent[0])):
        line = masks.any(axis).float()
        first, last = line.argmax(1), line.shape[1] - line.flip(1).argmax(1)
        ends += [(first + last) / 2 / shown, (last - first) / shown]
    return torch.stack([ends[0], ends[2], ends[1], ends[3]], dim=1).float()
