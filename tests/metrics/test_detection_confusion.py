from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scenes import guesses, scene
from vitrail.metrics.detection_confusion import confusion
from vitrail.types import Box, Boxes, Corners, Detection

CLASSES = ("ant", "bee")
LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)


def table(
    found: list[tuple[Corners, str, float]], objects: list[Box], threshold: float = 0.5
) -> tuple[tuple[int, ...], ...]:
    boxes, labels, scores = zip(*found, strict=True) if found else ((), (), ())
    return confusion(
        [Detection(boxes, labels, scores)], [Boxes(tuple(objects))], CLASSES, threshold
    )


def test_by_hand() -> None:
    objects = [Box(LEFT, 0), Box(RIGHT, 1)]
    assert table([], objects) == ((0, 0, 1), (0, 0, 1), (0, 0, 0))
    right = [(LEFT, "ant", 0.5), (RIGHT, "bee", 0.9)]
    assert table(right, objects) == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert table(right, objects, 0.6) == ((0, 0, 1), (0, 1, 0), (0, 0, 0))
    assert table([(LEFT, "bee", 0.9)], objects) == ((0, 1, 0), (0, 0, 1), (0, 0, 0))
    elsewhere = [((0.0, 50.0, 9.0, 59.0), "bee", 0.9)]
    assert table(elsewhere, []) == ((0, 0, 0), (0, 0, 0), (0, 1, 0))


def test_the_surest_chooses_first_and_an_object_is_found_once() -> None:
    twice = [(LEFT, "bee", 0.8), (LEFT, "ant", 0.9)]
    assert table(twice, [Box(LEFT, 0)]) == ((1, 0, 0), (0, 0, 0), (0, 1, 0))


def test_an_object_of_the_same_class_is_preferred() -> None:
    objects = [Box(LEFT, 0), Box((0.0, 0.0, 10.0, 8.0), 1)]
    assert table([(LEFT, "bee", 0.9)], objects) == ((0, 0, 1), (0, 1, 0), (0, 0, 0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 2.0]))
def test_rows_are_objects_and_columns_detections(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    target = scene(rng, 2, 6)
    target = Boxes(tuple(box for box in target.items if not box.crowd))
    found = guesses(rng, target, CLASSES)
    cells = np.array(confusion([found], [target], CLASSES, threshold))
    sure = [label for label, s in zip(found.labels, found.scores, strict=True) if s >= threshold]
    for i, name in enumerate(CLASSES):
        assert cells[i].sum() == sum(box.label == i for box in target.items)
        assert cells[:, i].sum() == sure.count(name)
    assert cells[-1, -1] == 0
