"""Elastic distortion: a net whose knots move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vitrail.data.elastic import Elastic, elastic

STILL = Elastic(amplitude=0, degrees=0, translate=0, scale=(1, 1), shear=0)


def pattern(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def disc(x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[:32, :96]
    bright = ((rows - y) ** 2 + (columns - x) ** 2 < 36)[..., None]
    return np.where(bright, 255, 0).astype(np.uint8).repeat(3, axis=2)


def centre(pixels: np.ndarray) -> tuple[float, float]:
    weight = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    return (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 9))
def test_any_size_is_kept_and_the_generator_decides(height: int, width: int, seed: int) -> None:
    image = pattern(height, width)
    first = elastic(Elastic(), image, np.random.default_rng(seed))
    again = elastic(Elastic(), image, np.random.default_rng(seed))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_a_net_that_is_still_shows_the_image() -> None:
    image = pattern(32, 96)
    found = elastic(STILL, image, np.random.default_rng(0))
    assert np.abs(found.astype(int) - image).max() <= 1


def test_knots_move_by_themselves() -> None:
    """The ends of a line move apart from each other, by about the amplitude."""
    config = STILL.model_copy(update={"amplitude": 2.0})
    moves = []
    for seed in range(60):
        moved = [elastic(config, disc(x, 16), np.random.default_rng(seed)) for x in (16, 80)]
        moves.append([centre(m)[0] - x for m, x in zip(moved, (16, 80), strict=True)])
    left, right = np.array(moves).T
    assert 0.5 < left.std() < 3
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.4


def test_translation_moves_all_alike() -> None:
    config = STILL.model_copy(update={"translate": 0.25})
    for seed in range(5):
        dx = [
            centre(elastic(config, disc(x, 16), np.random.default_rng(seed)))[0] - x
            for x in (30, 60)
        ]
        assert dx[0] == pytest.approx(dx[1], abs=0.3)
        assert abs(dx[0]) <= 8.5


def test_scale_is_about_the_centre() -> None:
    config = STILL.model_copy(update={"scale": (1.2, 1.2)})
    found = elastic(config, disc(64, 16), np.random.default_rng(0))
    assert centre(found)[0] == pytest.approx(48 + 1.2 * 16, abs=0.7)


def test_edges_are_repeated_not_black() -> None:
    image = np.full((32, 96, 3), 200, dtype=np.uint8)
    assert elastic(Elastic(), image, np.random.default_rng(1)).min() == 200


@pytest.mark.parametrize(
    "wrong", [{"cell": 0}, {"amplitude": -1}, {"shear": 90}, {"scale": (0, 1)}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Elastic(**wrong)
