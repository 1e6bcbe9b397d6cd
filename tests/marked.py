"""Images in which each object is a rectangle of its own colour, so that pixels tell its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.preprocess import Fit, Preprocess, Squash
from vitrail.errors import BadSampleError
from vitrail.types import Box, Boxes, Corners, Grid, Sample, View

COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)],
    dtype=np.uint8,
)
BESIDE = 4
BLACK = (0.0, 0.0, 0.0)
STRETCHED = Preprocess(resize=Squash(size=(96, 128)), interpolation="bilinear", mean=BLACK)
FITTED = Preprocess(
    resize=Fit(short=90, long=140, multiple=32), interpolation="bilinear", mean=BLACK
)


def marked(boxes: Sequence[Corners], size: Grid, labels: Sequence[int] | None = None) -> Sample:
    """A black image with a rectangle a box; the area of an object is half of its box."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    items: list[Box] = []
    for label, corners in zip(labels or range(len(boxes)), boxes, strict=True):
        x1, y1, x2, y2 = map(int, corners)
        pixels[y1:y2, x1:x2] = COLOURS[label]
        exact = float(x1), float(y1), float(x2), float(y2)
        items.append(Box(exact, label, area=(x2 - x1) * (y2 - y1) / 2))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return Sample("marked", image, Boxes(tuple(items), size))


def seen(view: View, box: Box) -> Corners:
    """The extent of the pixels of a box's colour, no further than a little beside the box."""
    x1, y1, x2, y2 = box.corners
    left, top = max(0, int(x1) - BESIDE), max(0, int(y1) - BESIDE)
    near = view.image.permute(1, 2, 0)[top : int(y2) + 1 + BESIDE, left : int(x2) + 1 + BESIDE]
    rows, columns = np.nonzero(((near.numpy() > 127) == (COLOURS[box.label] > 127)).all(axis=2))
    assert len(rows), "no pixel has the colour"
    return (
        float(left + columns.min()),
        float(top + rows.min()),
        float(left + columns.max() + 1),
        float(top + rows.max() + 1),
    )


def check(view: View, slack: float = 2.0) -> Boxes:
    """Boxes lie in what is shown, have an area, and are around their own pixels."""
    boxes = view.target
    assert isinstance(boxes, Boxes)
    rows, columns = view.extent or view.image.shape[1:]
    assert boxes.size == (rows, columns)
    for box in boxes.items:
        x1, y1, x2, y2 = box.corners
        assert min(x1, y1) >= 0
        assert x2 <= columns
        assert y2 <= rows
        assert min(x2 - x1, y2 - y1) > 1 - 1e-6
        if min(x2 - x1, y2 - y1) > 4:
            found = seen(view, box)
            assert np.abs(np.array(found) - box.corners).max() <= slack, (found, box.corners)
        assert box.area is not None
        assert abs(box.area - (x2 - x1) * (y2 - y1) / 2) < 1e-6 * box.area + 1e-9
    return boxes


class Marked(Dataset):
    """Samples that lie in memory; those in `broken` cannot be read."""

    classes = ("a", "b", "c", "d", "e", "f")
    multilabel = False
    boxes = True

    def __init__(self, samples: Sequence[Sample], broken: Sequence[int] = ()) -> None:
        self.samples, self.broken = samples, broken
        self.ids = [f"{index}.png" for index in range(len(samples))]
        self.targets = [sample.target for sample in samples]

    def read(self, index: int) -> Sample:
        if index in self.broken:
            raise BadSampleError("cut off")
        return self.samples[index]

    def read_bytes(self, index: int) -> bytes:
        return self.read(index).image.numpy().tobytes()
