"""RandAugment: every operation, its strength and its randomness."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail.data.order import sample_rng
from vitrail.data.rand_augment import OPERATIONS, RandAugment, _Draw, rand_augment

FILL = (124, 116, 104)
NAMES = [operation.__name__ for operation in OPERATIONS]
STRENGTHLESS = {"_auto_contrast", "_equalize", "_invert"}
COARSE = {"_posterize"}  # four bits even at magnitude 0


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(40, 200, (6, 6, 3), dtype=np.uint8))
    return small.resize((48, 40), Image.Resampling.BICUBIC)


def change(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    assert b.mode == "RGB"
    return float(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean())


def test_the_set_is_complete() -> None:
    assert len(set(NAMES)) == 15


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_strength_grows_with_magnitude(operation: object, image: Image.Image) -> None:
    assert callable(operation)
    changes = [
        change(image, operation(image, _Draw(level, 1, True, FILL))) for level in (0.0, 0.3, 1.0)
    ]
    if operation.__name__ in STRENGTHLESS:
        assert changes[0] == changes[1] == changes[2] > 0
    elif operation.__name__ in COARSE:
        assert 0 < changes[0] < changes[1] < changes[2]
    else:
        assert changes[0] < 0.01
        assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", ["_rotate", "_shear_x", "_translate_y", "_color", "_brightness"])
def test_the_sign_matters(name: str, image: Image.Image) -> None:
    operation = OPERATIONS[NAMES.index(name)]
    up, down = (operation(image, _Draw(0.5, sign, False, FILL)) for sign in (1, -1))
    assert change(up, down) > 0


def test_empty_places_get_the_fill(image: Image.Image) -> None:
    moved = OPERATIONS[NAMES.index("_translate_x")](image, _Draw(1.0, 1, True, FILL))
    assert moved.getpixel((47, 20)) == FILL


def test_same_numbers_same_image(image: Image.Image) -> None:
    config = RandAugment()
    results = [
        [rand_augment(image, config, sample_rng(0, 0, i), FILL).tobytes() for i in range(40)]
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert len(set(results[0])) > 20


def test_all_operations_are_drawn(image: Image.Image) -> None:
    config = RandAugment(ops=1, magnitude=9, std=0, probability=1)
    seen = {rand_augment(image, config, sample_rng(0, 0, i), FILL).tobytes() for i in range(300)}
    possible = {
        operation(image, _Draw(0.9, sign, smooth, FILL)).tobytes()
        for operation in OPERATIONS
        for sign in (-1, 1)
        for smooth in (True, False)
    }
    assert seen == possible


def test_probability_zero_is_the_identity(image: Image.Image) -> None:
    config = RandAugment(ops=4, probability=0)
    assert change(image, rand_augment(image, config, sample_rng(0, 0, 0), FILL)) == 0
