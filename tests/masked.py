"""Segmenters and answers of regions small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tiny import randomise, tiny_config
from vitrail.data.preprocess import HALF, Preprocess, Squash
from vitrail.masks import encode
from vitrail.model import Model, ModelConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import LinearReadout
from vitrail.types import Region, Segmentation

SIZE = (20, 30)


def regions_of(values: np.ndarray, names: Sequence[str], seed: int = 0) -> Segmentation:
    """A region for each value from 1 on that occurs, as a model of classes gives them."""
    scores = np.random.default_rng(seed).uniform(0.3, 1, len(names)).round(3)
    found = [
        Region(name, float(score), encode(values == value))
        for value, (name, score) in enumerate(zip(names, scores, strict=True), 1)
        if (values == value).any()
    ]
    return Segmentation(values.shape, tuple(found))


def blobs(seed: int, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Values from 0 to count in large areas with rough edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count + 1, (size[0] // 4 + 1, size[1] // 4 + 1))
    values = coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]
    speck = rng.random(size) < 0.1
    return np.where(speck, rng.integers(0, count + 1, size), values)


def objects_of(seed: int, count: int, names: Sequence[str]) -> Segmentation:
    """Rough objects that overlap, the surest first; some have holes or several parts."""
    rng = np.random.default_rng(seed)
    found: list[Region] = []
    for score in sorted(rng.uniform(0.05, 1, count).round(3), reverse=True):
        mask = np.zeros(SIZE, dtype=bool)
        top, left = rng.integers(0, SIZE[0] - 8), rng.integers(0, SIZE[1] - 8)
        mask[top : top + 8, left : left + 8] = rng.random((8, 8)) < 0.6
        found.append(Region(names[rng.integers(len(names))], float(score), encode(mask)))
    return Segmentation(SIZE, tuple(found))


def tiny_segmenter(classes: Sequence[str] = ("cat", "dog"), **task: Any) -> Model:
    """A segmenter with random weights that are large enough to tell classes apart."""
    backbone = tiny_config(image_size=(16, 24))
    config = ModelConfig(
        backbone=backbone,
        task=SegmentConfig(classes=tuple(classes), **({"readout": LinearReadout()} | task)),
        preprocess=Preprocess(resize=Squash(size=(16, 24)), mean=HALF, std=HALF),
    )
    return randomise(Model(config)).eval()
