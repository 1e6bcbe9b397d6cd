"""Image and masks move as one, and a view is a function of (seed, epoch, index)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.data.augment import NoGeometry
from vitrail.data.box_geometry import ScaleJitter
from vitrail.data.color_jitter import ColorJitter
from vitrail.data.dataset import Dataset, SegmentKind
from vitrail.data.mask_augment import MaskAugment, MaskAugmentConfig, somewhere
from vitrail.data.mask_geometry import MaskCrop
from vitrail.data.order import sample_rng
from vitrail.data.preprocess import CenterCrop, Fit, Preprocess, Squash
from vitrail.data.tiles import Tiles
from vitrail.errors import ConfigError
from vitrail.types import VOID, Sample, Segments, View

BLOCK = 24
BLACK = (0.0, 0.0, 0.0)
RULES = [Squash(size=(90, 130)), Fit(short=80, long=160, multiple=32), Tiles(size=(96, 64))]
EVERYTHING = MaskAugmentConfig(
    geometry=MaskCrop(scale=(0.6, 1.6), ratio=(0.8, 1.25), degrees=180),
    transpose=0.5,
    hflip=0.5,
    vflip=0.5,
    color_jitter=ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
)
GEOMETRIES = [NoGeometry(), ScaleJitter(scale=(0.6, 1.6)), EVERYTHING.geometry]


class Data(Dataset):
    """Samples that lie in memory."""

    classes = ("a", "b", "c")
    multilabel = False

    def __init__(self, segments: SegmentKind = "semantic") -> None:
        self.segments = segments
        self.ids, self.targets = [], []

    def read(self, index: int) -> Sample:
        raise NotImplementedError

    def read_bytes(self, index: int) -> bytes:
        raise NotImplementedError


def quarters(height: int, width: int) -> Sample:
    """Fields whose red, green and blue tell the class of a pixel: 0, 1, 2 or background."""
    ys, xs = np.mgrid[:height, :width] // BLOCK
    kind = (ys + 2 * xs) % 4
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for k in (1, 2, 3):
        pixels[kind == k, k - 1] = 255
    ids = torch.from_numpy(kind[None].astype(np.int16))
    return Sample("quarters", torch.from_numpy(pixels).permute(2, 0, 1), Segments(ids, (0, 1, 2)))


def view(config: MaskAugmentConfig, rule: Any, sample: Sample, index: int = 0) -> View:
    preprocess = Preprocess(resize=rule, interpolation="bilinear", mean=BLACK)
    return MaskAugment(config, preprocess, Data())(sample, sample_rng(0, 0, index))


def segments_of(view: View) -> Segments:
    assert isinstance(view.target, Segments)
    return view.target


def classes_of(view: View) -> Tensor:
    """Class of each pixel; 3 is background, `VOID` is void."""
    segments = segments_of(view)
    return torch.tensor([3, *segments.labels])[segments.ids[0].long()]


def agreement(view: View) -> float:
    """Share of judged pixels whose colour says the class that their segment has."""
    classes = classes_of(view)
    red_green_blue = view.image.int()
    told = torch.where(red_green_blue.amax(0) < 100, 3, red_green_blue.argmax(0))
    judged = classes != VOID
    return float((told == classes)[judged].float().mean())


def same(a: View, b: View) -> bool:
    one, other = segments_of(a), segments_of(b)
    alike = torch.equal(one.ids, other.ids) and one.labels == other.labels
    return alike and torch.equal(a.image, b.image) and a.extent == b.extent


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(300, 280), (96, 64), (50, 70), (40, 300)])
def test_size_and_extent_are_those_of_evaluation(rule: Any, size: tuple[int, int]) -> None:
    sample = quarters(*size)
    for geometry in GEOMETRIES:
        config = EVERYTHING.model_copy(update={"geometry": geometry})
        found = view(config, rule, sample)
        wanted = Preprocess(resize=rule).view(sample)
        shape = tuple(wanted.image.shape[1:])
        if isinstance(rule, Tiles):
            shape = rule.size
        assert tuple(found.image.shape[1:]) == shape == segments_of(found).size
        if found.extent is not None:
            rows, columns = found.extent
            assert (classes_of(found)[rows:] == VOID).all()
            assert (classes_of(found)[:, columns:] == VOID).all()
            assert not found.image[:, rows:].any()
            assert wanted.extent is not None
            assert found.extent == tuple(map(min, wanted.extent, shape))


@pytest.mark.parametrize("rule", RULES)
def test_without_anything_a_small_image_is_as_in_evaluation(rule: Any) -> None:
    sample = quarters(60, 60)
    still = MaskAugmentConfig(geometry=NoGeometry())
    wanted = Preprocess(resize=rule, interpolation="bilinear").view(sample)
    found = view(still, rule, sample)
    assert torch.equal(found.image, wanted.image)
    assert torch.equal(segments_of(found).ids, segments_of(wanted).ids)
    assert segments_of(found).labels == segments_of(wanted).labels


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_masks_stay_on_their_pixels(rule: Any, geometry: Any) -> None:
    sample = quarters(250, 220)
    config = EVERYTHING.model_copy(update={"geometry": geometry, "color_jitter": None})
    for index in range(12):
        found = view(config, rule, sample, index)
        assert agreement(found) > 0.9
        shifted = View(found.image.roll(2, 2), found.target)
        assert agreement(found) > agreement(shifted)


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 1000))
def test_a_view_is_a_function_of_its_numbers(index: int) -> None:
    sample = quarters(180, 150)
    before = sample.image.clone(), segments_of(View(sample.image, sample.target)).ids.clone()
    found = view(EVERYTHING, RULES[index % 3], sample, index)
    assert same(found, view(EVERYTHING, RULES[index % 3], sample, index))
    assert not torch.equal(found.image, view(EVERYTHING, RULES[index % 3], sample, index + 1).image)
    segments = segments_of(found)
    used = segments.ids.unique().tolist()
    assert [number for number in used if number] == list(range(1, len(segments.labels) + 1))
    assert torch.equal(before[0], sample.image)
    assert torch.equal(before[1], segments_of(View(sample.image, sample.target)).ids)


def test_every_symmetry_is_drawn_and_carries_the_masks() -> None:
    sample = quarters(96, 96)
    config = MaskAugmentConfig(geometry=NoGeometry(), transpose=0.5, hflip=0.5, vflip=0.5)
    views = [view(config, Squash(size=(96, 96)), sample, index) for index in range(80)]
    assert len({bytes(v.image.contiguous().numpy()) for v in views}) == 8
    assert all(agreement(v) == 1 for v in views)


def speck(size: tuple[int, int] = (600, 600)) -> Sample:
    """Class 0 almost everywhere, class 1 at nine pixels."""
    ids = torch.ones((1, *size), dtype=torch.int16)
    ids[0, 410:413, 77:80] = 2
    return Sample("speck", torch.zeros((3, *size), dtype=torch.uint8), Segments(ids, (0, 1)))


def test_rare_classes_are_shown_as_often_as_asked() -> None:
    shown = [
        sum(
            1 in segments_of(view(config, Tiles(size=(64, 64)), speck(), i)).labels
            for i in range(150)
        )
        for config in (
            MaskAugmentConfig(geometry=MaskCrop(scale=(1, 1.4)), rare=rare) for rare in (0.0, 0.8)
        )
    ]
    assert shown[0] < 10
    assert 40 <= shown[1] <= 80  # 150 x 0.8 / 2 classes


def test_a_turned_view_shows_the_pixel_that_it_was_drawn_around() -> None:
    ids = torch.zeros((1, 600, 600), dtype=torch.int16)
    ids[0, 300:303, 200:203] = 1
    sample = Sample("one", torch.zeros((3, 600, 600), dtype=torch.uint8), Segments(ids, (0,)))
    config = MaskAugmentConfig(geometry=MaskCrop(degrees=180, scale=(1, 1.2)), rare=1.0)
    for index in range(60):
        assert segments_of(view(config, Tiles(size=(64, 64)), sample, index)).labels == (0,)


def test_somewhere_passes_void_and_crowds_over() -> None:
    ids = torch.tensor([[[1, 2, 3]], [[0, 4, 0]]], dtype=torch.int16)
    segments = Segments(ids, (VOID, 0, 0, 5), (False, True, False, True))
    assert {somewhere(segments, np.random.default_rng(i)) for i in range(20)} == {(0.5, 2.5)}
    layered = Segments(ids, (VOID, VOID, VOID, 5))
    assert somewhere(layered, np.random.default_rng(0)) == (0.5, 1.5)
    nothing = Segments(torch.ones((1, 2, 2), dtype=torch.int16), (VOID,))
    assert somewhere(nothing, np.random.default_rng(0)) is None


def halves(kind: SegmentKind, crowd: bool = False) -> list[Segments]:
    """Views of half of an object that is 100 pixels wide, from any place."""
    ids = torch.zeros((1, 40, 200), dtype=torch.int16)
    ids[0, :, 50:150] = 1
    image = torch.zeros((3, 40, 200), dtype=torch.uint8)
    sample = Sample("wide", image, Segments(ids, (2,), (True,) if crowd else ()))
    config = MaskAugmentConfig(geometry=NoGeometry(), rare=0, min_visible=0.3)
    augment = MaskAugment(config, Preprocess(resize=Tiles(size=(40, 60))), Data(kind))
    return [segments_of(augment(sample, sample_rng(0, 0, i))) for i in range(60)]


def test_an_object_of_which_little_is_shown_is_not_judged() -> None:
    for found in halves("instance"):
        if found.labels:
            pixels = int((found.ids == 1).sum())
            assert found.labels == ((2,) if pixels >= 0.3 * 4000 else (VOID,))
    assert {found.labels for found in halves("instance")} >= {(2,), (VOID,)}
    assert {found.labels for found in halves("semantic")} <= {(2,), ()}
    assert {found.labels for found in halves("instance", crowd=True)} <= {(2,), ()}


def test_layers_that_are_left_empty_go() -> None:
    ids = torch.zeros((2, 30, 300), dtype=torch.int16)
    ids[0, :, :20], ids[1, :, 280:] = 1, 2
    sample = Sample("layers", torch.zeros((3, 30, 300), dtype=torch.uint8), Segments(ids, (0, 1)))
    for index in range(20):
        found = segments_of(
            view(MaskAugmentConfig(geometry=NoGeometry()), Tiles(size=(30, 40)), sample, index)
        )
        assert found.ids.shape[0] == 1
        assert len(found.labels) <= 1


def test_what_cuts_images_off_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"center_crop.*'tiles'"):
        MaskAugment(MaskAugmentConfig(), Preprocess(resize=CenterCrop(size=(8, 8))), Data())
    for wrong in ({"scale": (2, 1)}, {"ratio": (2, 1)}):
        with pytest.raises(ValueError, match="least, largest"):
            MaskCrop.model_validate(wrong)
