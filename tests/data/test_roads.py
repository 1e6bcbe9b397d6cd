"""Scenes with roads: masks hold exactly the pixels near a centre line."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.roads import (
    _REACH,
    CLASSES,
    MOST,
    SIDE,
    SIZES,
    WIDTHS,
    Roads,
    _distance,
    _roads,
    _spline,
    named,
)
from vitrail.types import Segments

SMALL = {"train": 60, "val": 20, "test": 30}
DATA = Roads(sizes=SMALL)
EVERY = st.integers(0, len(DATA) - 1)


def test_what_there_is() -> None:
    data = named("roads")
    assert data is not None
    assert (data.segments, data.background, data.boxes) == ("semantic", True, False)
    assert data.classes == CLASSES
    assert {name: len(part) for name, part in data.published.items()} == SIZES
    assert len(data) == len(data.targets) == len(set(data.ids)) == sum(SIZES.values())
    assert [data.ids[part[17]] for part in data.published.values()] == [
        "train/00017",
        "val/00017",
        "test/00017",
    ]
    assert named("road") is None


@settings(deadline=None, max_examples=10)
@given(EVERY)
def test_a_target_is_the_pixels_near_a_centre_line(index: int) -> None:
    target = DATA.draw(index)
    assert target.size == (SIDE, SIDE)
    assert (target.labels, target.crowds) == ((0,), ())
    roads = _roads(DATA._rng(index))
    assert 1 <= len(roads) <= MOST
    some = np.random.default_rng(index).integers(0, SIDE, (300, 2))
    some = np.concatenate([some, torch.nonzero(target.ids[0])[::5].numpy()])
    near = np.zeros(len(some), dtype=np.bool_)
    for road in roads:
        assert WIDTHS[0] <= road.width <= WIDTHS[1]
        gaps = [_from_piece(some + 0.5, *ends) for ends in pairwise(road.line)]
        near |= np.min(gaps, axis=0) < road.width / 2
    assert (target.ids[0].numpy()[tuple(some.T)] == near).all()


def _from_piece(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    step = end - start
    along = np.clip((points - start) @ step / max(step @ step, 1e-12), 0, 1)
    return np.linalg.norm(points - start - along[..., None] * step, axis=-1)


@settings(deadline=None, max_examples=30)
@given(EVERY)
def test_a_line_is_smooth_and_of_short_pieces(index: int) -> None:
    for road in _roads(DATA._rng(index)):
        steps = np.diff(road.line, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        # A pixel of the widest road or its edge is found from the piece it is nearest to.
        assert lengths.max() + WIDTHS[1] / 2 + 0.5 < _REACH
        moving = steps[lengths > 0.1 * lengths.max()]
        turns = np.abs(np.diff(np.unwrap(np.arctan2(moving[:, 0], moving[:, 1]))))
        assert turns.max() < 0.8


def test_a_line_begins_and_ends_where_it_should() -> None:
    ends = np.array([10.0, 20.0]), np.array([100.0, 90.0])
    line = _spline(*ends, np.random.default_rng(0))
    assert line[[0, -1]] == pytest.approx(np.array(ends))


def test_a_straight_road_is_as_wide_as_it_says() -> None:
    rows = np.linspace(-4, SIDE + 4, 100)
    field = _distance(np.stack([rows, np.full(100, 64.0)], axis=1))
    for width in (2, 4, 6):
        assert ((field < width / 2).sum(axis=1) == width).all()
    slanted = _distance(np.stack([rows, rows], axis=1))
    assert (np.diagonal(slanted) < 1e-9).all()
    assert slanted[10, 11] == pytest.approx(0.5**0.5)


def test_every_scene_has_some_road_and_not_much() -> None:
    shares = np.array([DATA.draw(i).ids.float().mean() for i in range(len(DATA))])
    assert shares.min() > 0.001
    assert shares.max() < 0.25
    assert 0.03 < shares.mean() < 0.08


def test_roads_are_brighter_than_land_but_houses_too() -> None:
    """A threshold alone does not find roads."""
    pixels = np.concatenate([DATA.read(i).image.float().mean(dim=0).flatten() for i in range(60)])
    road = np.concatenate([DATA.draw(i).ids.flatten() for i in range(60)]) > 0
    assert pixels[road].mean() > 1.3 * pixels[~road].mean()
    best = 0.0
    for threshold in range(60, 200, 5):
        found = pixels > threshold
        best = max(best, 2 * (found & road).sum() / (found.sum() + road.sum()))
    assert 0.3 < best < 0.7


def test_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = DATA.read(61)
    assert sample.id == "val/00001"
    assert isinstance(sample.target, Segments)
    assert torch.equal(sample.target.ids, DATA.draw(61).ids)
    assert sample.image.shape == (3, SIDE, SIDE)
    assert sample.image.permute(1, 2, 0).numpy().tobytes() == DATA.read_bytes(61)
    assert DATA.stored_size(61) == len(DATA.read_bytes(61))
    monkeypatch.setattr("vitrail.data.roads._render", None)
    some = DATA.targets[60:62]
    assert isinstance(some[1], Segments)
    assert torch.equal(some[1].ids, sample.target.ids), "drawn without the image"


def test_the_seed_and_the_place_decide_everything() -> None:
    again = Roads(sizes={name: 2 * size for name, size in SMALL.items()})
    other = Roads(sizes=SMALL, seed=1)
    for name, part in DATA.published.items():
        for here, there in zip(list(part)[::10], list(again.published[name])[::10], strict=False):
            assert DATA.ids[here] == again.ids[there]
            assert torch.equal(DATA.draw(here).ids, again.draw(there).ids)
            assert DATA.read_bytes(here) == again.read_bytes(there)
            assert DATA.read_bytes(here) != other.read_bytes(here)
    assert DATA.digest(0) == again.digest(0) != DATA.digest(1)
    assert DATA.digest(0) != other.digest(0)
    assert len({DATA.draw(i).ids.numpy().tobytes() for i in range(len(DATA))}) == len(DATA)


def test_scenes_are_pinned() -> None:
    # A model file names its data by fingerprint: these values never change.
    masks = np.stack([DATA.draw(index).ids.numpy() for index in range(20)])
    digest = hashlib.sha256(np.packbits(masks > 0).tobytes()).hexdigest()
    assert digest.startswith("d6b54259566d840d")
