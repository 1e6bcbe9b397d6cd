"""Augmentation: exact sizes, one source of randomness, and what each part does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from vitrail.data.augment import (
    Affine,
    Augment,
    AugmentConfig,
    ColorJitter,
    NoGeometry,
    PadCrop,
    RandomCrop,
    RandomResizedCrop,
)
from vitrail.data.order import sample_rng
from vitrail.data.preprocess import CenterCrop, Preprocess, Squash, TokenBudget
from vitrail.data.rand_augment import RandAugment

GEOMETRIES = (
    NoGeometry(),
    RandomResizedCrop(),
    RandomCrop(),
    RandomCrop(crop_pct=0.5),
    PadCrop(padding=3),
    PadCrop(padding=3, mode="edge"),
    PadCrop(padding=3, mode="reflect"),
    Affine(degrees=15, shear=5),
)
EVERYTHING = {
    "hflip": 0.5,
    "vflip": 0.5,
    "rand_augment": RandAugment(),
    "color_jitter": ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    "erasing": 0.5,
}


def square(side: int) -> Preprocess:
    return Preprocess(resize=Squash(size=(side, side)))


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def views(config: AugmentConfig, image: Tensor, count: int, preprocess: Preprocess) -> Tensor:
    augment = Augment(config, preprocess)
    return torch.stack([augment(image, sample_rng(0, 0, i)) for i in range(count)])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"{g.kind}")
@pytest.mark.parametrize("rule", [Squash(size=(24, 20)), CenterCrop(size=(16, 16))])
def test_size_purity_and_repeatability(
    geometry: RandomResizedCrop, rule: Squash | CenterCrop
) -> None:
    config = AugmentConfig.model_validate({"geometry": geometry, **EVERYTHING})
    augment = Augment(config, Preprocess(resize=rule))
    image = noise(40, 30)
    before = image.clone()
    for index in range(20):
        view = augment(image, sample_rng(0, 0, index)).clone()
        assert view.shape == (3, *rule.size)
        assert view.dtype == torch.uint8
        assert torch.equal(view, augment(image, sample_rng(0, 0, index)))
    assert torch.equal(image, before)
    assert len({augment(image, sample_rng(0, 0, i)).numpy().tobytes() for i in range(20)}) > 15


@settings(max_examples=40)
@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 100))
def test_any_image_size_works(height: int, width: int, seed: int) -> None:
    for geometry in GEOMETRIES:
        for rule in (Squash(size=(9, 7)), TokenBudget(patch=4, tokens=6)):
            preprocess = Preprocess(resize=rule)
            augment = Augment(AugmentConfig(geometry=geometry, hflip=0.5, erasing=1), preprocess)
            view = augment(noise(height, width), sample_rng(seed, 0, 0))
            assert view.shape[1:] == preprocess.output_size(height, width)


def test_without_augmentation_it_is_the_preprocessing() -> None:
    image = noise(50, 40)
    preprocess = Preprocess(resize=CenterCrop(size=(16, 16)))
    view = Augment(AugmentConfig(), preprocess)(image, sample_rng(0, 0, 0))
    assert torch.equal(view, preprocess.prepare(image))


def test_flips() -> None:
    image = noise(8, 8)
    for config, axes in (
        (AugmentConfig(hflip=1), [2]),
        (AugmentConfig(vflip=1), [1]),
        (AugmentConfig(hflip=1, vflip=1), [1, 2]),
    ):
        assert torch.equal(views(config, image, 1, square(8))[0], image.flip(axes))
    flipped = views(AugmentConfig(hflip=0.25), image, 400, square(8))
    share = (flipped == image.flip([2])).flatten(1).all(1).float().mean()
    assert 0.17 < float(share) < 0.33


def test_random_resized_crop_covers_the_asked_area() -> None:
    # A ramp in x and y shows where the rectangle lay.
    ramp = torch.arange(200, dtype=torch.uint8)
    image = torch.stack(
        [ramp[:, None].expand(200, 200), ramp.expand(200, 200), ramp.expand(200, 200)]
    )
    crop = RandomResizedCrop(scale=(0.25, 0.5), ratio=(0.8, 1.25))
    pictures = views(AugmentConfig(geometry=crop), image, 200, square(32)).float()
    height = pictures[:, 0].amax((1, 2)) - pictures[:, 0].amin((1, 2))
    width = pictures[:, 1].amax((1, 2)) - pictures[:, 1].amin((1, 2))
    share = height * width / 200**2
    assert 0.2 < float(share.min()) < 0.27
    assert 0.44 < float(share.max()) < 0.53
    assert float((width / height).min()) > 0.76
    assert float((width / height).max()) < 1.32
    assert float(pictures[:, 0].min()) < 10
    assert float(pictures[:, 0].max()) > 190


def test_random_resized_crop_falls_back_to_the_centre() -> None:
    crop = RandomResizedCrop(scale=(1, 1), ratio=(1, 1))
    image = torch.zeros((3, 10, 100), dtype=torch.uint8)
    image[:, :, 45:55] = 255
    assert views(AugmentConfig(geometry=crop), image, 3, square(10)).min() == 255


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad_crop_shows_a_shifted_image(mode: str) -> None:
    image = noise(8, 8)
    geometry = PadCrop.model_validate({"padding": 2, "mode": mode})
    padded = np.pad(image.permute(1, 2, 0).numpy(), ((2, 2), (2, 2), (0, 0)), mode=mode)  # type: ignore[call-overload]
    possible = {padded[y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    seen = {
        view.permute(1, 2, 0).contiguous().numpy().tobytes()
        for view in views(AugmentConfig(geometry=geometry), image, 300, square(8))
    }
    assert seen == possible


def test_affine_of_nothing_is_the_identity() -> None:
    still = Affine(degrees=0, translate=0, scale=(1, 1), shear=0)
    image = noise(9, 12)
    preprocess = Preprocess(resize=Squash(size=(9, 12)))
    assert torch.equal(views(AugmentConfig(geometry=still), image, 1, preprocess)[0], image)


@pytest.mark.parametrize(
    ("affine", "low", "high"),
    [
        (Affine(degrees=20, translate=0, scale=(1, 1)), 15, 21),
        (Affine(degrees=0, translate=0, scale=(1, 1), shear=20), 15, 21),
    ],
)
def test_affine_turns_a_line_by_the_angle(affine: Affine, low: float, high: float) -> None:
    image = torch.zeros((3, 65, 65), dtype=torch.uint8)
    image[:, :, 31:34] = 255
    pictures = views(AugmentConfig(geometry=affine), image, 100, square(65)).float()[:, 0]
    places = torch.arange(65.0)
    upper, lower = (
        (pictures[:, row] * places).sum(1) / pictures[:, row].sum(1) for row in (22, 42)
    )
    angles = torch.rad2deg(torch.atan((lower - upper) / 20)).abs()
    assert low < float(angles.max()) < high
    middle = (pictures[:, 32] * places).sum(1) / pictures[:, 32].sum(1)
    assert float((middle - 32).abs().max()) < 0.6


def test_affine_shifts_and_scales() -> None:
    image = torch.zeros((3, 40, 40), dtype=torch.uint8)
    image[:, 10:30, 10:30] = 255
    moved = views(
        AugmentConfig(geometry=Affine(degrees=0, translate=0.2, scale=(1, 1), fill=7)),
        image, 200, square(40),
    )[:, 0]  # fmt: skip
    rows = [row.nonzero()[0].item() - 10 for row in (moved == 255).any(2)]
    assert min(rows) in {-8, -7}
    assert max(rows) in {7, 8}
    assert 7 in moved
    bigger = views(
        AugmentConfig(geometry=Affine(degrees=0, translate=0, scale=(2, 2))), image, 1, square(40)
    )
    assert (bigger > 127).float().mean() == pytest.approx(1.0, abs=0.01)


def test_erasing_replaces_one_rectangle() -> None:
    image = torch.full((3, 32, 32), 3, dtype=torch.uint8)
    config = AugmentConfig(erasing=1, erasing_value="mean")
    erased = views(config, image, 200, square(32))
    changed = (erased != 3).any(1)
    share = changed.float().mean((1, 2))
    assert 0 < float(share.min()) < 0.06
    assert 0.25 < float(share.max()) < 0.36
    for mask in changed:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns
    assert erased[0][:, changed[0]][:, 0].tolist() == [123, 116, 103]


def test_erasing_with_pixels_and_by_chance() -> None:
    image = torch.full((3, 32, 32), 3, dtype=torch.uint8)
    erased = views(AugmentConfig(erasing=0.25), image, 400, square(32))
    hit = (erased != 3).flatten(1).any(1)
    assert 0.17 < float(hit.float().mean()) < 0.33
    values = erased[hit].float()
    values = values[values != 3]
    assert 30 < float(values.std()) < 90
    assert 80 < float(values.mean()) < 150


def test_erasing_uses_rgb_means_for_a_bgr_model() -> None:
    preprocess = Preprocess(resize=Squash(size=(8, 8)), mean=(0.0, 0.5, 1.0), channel_order="bgr")
    config = AugmentConfig(erasing=1, erasing_value="mean")
    (erased,) = views(config, torch.full((3, 8, 8), 9, dtype=torch.uint8), 1, preprocess)
    assert erased[:, (erased != 9).any(0)][:, 0].tolist() == [255, 127, 0]


def test_color_jitter_keeps_within_its_range() -> None:
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    config = AugmentConfig(color_jitter=ColorJitter(brightness=0.3))
    levels = views(config, image, 200, square(4))[:, 0, 0, 0]
    assert 70 <= int(levels.min()) < 75
    assert 125 < int(levels.max()) <= 130
    grey = AugmentConfig(color_jitter=ColorJitter(saturation=0.5, contrast=0.5))
    assert torch.equal(views(grey, image, 3, square(4)), image.expand(3, -1, -1, -1))


def test_config_round_trip_and_refusals() -> None:
    for geometry in GEOMETRIES:
        config = AugmentConfig.model_validate({"geometry": geometry, **EVERYTHING})
        assert AugmentConfig.model_validate_json(config.model_dump_json()) == config
    for wrong in (
        {"hflip": 1.5},
        {"geometry": {"kind": "pad_crop", "mode": "wrap"}},
        {"geometry": {"kind": "random_resized_crop", "scale": (0.5, 0.1)}},
        {"geometry": {"kind": "affine", "padding": 4}},
    ):
        with pytest.raises(ValidationError):
            AugmentConfig.model_validate(wrong)


def test_random_crop_moves_over_the_resized_image() -> None:
    """Every crop is a window of the image resized to size / crop_pct, and all places occur."""
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8).expand(3, 8, 8)
    preprocess = Preprocess(resize=CenterCrop(size=(4, 4), crop_pct=1.0))
    augment = Augment(AugmentConfig(geometry=RandomCrop(crop_pct=0.5)), preprocess)
    corners = {int(augment(image, sample_rng(0, 0, i))[0, 0, 0]) for i in range(400)}
    assert corners == {8 * row + column for row in range(5) for column in range(5)}


def test_random_crop_shows_a_window_of_the_resized_image() -> None:
    """Cutting before the resize gives a crop of the whole resized image, but for its edges."""
    ramp = torch.arange(96).expand(3, 64, 96) + 2 * torch.arange(64)[:, None]
    image = (ramp % 256).clamp(0, 255).to(torch.uint8)
    preprocess = Preprocess(
        resize=CenterCrop(size=(28, 28), crop_pct=1.0), interpolation="bilinear"
    )
    augment = Augment(AugmentConfig(geometry=RandomCrop(crop_pct=0.875)), preprocess)
    whole = preprocess.scale(image, (32, 48)).int()
    for index in range(20):
        view = augment(image, sample_rng(0, 0, index)).int()[:, 2:-2, 2:-2]
        gaps = [
            int((view - whole[:, y + 2 : y + 26, x + 2 : x + 26]).abs().max())
            for y in range(5)
            for x in range(21)
        ]
        assert min(gaps) <= 3
