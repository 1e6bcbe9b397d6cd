"""Prediction of large images in overlapping tiles, merged once (as SAHI, Akyon et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.data.workers import Serial
from vitrail.errors import BadSampleError, UserError
from vitrail.model import Model
from vitrail.nn.boxes import box_area, iou
from vitrail.predict import Row, predict
from vitrail.types import Corners, Detection, Grid, Sample

MANY = 10_000
"""Tiles of one image above which their side must be a slip: the answer would take hours."""
SAME = 0.5
"""IoU from which on two boxes of one class, of different tiles, are one object."""
PART = 0.7
"""Share of a cut box inside another from which on it is a part of that object."""
TOUCH = 0.01
"""Distance to a border, in sides of the tile, up to which a box is cut by it."""


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Tiles(Dataset):
    """Windows of one image."""

    def __init__(self, sample: Sample, windows: Sequence[Window]) -> None:
        self.sample, self.windows = sample, windows
        self.classes, self.multilabel = (), False
        self.ids = [str(i) for i in range(len(windows))]
        self.targets = [None] * len(windows)

    def read(self, index: int) -> Sample:
        """The pixels of one window."""
        top, left, height, width = self.windows[index]
        pixels = self.sample.image[:, top : top + height, left : left + width]
        return Sample(self.ids[index], pixels, None)

    def read_bytes(self, index: int) -> bytes:
        """The same as bytes."""
        return self.read(index).image.contiguous().numpy().tobytes()


def predict_sliced(
    model: Model, dataset: Dataset, *, size: int, overlap: float = 0.2, batch_size: int = 32
) -> Iterator[Row]:
    """Predict the whole of each image, and tiles of it where it is larger than one.

    Args:
        model: A detector.
        dataset: Labels are not needed.
        size: Side of a tile in pixels of the image.
        overlap: Least share of a tile that its neighbour has too, 0 to below 1; it should hold the
            objects that only the tiles can show.
        batch_size: Tiles a forward pass.

    Yields:
        One row an image in the order of `dataset.ids`.

    Raises:
        UserError: size or overlap out of range.
    """
    if size < 1 or not 0 <= overlap < 1:
        raise UserError(
            f"--slice {size} --overlap {overlap}: give tiles of at least one pixel, and an overlap "
            "from 0 to below 1"
        )
    for index, path in enumerate(dataset.ids):
        try:
            sample = dataset.read(index)
        except BadSampleError as error:
            yield Row(path, error=str(error))
            continue
        whole = (sample.image.shape[1], sample.image.shape[2])
        parts = tiles(whole, size, overlap)
        if len(parts) > MANY:
            reason = f"{len(parts):,} tiles are too many; give a larger --slice or less --overlap"
            yield Row(path, error=reason)
            continue
        rows = predict(model, Tiles(sample, parts), batch_size=batch_size, workers=Serial())
        found = [row.prediction for row in rows if isinstance(row.prediction, Detection)]
        yield Row(path, merge(found, parts, whole), size=whole)


def tiles(size: Grid, side: int, overlap: float) -> list[Window]:
    """The whole image, then the tiles that cover it evenly; none where it fits into one."""
    height, width = size
    whole = Window(0, 0, height, width)
    if max(size) <= side:
        return [whole]
    rows, columns = (_starts(length, side, overlap) for length in size)
    return [whole] + [
        Window(top, left, min(side, height), min(side, width)) for top in rows for left in columns
    ]


def merge(found: Sequence[Detection], windows: Sequence[Window], size: Grid) -> Detection:
    """One answer from those of all windows.

    Objects of one window are never merged: the detector told them apart. A box that ends at the
    border of its tile gives way to one of another window that has the object whole, if that is at
    least half as sure. Then the surest box stands for all of its class that overlap it by `SAME`,
    or, if one of the two is cut, of which the smaller lies in the larger by `PART`.

    Args:
        found: One answer a window, in pixels of the window.
        windows: Where they lie; one alone is taken as it is.
        size: Height and width of the image.
    """
    assert len(found) == len(windows) > 0, "one answer a window"
    if len(windows) == 1:
        return found[0]
    boxes, cut = _placed(found, windows, size)
    labels = [label for each in found for label in each.labels]
    scores = torch.tensor([score for each in found for score in each.scores], dtype=torch.float64)
    owners = torch.tensor([i for i, each in enumerate(found) for _ in each.labels])
    kept: list[int] = []
    for name in dict.fromkeys(labels):
        own = torch.tensor([i for i, label in enumerate(labels) if label == name])
        places = _distinct(boxes[own], scores[own], owners[own], cut[own])
        kept += [int(own[i]) for i in places]
    kept.sort(key=lambda i: -float(scores[i]))
    corners = [tuple(map(float, row)) for row in boxes[kept]]
    return Detection(
        tuple(cast("list[Corners]", corners)),
        tuple(labels[i] for i in kept),
        tuple(float(scores[i]) for i in kept),
    )


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - overlap))) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _placed(
    found: Sequence[Detection], windows: Sequence[Window], size: Grid
) -> tuple[Float[Tensor, "N 4"], Bool[Tensor, "N"]]:
    """All boxes in pixels of the image, and which of them a tile's border cuts."""
    boxes: list[Tensor] = []
    cut: list[Tensor] = []
    for each, (top, left, height, width) in zip(found, windows, strict=True):
        own = torch.tensor(each.boxes, dtype=torch.float64).reshape(-1, 4)
        near = TOUCH * max(height, width)
        inner = [left > 0, top > 0, left + width < size[1], top + height < size[0]]
        gaps = torch.stack([own[:, 0], own[:, 1], width - own[:, 2], height - own[:, 3]], dim=1)
        cut.append(((gaps <= near) & torch.tensor(inner)).any(dim=1))
        boxes.append(own + torch.tensor([left, top, left, top]))
    return torch.cat(boxes), torch.cat(cut)


def _distinct(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    owners: Int[Tensor, "N"],
    cut: Bool[Tensor, "N"],
) -> list[int]:
    """Which boxes of one class are left."""
    areas = box_area(boxes).clamp_min(1e-9)
    alive = torch.ones_like(cut)
    for i in map(int, cut.nonzero()):
        overlap, union = iou(boxes[i], boxes)
        inside = overlap * union / areas[i] >= PART
        alive[i] = not (inside & ~cut & (owners != owners[i]) & (scores >= scores[i] / 2)).any()
    kept: list[int] = []
    for i in map(int, scores.argsort(descending=True, stable=True)):
        if not alive[i]:
            continue
        kept.append(i)
        overlap, union = iou(boxes[i], boxes)
        part = overlap * union / torch.minimum(areas, areas[i]) >= PART
        same = (overlap >= SAME) | (part & (cut | cut[i]))
        alive &= ~(same & (owners != owners[i]))
    return kept
