from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from vitrail.masks import area, as_coco, corners, decode, encode, encode_each, overlaps, union


def blobs(seed: int, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 12, 2)
    return [rng.random(size) < rng.choice([0, 0.2, 0.7, 1]) for _ in range(count)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_there_and_back(seed: int) -> None:
    for mask in blobs(seed):
        rle = encode(mask)
        back = decode(rle, mask.shape)
        assert back.dtype == np.bool_
        assert np.array_equal(back, mask)
        assert area(rle, mask.shape) == mask.sum()


def test_as_cocos_own_tool() -> None:
    mask = blobs(1)[1].astype(np.uint8)
    assert encode(mask) == coco.encode(np.asfortranarray(mask))["counts"]
    assert np.array_equal(coco.decode(as_coco(encode(mask), mask.shape)), mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_any_number_but_zero_is_inside(dtype: type) -> None:
    mask = np.array([[0, 1], [255, 0]]).astype(dtype)
    assert np.array_equal(decode(encode(mask), (2, 2)), mask != 0)
    assert area(encode(mask.astype(np.int64) * 256), (2, 2)) == 2, "256 is not 0 in a byte"


def test_bits_of_a_png() -> None:
    file = io.BytesIO()
    mask = np.eye(9, dtype=bool)
    Image.fromarray(mask).save(file, "PNG")
    with Image.open(file) as image:
        assert image.mode == "1"
        assert area(encode(np.asarray(image)), (9, 9)) == 9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_runs_know_what_pixels_say(seed: int) -> None:
    masks = blobs(seed)
    size = masks[0].shape
    rles = [encode(mask) for mask in masks]
    assert np.array_equal(decode(union(rles, size), size), np.any(masks, axis=0))
    for mask, rle in zip(masks, rles, strict=True):
        y, x = np.nonzero(mask)
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 0, 0)
        assert corners(rle, size) == box
    crowds = [False, True, False]
    shares = overlaps(rles, rles, size, crowds)
    for i, ours in enumerate(masks):
        for k, theirs in enumerate(masks):
            whole = (ours if crowds[k] else ours | theirs).sum()
            expected = (ours & theirs).sum() / whole if whole else 0
            assert shares[i, k] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_every_segment_of_a_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rng.integers(1, 5), rng.integers(1, 9, 2)).astype(np.int16)
    numbers = [number for number in np.unique(ids).tolist() if number]
    assert encode_each(ids) == {number: encode(ids == number) for number in numbers}


def test_nothing() -> None:
    size = (3, 4)
    assert not decode(union([], size), size).any()
    assert overlaps([], [encode(np.ones(size))], size).shape == (0, 1)
