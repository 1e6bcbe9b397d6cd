"""Scenes of shapes: boxes and masks hold exactly what is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.open import open_source
from vitrail.data.shapes import (
    _KINDS,
    CLASSES,
    MOST,
    SEEN,
    SIDE,
    SIZES,
    ShapeMasks,
    Shapes,
    _colours,
    _Scene,
    _shape,
    named,
)
from vitrail.types import Boxes, Segments

SMALL = {"train": 60, "val": 20, "test": 30}
DATA = Shapes(sizes=SMALL)
EVERY = st.integers(0, len(DATA) - 1)


def target(data: Shapes, index: int) -> Boxes:
    found = data.targets[index]
    assert isinstance(found, Boxes)
    return found


def test_what_there_is() -> None:
    data = named("shapes")
    assert data is not None
    assert (data.boxes, data.text, data.multilabel) == (True, False, False)
    assert data.classes == CLASSES == tuple(sorted(CLASSES))
    assert {name: len(part) for name, part in data.published.items()} == SIZES
    assert len(data) == len(data.targets) == len(set(data.ids)) == sum(SIZES.values())
    assert [data.ids[part[17]] for part in data.published.values()] == [
        "train/00017",
        "val/00017",
        "test/00017",
    ]
    items = [box for index in range(len(data)) for box in target(data, index).items]
    counts = np.bincount([box.label for box in items])
    assert counts.min() > 0.95 * counts.mean()
    counts = np.bincount([len(target(data, index).items) for index in range(len(data))])
    assert counts[0] == 0
    assert len(counts) == MOST + 1
    assert counts[1 : MOST - 1].min() > 300
    assert named("shape") is None


@settings(deadline=None, max_examples=40)
@given(EVERY)
def test_boxes_are_the_extent_of_masks(index: int) -> None:
    masks, boxes = DATA.masks(index), target(DATA, index)
    assert boxes.size == masks.shape[1:] == (SIDE, SIDE)
    assert len(masks) == len(boxes.items) > 0
    assert masks.sum(axis=0).max() == 1, "a pixel shows one shape"
    for mask, box in zip(masks, boxes.items, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.corners == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box.area == mask.sum()
        assert not box.crowd


@settings(deadline=None, max_examples=40)
@given(EVERY)
def test_enough_is_seen_of_what_is_labelled(index: int) -> None:
    scene = _Scene.draw(DATA._rng(index))
    for place, shape in enumerate(scene.shapes):
        whole, seen = int((shape.distance < 0).sum()), int((scene.owner == place).sum())
        assert (seen >= SEEN * whole) == (place in scene.labelled)
    covered = np.zeros((SIDE, SIDE), dtype=np.bool_)
    for place in reversed(range(len(scene.shapes))):
        inside = np.zeros_like(covered)
        inside[scene.shapes[place].window] = scene.shapes[place].distance < 0
        assert ((scene.owner == place) == (inside & ~covered)).all(), "later ones lie above"
        covered |= inside
    assert ((scene.owner == -1) == ~covered).all()


def test_some_shapes_are_hidden() -> None:
    scenes = [_Scene.draw(DATA._rng(index)) for index in range(len(DATA))]
    hidden = sum(len(scene.shapes) - len(scene.labelled) for scene in scenes)
    partly = sum(
        float(box.area or 0) < 0.9 * (shape.distance < 0).sum()
        for scene in scenes
        for box, shape in zip(
            scene.boxes().items, [scene.shapes[i] for i in scene.labelled], strict=True
        )
    )
    assert hidden > 0
    assert partly > 50


@settings(deadline=None, max_examples=100)
@given(
    kind=st.integers(0, len(CLASSES) - 1),
    size=st.floats(0, 1, exclude_max=True),
    place=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3),
)
def test_a_shape_lies_inside_and_has_the_area_of_its_circle(
    kind: int, size: float, place: tuple[float, float, float]
) -> None:
    shape = _shape((kind + 0.5) / len(CLASSES), size, *place)
    assert shape.label == kind
    inside = shape.distance < 0
    assert inside.shape == tuple(axis.stop - axis.start for axis in shape.window)
    diameter = 12 * (32 / 12) ** size
    assert inside.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.1, abs=1.5 * diameter)


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_figures_differ_as_their_names_say(label: int) -> None:
    """By the share that a shape takes of the circle around it."""
    shape = _shape((label + 0.5) / 4, 0.99, 0.5, 0.5, 0.3)
    reach = _KINDS[label].reach(12 * (32 / 12) ** 0.99)
    expected = {"circle": 1, "square": 2 / np.pi, "triangle": 3**1.5 / 4 / np.pi, "star": 0.421}
    share = (shape.distance < 0).sum() / (np.pi * reach**2)
    assert share == pytest.approx(expected[CLASSES[label]], rel=0.04)


def test_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = DATA.read(61)
    assert (sample.id, sample.target) == ("val/00001", DATA.targets[61])
    assert sample.image.shape == (3, SIDE, SIDE)
    assert sample.image.permute(1, 2, 0).numpy().tobytes() == DATA.read_bytes(61)
    assert sample.evidence is not None
    assert sample.evidence.dtype == torch.bool
    assert (sample.evidence.numpy() == DATA.masks(61).any(axis=0)).all()
    stored = len(DATA.read_bytes(61))
    monkeypatch.setattr(Shapes, "render", None)
    assert DATA.stored_size(61) == stored, "known without rendering"


def test_pixels_show_the_masks() -> None:
    """Shapes are strong in colour and the background is not."""
    inside, outside = [], []
    for index in range(40):
        pixels = DATA.render(index).astype(np.int64)
        strength = pixels.max(axis=2) - pixels.min(axis=2)
        mask = _Scene.draw(DATA._rng(index)).owner >= 0
        inside.append(strength[mask].mean())
        outside.append(strength[~mask].mean())
    assert min(inside) > 1.4 * max(outside)


def test_the_seed_and_the_place_decide_everything() -> None:
    again = Shapes(sizes={name: 2 * size for name, size in SMALL.items()})
    other = Shapes(sizes=SMALL, seed=1)
    for name, part in DATA.published.items():
        for here, there in zip(part, again.published[name], strict=False):
            assert DATA.ids[here] == again.ids[there]
            assert DATA.targets[here] == again.targets[there]
            assert DATA.read_bytes(here) == again.read_bytes(there)
            assert DATA.read_bytes(here) != other.read_bytes(here)
            assert DATA.targets[here] != other.targets[here]
    assert len({DATA.read_bytes(index) for index in range(len(DATA))}) == len(DATA)


def test_scenes_are_pinned() -> None:
    # A model file names its data by fingerprint: these values never change.
    (first,) = target(DATA, 0).items
    assert (first.label, first.corners, first.area) == (0, (58, 65, 71, 78), 140)


def test_colours() -> None:
    colours = _colours(np.random.default_rng(0), 500)
    assert colours.shape == (500, 3)
    assert (colours.max(axis=1) >= 190).all()
    assert (colours.min(axis=1) <= 60).all()
    assert np.bincount(colours.argmax(axis=1)).min() > 100, "no hue is rare"


def test_opening_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    scene = Shapes.scene

    def counted(self: Shapes, index: int) -> object:
        drawn.append(index)
        return scene(self, index)

    monkeypatch.setattr(Shapes, "scene", counted)
    source = open_source("shapes", task="segment")
    assert drawn == []
    other = ShapeMasks(Shapes(sizes=SMALL, seed=1))
    assert len({ShapeMasks(DATA).digest(0), ShapeMasks(DATA).digest(1), other.digest(0)}) == 3
    target = source.splits["val"].targets[3]
    assert drawn == [4_003]
    boxes = open_source("shapes", task="detect").splits["val"].targets[3]
    assert isinstance(target, Segments)
    assert isinstance(boxes, Boxes)
    assert target.labels == tuple(box.label for box in boxes.items)
