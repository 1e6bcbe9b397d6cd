"""Objects of another view come with their labels, and cover little."""

from __future__ import annotations

import numpy as np

from marked import COLOURS, check, marked
from vitrail.data.copy_paste import MARGIN, MOST, MOST_COVERED, copy_paste
from vitrail.data.framing import Rectangle, boxes_of, clipped
from vitrail.types import Box, Boxes, Sample, View


def shown(sample: Sample) -> View:
    return View(sample.image, sample.target)


EMPTY = shown(marked([], (80, 100)))
OTHER = shown(marked([(10, 10, 30, 40), (50, 20, 80, 60)], (80, 100)))


def test_pasted_objects_are_there() -> None:
    counts: set[int] = set()
    for seed in range(30):
        view = copy_paste(EMPTY, OTHER, 0.3, np.random.default_rng(seed))
        boxes = check(view, slack=0) if len(boxes_of(view).items) == 1 else boxes_of(view)
        counts.add(len(boxes.items))
        assert {box.label for box in boxes.items} <= {0, 1}
    assert counts == {1, 2}
    assert not EMPTY.image.any(), "the view itself is not changed"


def test_edges_are_soft() -> None:
    bright = View(255 - EMPTY.image, EMPTY.target)
    one = shown(marked([(10, 10, 30, 40)], (80, 100)))
    view = copy_paste(bright, one, 0.3, np.random.default_rng(0))
    box = boxes_of(view).items[0]
    x, y = int(box.corners[0]), int((box.corners[1] + box.corners[3]) / 2)
    line = view.image[:, y, x - MARGIN : x].float().mean(dim=0)
    assert line[1:].tolist() == [159, 96, 32]
    assert view.image[:, y, x + 2].tolist() == COLOURS[box.label].tolist()


def test_little_is_covered() -> None:
    crowded = shown(marked([(0, 0, 60, 80)], (80, 100), [5]))
    pasted = 0
    for seed in range(60):
        view = copy_paste(crowded, OTHER, 0.3, np.random.default_rng(seed))
        first, *others = boxes_of(view).items
        assert first == boxes_of(crowded).items[0]
        blue = (view.image.permute(1, 2, 0).numpy() == COLOURS[5]).all(axis=2)
        assert blue.sum() >= (1 - 2 * MOST_COVERED) * 60 * 80
        for box in others:
            x1, y1, x2, y2 = clipped(box.corners, Rectangle(0, 0, 80, 60))
            assert max(0, x2 - x1) * max(0, y2 - y1) <= MOST_COVERED * 60 * 80
        pasted += len(others)
    assert pasted > 20


def test_nothing_to_paste() -> None:
    crowd = View(OTHER.image, Boxes((Box((10, 10, 30, 40), 0, crowd=True),), (80, 100)))
    for other in (EMPTY, crowd):
        assert copy_paste(OTHER, other, 0.3, np.random.default_rng(0)) is OTHER
    full = shown(marked([(0, 0, 100, 80)], (80, 100)))
    view = copy_paste(full, full, 0.3, np.random.default_rng(0))
    assert view.target == full.target, "no place is free"
    small = shown(marked([], (20, 20)))
    assert copy_paste(small, full, 0.3, np.random.default_rng(0)).target == small.target


def test_at_most_a_few() -> None:
    many = [(10.0 * i, 10.0 * j, 10.0 * i + 4, 10.0 * j + 4) for i in range(6) for j in range(6)]
    other = shown(marked(many, (80, 100), [0] * len(many)))
    counts = {
        len(boxes_of(copy_paste(EMPTY, other, 0.9, np.random.default_rng(seed))).items)
        for seed in range(60)
    }
    assert counts == set(range(1, MOST + 1))
