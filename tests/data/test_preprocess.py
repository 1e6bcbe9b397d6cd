"""The one preprocessing: timm's geometry, Pillow's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from vitrail.data.augment import Augment, AugmentConfig
from vitrail.data.preprocess import (
    HALF,
    CenterCrop,
    Fit,
    Letterbox,
    Line,
    Preprocess,
    Squash,
    TokenBudget,
)
from vitrail.data.tiles import Tiles, Windows
from vitrail.types import VOID, Sample, Segments

SIDES = st.integers(1, 700)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with noise, in the memory order of a decoded photo."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    noisy = np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(noisy).permute(2, 0, 1)


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


@pytest.mark.parametrize(
    ("size", "crop_pct", "image", "resized"),
    [
        ((224, 224), 0.9, (375, 500), (248, 330)),
        ((224, 224), 0.9, (500, 375), (330, 248)),
        ((224, 224), 0.875, (333, 500), (256, 384)),
        ((384, 384), 1.0, (213, 320), (384, 576)),
        ((160, 224), 0.9, (375, 500), (186, 248)),
        ((32, 32), 1.0, (28, 28), (32, 32)),
    ],
)
def test_centre_crop_rounds_like_timm(
    size: tuple[int, int], crop_pct: float, image: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert CenterCrop(size=size, crop_pct=crop_pct).resized(*image) == resized


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(375, 500), (213, 320), (100, 90)])
def test_centre_crop_has_the_pixels_of_pillow(interpolation: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    preprocess = Preprocess.model_validate(
        {
            "resize": {"kind": "center_crop", "size": (96, 96), "crop_pct": 0.9},
            "interpolation": interpolation,
        }
    )
    height, width = CenterCrop(size=(96, 96), crop_pct=0.9).resized(*shape)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    scaled = as_pillow(image).resize((width, height), filters[interpolation])
    left, top = round((width - 96) / 2), round((height - 96) / 2)
    wanted = np.asarray(scaled.crop((left, top, left + 96, top + 96))).astype(int)
    given_ = preprocess.prepare(image).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(wanted - given_).max() <= 2


def test_resize_keeps_channels_last_memory() -> None:
    scaled = Preprocess(resize=Squash(size=(64, 48))).prepare(picture(200, 300))
    assert scaled.shape == (3, 64, 48)
    assert scaled.permute(1, 2, 0).is_contiguous()


def test_memory_order_does_not_change_pixels() -> None:
    image = picture(120, 90)
    preprocess = Preprocess(resize=Squash(size=(64, 48)))
    planar = preprocess.prepare(image.contiguous()).int()
    assert (preprocess.prepare(image).int() - planar).abs().max() <= 1


def test_an_image_that_fits_is_untouched() -> None:
    image = picture(28, 28)
    for rule in (CenterCrop(size=(28, 28), crop_pct=1), Squash(size=(28, 28))):
        assert Preprocess(resize=rule).prepare(image).data_ptr() == image.data_ptr()


def test_antialias_matters_when_shrinking() -> None:
    image = picture(200, 200)
    smooth = Preprocess(resize=Squash(size=(20, 20))).prepare(image)
    rough = Preprocess(resize=Squash(size=(20, 20)), antialias=False).prepare(image)
    assert (smooth.int() - rough.int()).abs().max() > 5


@given(height=SIDES, width=SIDES, patch=st.integers(1, 32), tokens=st.integers(1, 400))
def test_token_budget(height: int, width: int, patch: int, tokens: int) -> None:
    rule = TokenBudget(patch=patch, tokens=tokens)
    rows, columns = rule.resized(height, width)
    assert rows % patch == columns % patch == 0
    assert 1 <= rows * columns // patch**2 <= tokens
    if height != width:
        assert rule.resized(width, height) == (columns, rows)
    if height > width:
        assert rows >= columns


def test_token_budget_keeps_the_aspect_ratio() -> None:
    rule = TokenBudget(patch=16, tokens=196)
    assert rule.resized(300, 300) == (224, 224)
    assert rule.resized(333, 500) == (176, 272)
    assert rule.resized(28, 28) == (224, 224)


@given(height=SIDES, width=SIDES)
def test_the_promised_size_is_the_size_given(height: int, width: int) -> None:
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    for rule in (CenterCrop(size=(20, 30)), Squash(size=(7, 9)), TokenBudget(patch=4, tokens=9)):
        preprocess = Preprocess(resize=rule)
        assert preprocess.prepare(image).shape[1:] == preprocess.output_size(height, width)


def test_json_round_trip() -> None:
    for rule in (CenterCrop(size=(20, 30)), Squash(size=(7, 9)), TokenBudget(patch=4, tokens=9)):
        preprocess = Preprocess(resize=rule, mean=HALF, std=HALF, channel_order="bgr")
        assert Preprocess.model_validate_json(preprocess.model_dump_json()) == preprocess


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": {"kind": "squash", "size": (0, 3)}},
        {"resize": {"kind": "center_crop", "size": (8, 8), "crop_pct": 1.2}},
        {"resize": {"kind": "squash", "size": (8, 8), "crop_pct": 1.0}},
        {"resize": {"kind": "squash", "size": (8, 8)}, "std": (0.2, 0.0, 0.2)},
        {"resize": {"kind": "squash", "size": (8, 8)}, "interpolation": "nearest"},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocess.model_validate(wrong)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(32, 256, (32, 256)), (16, 40, (32, 256)), (64, 100, (32, 256)), (32, 300, (32, 320))],
)
def test_a_line_keeps_its_scale_and_is_filled_up(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    preprocess = Preprocess(resize=Line(size=(32, 256)))
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    found = preprocess.prepare(image)
    assert tuple(found.shape[1:]) == expected == preprocess.output_size(height, width)
    own = round(width * 32 / height)
    assert torch.equal(found[:, :, :own], preprocess.scale(image, (32, own)))
    if own < expected[1]:
        assert torch.equal(
            found[:, :, own:], found[:, :, own - 1 : own].expand_as(found[:, :, own:])
        )


def test_training_squeezes_a_line_that_is_too_long() -> None:
    preprocess = Preprocess(resize=Line(size=(32, 64)))
    augment = Augment(AugmentConfig(), preprocess)
    long = torch.zeros(3, 32, 200, dtype=torch.uint8)
    assert augment(long, np.random.default_rng(0)).shape == (3, 32, 64)
    assert preprocess.prepare(long).shape == (3, 32, 224)


def test_a_hair_is_no_line() -> None:
    preprocess = Preprocess(resize=Line(size=(8, 16)))
    image = torch.zeros(3, 1, 30_000, dtype=torch.uint8)
    assert preprocess.prepare(image).shape == (3, 8, 16 * 16)
    assert preprocess.output_size(1, 30_000) == (8, 16 * 16)


BLOCK = 6
"""Side of a field of the checkerboard."""


def chequered(height: int, width: int) -> Sample:
    """White fields are segment 1, of class 3."""
    ys, xs = np.mgrid[:height, :width] // BLOCK
    white = (ys + xs) % 2 == 0
    pixels = np.repeat(white[:, :, None], 3, axis=2).astype(np.uint8) * 255
    ids = torch.from_numpy(white[None].astype(np.int16))
    return Sample("board", torch.from_numpy(pixels).permute(2, 0, 1), Segments(ids, (3,)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "rule",
    [
        Squash(size=(96, 120)),
        Squash(size=(301, 199)),
        Fit(short=90, long=200, multiple=32),
        Letterbox(side=110),
        Tiles(size=(64, 64)),
        Tiles(size=(160, 256), scale=1.3),
        Tiles(size=(32, 32), scale=0.55),
        Windows(side=48),
        Windows(side=32, short=70, stride=20),
        TokenBudget(patch=16, tokens=80),
    ],
)
def test_masks_do_not_shift_against_their_image(rule: Any, interpolation: Any) -> None:
    view = Preprocess(resize=rule, interpolation=interpolation).view(chequered(132, 150))
    segments = view.target
    assert isinstance(segments, Segments)
    assert segments.size == view.image.shape[1:]
    rows, columns = view.extent or segments.size
    white, mask = view.image[0, :rows, :columns] >= 128, segments.ids[0, :rows, :columns] == 1
    # Where a border lies on the middle of a pixel, either is right; a shift by a pixel would move
    # a whole row a field.
    wrong = (white != mask).float().mean()
    shifted = torch.stack(
        [(white != mask.roll(s, d)).float().mean() for s in (-1, 1) for d in (0, 1)]
    )
    assert wrong < 0.25 * shifted.min()


@pytest.mark.parametrize(
    "rule", [Fit(short=40, long=90, multiple=32), Tiles(size=(64, 96)), Letterbox(side=70)]
)
def test_filled_parts_are_void(rule: Any) -> None:
    view = Preprocess(resize=rule).view(chequered(40, 70))
    segments = view.target
    assert isinstance(segments, Segments)
    assert segments.labels == (3, VOID)
    assert view.extent == (40, 70)
    void = segments.ids[0] == 2
    assert not void[:40, :70].any()
    assert void[40:].all()
    assert void[:, 70:].all()
    assert not view.image[:, 40:].any()


def test_tiles_keep_the_scale_of_the_image() -> None:
    rule = Tiles(size=(64, 64))
    image = picture(100, 80)
    assert torch.equal(Preprocess(resize=rule).prepare(image), image)
    assert Preprocess(resize=rule).prepare(picture(100, 30)).shape == (3, 100, 64)
    assert Preprocess(resize=rule).prepare(picture(10, 20)).shape == (3, 64, 64)
    assert Tiles(size=(64, 64), scale=0.5).resized(100, 81) == (50, 40)
