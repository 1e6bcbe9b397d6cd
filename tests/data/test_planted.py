"""The label of a planted image rests on the planted patch, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.augment import Affine, Augment, AugmentConfig
from vitrail.data.dataset import Subset
from vitrail.data.loader import Loader, on_image
from vitrail.data.order import Sequential
from vitrail.data.planted import (
    CLASSES,
    MOST,
    PATCH,
    SIDE,
    SIZES,
    Planted,
    _no_patterns,
    _pattern,
    _places,
    named,
)
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.data.workers import Serial
from vitrail.errors import DataError

SMALL = {"train": 60, "val": 20, "test": 30}
DATA = Planted(sizes=SMALL)
EVERY = range(len(CLASSES))


def test_what_there_is() -> None:
    data = Planted()
    assert not data.text
    assert not data.multilabel
    assert data.classes == CLASSES
    assert {name: len(part) for name, part in data.published.items()} == SIZES
    assert len(data) == len(data.targets) == len(set(data.ids)) == sum(SIZES.values())
    assert [data.ids[part[17]] for part in data.published.values()] == [
        "train/00017",
        "val/00017",
        "test/00017",
    ]
    for part in data.published.values():
        counts = np.bincount([data.targets[i] for i in part], minlength=len(CLASSES))
        assert counts.min() > 0.8 * len(part) / len(CLASSES)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 3))
def test_two_classes_of_a_scene_differ_in_the_patch_alone(index: int, seed: int) -> None:
    data = Planted(sizes=SMALL, seed=seed)
    mask = data.evidence(index)
    first, *others = (data.render(index, target) for target in EVERY)
    for other in others:
        assert (first[:, ~mask] == other[:, ~mask]).all(), "nothing outside tells the class"
        assert (first[:, mask] != other[:, mask]).any(axis=0).mean() > 0.2


def test_the_class_cannot_be_told_from_outside() -> None:
    """Nor from where the patch lies: nearest class means do no better than chance."""
    data = Planted(sizes={"train": 1500, "test": 500})
    masks = np.array([data.evidence(i) for i in range(len(data))])
    scenes = np.array([data.read(i).image.numpy() for i in range(len(data))], np.float32) / 255
    scenes[np.broadcast_to(masks[:, None], scenes.shape)] = 0
    features = np.concatenate([scenes.reshape(len(data), -1), masks.reshape(len(data), -1)], 1)
    targets = np.array(data.targets)
    means = np.array([features[:1500][targets[:1500] == target].mean(axis=0) for target in EVERY])
    # The nearest mean m of x: the least |m|^2 - 2 m x.
    nearest = ((means**2).sum(axis=1) - 2 * features[1500:] @ means.T).argmin(axis=1)
    assert abs((nearest == targets[1500:]).mean() - 1 / len(CLASSES)) < 0.06


def test_the_seed_and_the_place_decide_everything() -> None:
    again = Planted(sizes={name: 2 * size for name, size in SMALL.items()})
    other = Planted(sizes=SMALL, seed=1)
    for name, part in DATA.published.items():
        for here, there in zip(part, again.published[name], strict=False):
            assert DATA.ids[here] == again.ids[there]
            assert DATA.targets[here] == again.targets[there]
            assert DATA.read_bytes(here) == again.read_bytes(there)
            assert DATA.read_bytes(here) != other.read_bytes(here)
        assert [DATA.targets[i] for i in part] != [other.targets[i] for i in part]
    assert len({DATA.read_bytes(index) for index in range(len(DATA))}) == len(DATA)


def test_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = DATA.read(61)
    assert (sample.id, sample.target) == ("val/00001", DATA.targets[61])
    assert sample.image.shape == (3, SIDE, SIDE)
    assert sample.image.numpy().tobytes() == DATA.read_bytes(61)
    assert sample.evidence is not None
    assert sample.evidence.dtype == torch.bool
    assert sample.evidence.shape == (SIDE, SIDE)
    assert sample.evidence.float().mean().item() == pytest.approx(PATCH**2 / SIDE**2)
    stored = len(DATA.read_bytes(61))
    monkeypatch.setattr(Planted, "render", None)
    assert DATA.stored_size(61) == stored, "known without rendering"


@pytest.mark.parametrize("distractors", [0, 3, MOST])
def test_patches_lie_anywhere_and_apart(distractors: int) -> None:
    corners: list[tuple[int, int]] = []
    for seed in range(2000):
        places = _places(np.random.default_rng(seed), distractors)
        assert len(places) == distractors + 1
        covered = np.zeros((SIDE, SIDE), np.int64)
        for row, column in places:
            covered[row : row + PATCH, column : column + PATCH] += 1
        assert covered.sum() == (distractors + 1) * PATCH**2, "none leaves the image"
        assert covered.max() == 1
        corners.append(places[0])
    for axis in np.array(corners).T:
        counts = np.bincount(axis, minlength=SIDE - PATCH + 1)
        expected = len(corners) / len(counts)
        assert len(counts) == SIDE - PATCH + 1
        # Chi-squared over its degrees of freedom is near 1 if all places are equally likely.
        assert ((counts - expected) ** 2 / expected).sum() / (len(counts) - 1) < 1.8


@pytest.mark.parametrize("target", EVERY)
def test_patterns(target: int) -> None:
    seen: set[bytes] = set()
    for seed in range(200):
        ink = _pattern(target, np.random.default_rng(seed))
        seen.add(ink.tobytes())
        assert set(np.unique(ink)) == {-1.0, 1.0}
        still = {
            "horizontal": ink[:, 1:] == ink[:, :-1],
            "vertical": ink[1:] == ink[:-1],
            "diagonal": (ink[1:, 1:] == ink[:-1, :-1]).all() | (ink[1:, :-1] == ink[:-1, 1:]),
            "checker": ink[2:] == -ink[:-2],
        }
        assert still[CLASSES[target]].all()
        assert (ink[:4, :4] == ink[4:, 4:]).all(), "repeats after 4 pixels"
        assert ink.mean() == 0, "no class is brighter"
    assert len(seen) == {"diagonal": 8, "checker": 8}.get(CLASSES[target], 4), "every phase"


def test_a_mirrored_pattern_keeps_its_class() -> None:
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    drawn = [{_pattern(target, rng).tobytes() for rng in rngs} for target in EVERY]
    for own in drawn:
        for ink in own:
            square = np.frombuffer(ink).reshape(PATCH, PATCH)
            assert np.ascontiguousarray(square[::-1]).tobytes() in own
            assert np.ascontiguousarray(square[:, ::-1]).tobytes() in own
    for a in EVERY:
        assert all(not drawn[a] & drawn[b] for b in EVERY if a != b)


@pytest.mark.parametrize("distractors", [0, 3])
def test_the_same_patch_with_other_patches_beside_it(distractors: int) -> None:
    data, plain = Planted(distractors, sizes=SMALL), Planted(sizes=SMALL)
    assert list(data.targets) == list(plain.targets)
    assert (set(data.ids) == set(plain.ids)) == (distractors == 0), "another set, other names"
    assert (data.evidence(5) == plain.evidence(5)).all()
    first, *others = (data.render(5, target) for target in EVERY)
    assert all(
        (first[:, ~data.evidence(5)] == other[:, ~data.evidence(5)]).all() for other in others
    )


def test_names() -> None:
    found = named("planted:3")
    assert found is not None
    assert found.distractors == 3
    assert named("plants") is None
    for wrong in ("planted:", "planted:5", "planted:-1", "planted:x"):
        with pytest.raises(DataError, match=r"write one from 0 to 4, e\.g\. planted:3"):
            named(wrong)


def test_other_patches_have_no_pattern_of_a_class() -> None:
    rng = np.random.default_rng(0)
    patterns = {_pattern(target, rng).tobytes() for target in EVERY for _ in range(300)}
    kinds: set[int] = set()
    for _ in range(500):
        inks = _no_patterns(rng, 3)
        assert len(inks) == 3
        for ink in inks:
            assert np.abs(ink).max() == 1
            assert ink.astype(np.float64).tobytes() not in patterns
            kinds.add(len(np.unique(ink)))
    assert min(kinds) == 2
    assert max(kinds) > 10, "ramps too"


def test_views_and_subsets() -> None:
    """Evidence passes through a subset; an augmented batch, whose pixels move, has none."""
    part = Subset(DATA, DATA.published["test"])
    evidence = part.read(3).evidence
    assert evidence is not None
    assert (evidence.numpy() == DATA.evidence(83)).all()
    preprocess = Preprocess(resize=CenterCrop(size=(SIDE, SIDE)))
    augment = Augment(AugmentConfig(geometry=Affine(), hflip=1.0), preprocess)
    loader = Loader(
        part,
        on_image(augment),
        batch_size=16,
        order=Sequential(),
        seed=0,
        workers=Serial(),
        drop_last=False,
        strict=True,
    )
    batches = list(loader.epoch(0))
    assert [len(batch.ids) for batch in batches] == [16, 14]
    assert batches[0].images.shape == (16, 3, SIDE, SIDE)
