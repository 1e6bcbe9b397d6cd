"""A view is a function of (seed, epoch, index), and boxes stay around their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marked import FITTED, STRETCHED, Marked, check, marked
from vitrail.data.augment import NoGeometry
from vitrail.data.box_augment import BoxAugment, BoxAugmentConfig
from vitrail.data.box_geometry import BoxCrop, ScaleJitter
from vitrail.data.color_jitter import ColorJitter
from vitrail.data.order import sample_rng
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import ConfigError
from vitrail.types import Boxes, Sample, View

SAMPLES = [
    marked([(20, 20, 70, 60), (90, 70, 180, 140)], (150, 200), [0, 1]),
    marked([(10, 10, 60, 70)], (180, 120), [2]),
    marked([(30, 40, 120, 90)], (120, 160), [3]),
    marked([(5, 5, 45, 45), (50, 50, 79, 79)], (80, 80), [4, 5]),
    marked([], (100, 140)),
]
DATA = Marked(SAMPLES)
EVERYTHING = BoxAugmentConfig(
    geometry=ScaleJitter(),
    mosaic=0.5,
    copy_paste=0.5,
    transpose=0.5,
    hflip=0.5,
    vflip=0.5,
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
)
RULES = pytest.mark.parametrize("preprocess", [STRETCHED, FITTED])


def view(
    config: BoxAugmentConfig,
    preprocess: Preprocess,
    index: int,
    epoch: int = 0,
    data: Marked = DATA,
) -> View:
    augment = BoxAugment(config, preprocess, data)
    return augment(data.samples[index], sample_rng(0, epoch, index))


def same(a: View, b: View) -> bool:
    return torch.equal(a.image, b.image) and a.target == b.target and a.extent == b.extent


@RULES
def test_without_anything_it_is_the_view_of_evaluation(preprocess: Preprocess) -> None:
    for index, sample in enumerate(SAMPLES):
        assert same(view(BoxAugmentConfig(), preprocess, index), preprocess.view(sample))


@settings(deadline=None, max_examples=60)
@given(
    geometry=st.sampled_from([NoGeometry(), ScaleJitter(scale=(0.3, 3)), BoxCrop()]),
    chances=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3),
    preprocess=st.sampled_from([STRETCHED, FITTED]),
    index=st.integers(0, len(SAMPLES) - 1),
    epoch=st.integers(0, 1000),
)
def test_boxes_are_around_their_pixels(
    geometry: NoGeometry | ScaleJitter | BoxCrop,
    chances: tuple[float, float, float],
    preprocess: Preprocess,
    index: int,
    epoch: int,
) -> None:
    turn, hflip, vflip = chances
    config = BoxAugmentConfig(geometry=geometry, transpose=turn, hflip=hflip, vflip=vflip)
    shown, expected = view(config, preprocess, index, epoch), preprocess.view(SAMPLES[index])
    boxes = check(shown)
    assert shown.image.shape == expected.image.shape
    assert shown.extent == expected.extent
    labelled = isinstance(expected.target, Boxes) and expected.target.items
    if isinstance(geometry, BoxCrop) and labelled:
        assert boxes.items, "a crop keeps an object"


@RULES
def test_mosaic_and_paste_stay_around_their_pixels(preprocess: Preprocess) -> None:
    found: set[int] = set()
    for epoch in range(40):
        shown = view(BoxAugmentConfig(mosaic=1.0, hflip=0.5, transpose=0.5), preprocess, 0, epoch)
        labels = [box.label for box in shown.target.items]
        found |= set(labels)
        if len(set(labels)) == len(labels):  # else two objects share a colour
            check(shown)
        shown = view(BoxAugmentConfig(copy_paste=1.0), preprocess, 4, epoch)
        items = shown.target.items
        if len(items) == 1:  # else one may cover a part of another
            check(shown, slack=3.0)
        found |= {10 + box.label for box in items}
    assert found == {*range(6), *range(10, 16)}


@RULES
def test_a_view_is_a_function(preprocess: Preprocess) -> None:
    for index in range(len(SAMPLES)):
        views = [view(EVERYTHING, preprocess, index, epoch) for epoch in range(12)]
        again = [view(EVERYTHING, preprocess, index, epoch) for epoch in reversed(range(12))]
        assert all(map(same, views, reversed(again)))
        images = {v.image.numpy().tobytes() for v in views}
        assert len(images) > 8 or index == len(SAMPLES) - 1
        assert {tuple(v.image.shape) for v in views} == {views[0].image.shape}
        for shown in views:
            rows, columns = shown.extent or shown.image.shape[1:]
            assert not shown.image[:, rows:].any()
            assert not shown.image[:, :, columns:].any()


def test_the_sample_is_not_changed() -> None:
    sample = marked([(20, 20, 70, 60)], (150, 200))
    before = sample.image.clone()
    augment = BoxAugment(EVERYTHING, STRETCHED, DATA)
    for epoch in range(10):
        augment(sample, sample_rng(0, epoch, 0))
    assert torch.equal(sample.image, before)


@pytest.mark.parametrize("config", [{"mosaic": 1.0}, {"copy_paste": 1.0}])
def test_what_cannot_be_read_is_left_out(config: dict[str, float]) -> None:
    broken = Marked(SAMPLES, broken=range(len(SAMPLES)))
    shown = view(BoxAugmentConfig(**config), STRETCHED, 0, data=broken)
    assert same(shown, STRETCHED.view(SAMPLES[0]))


def test_all_eight_symmetries() -> None:
    sample = marked([(10, 20, 40, 30)], (96, 96))
    config = BoxAugmentConfig(transpose=0.5, hflip=0.5, vflip=0.5)
    square = Preprocess(resize=STRETCHED.resize.model_copy(update={"size": (96, 96)}))
    augment = BoxAugment(config, square, DATA)
    seen = [augment(sample, sample_rng(0, 0, index)).target for index in range(400)]
    counts = [seen.count(target) for target in set(seen)]
    assert len(counts) == 8
    assert min(counts) > 25


def test_what_is_filled_up_has_the_mean_colour() -> None:
    bgr = Preprocess(resize=STRETCHED.resize, mean=(0.1, 0.2, 0.4), channel_order="bgr")
    augment = BoxAugment(BoxAugmentConfig(geometry=ScaleJitter(scale=(0.5, 0.5))), bgr, DATA)
    image = augment(SAMPLES[4], np.random.default_rng(0)).image.reshape(3, -1)
    assert image[:, image[0] > 0].unique(dim=1).T.tolist() == [[102, 51, 26]]


def test_rules_that_cut_are_refused() -> None:
    with pytest.raises(ConfigError, match="'center_crop' does not keep whole images"):
        BoxAugment(BoxAugmentConfig(), Preprocess(resize=CenterCrop(size=(8, 8))), DATA)


def test_tiny_images() -> None:
    tiny = Sample("tiny", torch.zeros(3, 1, 1, dtype=torch.uint8), Boxes((), (1, 1)))
    for preprocess in (STRETCHED, FITTED):
        augment = BoxAugment(EVERYTHING, preprocess, Marked([tiny]))
        for epoch in range(10):
            shown = augment(tiny, sample_rng(0, epoch, 0))
            assert shown.image.shape[1:] == preprocess.output_size(1, 1)
