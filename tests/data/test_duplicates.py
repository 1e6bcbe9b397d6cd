"""Exact and perceptual duplicates."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor

from vitrail.data.duplicates import (
    MIN_SIDE,
    NEAR,
    exact_groups,
    near_groups,
    near_pairs,
    perceptual_hash,
)

HASH = st.integers(0, 2**64 - 1)


def scene(seed: int, side: int = 128) -> Image.Image:
    """A picture with structure at several scales, as photos have."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((side, side, 3))
    for cells in (3, 6, 12):
        coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        picture += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(picture.astype(np.uint8))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 40),
        lambda image: image.resize((300, 260)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.convert("L"),
    ],
    ids=["recompressed", "resized", "darker", "grey"],
)
def test_changed_copies_hash_alike(change) -> None:
    for seed in range(5):
        first, second = (
            perceptual_hash(tensor(scene(seed))),
            perceptual_hash(tensor(change(scene(seed)))),
        )
        assert first is not None
        assert second is not None
        assert (first ^ second).bit_count() <= NEAR


def test_different_scenes_hash_far_apart() -> None:
    hashes = [perceptual_hash(tensor(scene(seed))) for seed in range(20)]
    assert all((a ^ b).bit_count() > 2 * NEAR for a, b in combinations(hashes, 2))


def test_the_hash_is_that_of_the_library() -> None:
    import imagehash

    image = scene(3, side=200)
    assert f"{perceptual_hash(tensor(image)):016x}" == str(imagehash.phash(image))


def test_small_and_flat_pictures_are_not_hashed() -> None:
    assert perceptual_hash(tensor(scene(0, side=MIN_SIDE - 1))) is None
    assert perceptual_hash(tensor(scene(0, side=MIN_SIDE))) is not None
    noise = torch.randint(120, 130, (3, 200, 200), dtype=torch.uint8)
    assert perceptual_hash(noise) is None


def test_exact_groups() -> None:
    assert exact_groups([b"a", b"b", None, b"a", None, b"c", b"b", b"a"]) == [(0, 3, 7), (1, 6)]
    assert exact_groups([]) == []


@given(st.lists(HASH, max_size=12), st.lists(st.integers(0, 63), max_size=6), st.integers(0, 8))
def test_near_pairs_are_those_of_brute_force(
    hashes: list[int], flips: list[int], distance: int
) -> None:
    """Relatives are made by flipping more and more bits, so that all distances occur."""
    for bit in flips:
        hashes = [*hashes, *(value ^ (1 << bit) for value in hashes[-2:])]
    unique = np.unique(np.array(hashes, dtype=np.uint64))
    left, right = near_pairs(unique, distance)
    found = {(min(pair), max(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    values = [int(value) for value in unique]
    expected = {
        (i, j)
        for i, j in combinations(range(len(values)), 2)
        if (values[i] ^ values[j]).bit_count() <= distance
    }
    assert found == expected


def test_near_groups_chain_and_leave_out() -> None:
    start = 0x0123456789ABCDEF
    chain = [start, start ^ 0b1111, start ^ 0b1111_1111]
    assert (chain[0] ^ chain[2]).bit_count() > NEAR
    hashes = [chain[0], None, chain[2], ~start & (2**64 - 1), chain[1], None]
    assert near_groups(hashes) == [(0, 2, 4)]
    assert near_groups(hashes, distance=3) == []


def test_near_groups_of_equal_hashes_and_of_nothing() -> None:
    assert near_groups([7] * 5000) == [tuple(range(5000))]
    assert near_groups([]) == near_groups([None]) == near_groups([2**64 - 1]) == []
