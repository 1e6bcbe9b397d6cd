"""Which part of an image a view shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vitrail.data.augment import NoGeometry
from vitrail.data.box_geometry import BoxCrop, BoxGeometry, ScaleJitter, window
from vitrail.data.framing import Rectangle, holds
from vitrail.types import Box, Boxes

SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))
KINDS = st.sampled_from([NoGeometry(), ScaleJitter(scale=(0.1, 8)), BoxCrop(area=(0.01, 1))])


@settings(deadline=None, max_examples=200)
@given(geometry=KINDS, image=SIDES, evaluated=SIDES, size=SIDES, seed=st.integers(0, 99))
def test_windows_lie_inside(
    geometry: BoxGeometry,
    image: tuple[int, int],
    evaluated: tuple[int, int],
    size: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    y, x = (rng.random() * side for side in image)
    boxes = Boxes((Box((x - 20, y - 20, x + 20, y + 20), 0),), image)
    source, place = window(geometry, boxes, evaluated, size, rng)
    for part, whole in ((source, image), (place, size)):
        assert min(part.top, part.left) >= 0
        assert min(part.rows, part.columns) >= 1
        assert part.top + part.rows <= whole[0]
        assert part.left + part.columns <= whole[1]
    if isinstance(geometry, BoxCrop):
        assert place == (0, 0, *size)
        left, right = max(0, x - 20), min(image[1], x + 20)
        top, bottom = max(0, y - 20), min(image[0], y + 20)
        assert holds(source, (left + right) / 2, (top + bottom) / 2)


def test_none_is_the_view_of_evaluation() -> None:
    boxes = Boxes((), (480, 640))
    part = window(NoGeometry(), boxes, (240, 320), (240, 320), np.random.default_rng(0))
    assert part == ((0, 0, 480, 640), (0, 0, 240, 320))


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom(zoom: float) -> None:
    jitter = ScaleJitter(scale=(zoom, zoom))
    source, place = window(
        jitter, Boxes((), (480, 640)), (240, 320), (240, 320), np.random.default_rng(0)
    )
    assert place.rows / source.rows == place.columns / source.columns == zoom / 2


@pytest.mark.parametrize("geometry", [NoGeometry(), BoxCrop(area=(1, 1), ratio=(1, 1))])
def test_a_view_of_another_shape_keeps_the_shape_of_objects(geometry: BoxGeometry) -> None:
    source, place = window(
        geometry, Boxes((), (480, 640)), (240, 320), (320, 240), np.random.default_rng(0)
    )
    assert place.rows / source.rows == pytest.approx(place.columns / source.columns, rel=0.01)


def test_a_crowd_is_nothing_to_look_for() -> None:
    boxes = Boxes((Box((0, 0, 5, 5), 0, crowd=True),), (100, 100))
    crop = BoxCrop(area=(0.1, 0.1), ratio=(1, 1))
    places = {
        window(crop, boxes, (50, 50), (50, 50), np.random.default_rng(seed)).source.top
        for seed in range(40)
    }
    assert len(places) > 20


def test_limits_stand_in_order() -> None:
    for kind, field in ((ScaleJitter, "scale"), (BoxCrop, "area"), (BoxCrop, "ratio")):
        with pytest.raises(ValidationError, match=r"written \(least, largest\)"):
            kind.model_validate({field: (0.9, 0.5)})


def test_a_rectangle_holds_its_edges() -> None:
    assert holds(Rectangle(1, 2, 3, 4), 6.0, 4.0)
    assert not holds(Rectangle(1, 2, 3, 4), 6.1, 4.0)
