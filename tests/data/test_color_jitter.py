"""Colours change by random factors within their limits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vitrail.data.color_jitter import ColorJitter, color_jitter

GREY = Image.new("RGB", (4, 4), (100, 100, 100))
RED = Image.new("RGB", (4, 4), (200, 50, 50))


def levels(config: ColorJitter, picture: Image.Image) -> list[tuple[int, ...]]:
    views = [color_jitter(config, picture, np.random.default_rng(seed)) for seed in range(200)]
    return [tuple(np.asarray(view)[0, 0].tolist()) for view in views]


def test_brightness_stays_within_its_limits() -> None:
    found = [level[0] for level in levels(ColorJitter(brightness=0.3), GREY)]
    assert min(found) in range(70, 75)
    assert max(found) in range(126, 131)


def test_saturation_leaves_grey_alone() -> None:
    assert set(levels(ColorJitter(saturation=0.9), GREY)) == {(100, 100, 100)}
    assert len(set(levels(ColorJitter(saturation=0.9), RED))) > 50


def test_nothing_asked_nothing_done() -> None:
    assert color_jitter(ColorJitter(), RED, np.random.default_rng(0)) is RED
