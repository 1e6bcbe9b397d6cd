"""Generated aerial scenes with roads of 1 to 6 pixels: built-in data for thin structures.

Roads are splines that cross, branch and end. Fields with furrows, hedges, houses of the colours of
roads and shadows lie below and beside them: neither colour nor an edge alone tells a road. Masks
are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from vitrail.data.order import sample_rng
from vitrail.data.segments import DrawnTargets, SegmentDataset, hashed
from vitrail.types import Sample, Segments

NAME = "roads"
CLASSES = ("road",)
SIZES = {"train": 1_000, "val": 100, "test": 200}
SIDE = 128
"""A quarter of the pixels of 256 x 256: on a CPU more scenes teach more than larger ones."""
MOST = 5
"""Roads of a scene at most."""
WIDTHS = (1.0, 6.0)

_NUMBER = {"train": 0, "val": 1, "test": 2}
_GRAIN = 28.0
_REACH = 5
"""Pixels around a piece of a centre line that can be of its road, or of its soft edge."""


class Roads(SegmentDataset):
    """Colour images of 128 x 128 pixels; the target is the pixels that are road.

    A pixel is road where its centre is less than half a width away from a centre line. Everything
    is a function of (seed, split, index): a smaller set is the beginning of a larger one.

    Args:
        sizes: Images of each split.
        seed: Of the scenes.

    Attributes:
        published: Indices of each split.
    """

    classes = CLASSES
    multilabel = False
    segments = "semantic"
    background = True

    def __init__(self, *, sizes: Mapping[str, int] = SIZES, seed: int = 0) -> None:
        self.seed = seed
        self._places: list[tuple[int, int]] = []
        ids: list[str] = []
        self.published: dict[str, range] = {}
        for name, size in sizes.items():
            self.published[name] = range(len(ids), len(ids) + size)
            self._places += [(_NUMBER[name], index) for index in range(size)]
            ids += [f"{name}/{index:05d}" for index in range(size)]
        self.ids = ids
        self.targets = DrawnTargets(self)

    def read(self, index: int) -> Sample:
        """Render one image."""
        rng = self._rng(index)
        roads = _roads(rng)
        image = torch.from_numpy(_render(roads, rng))  # pyright: ignore[reportUnknownMemberType]
        return Sample(self.ids[index], image.permute(2, 0, 1), _target(roads))

    def read_bytes(self, index: int) -> bytes:
        """The rendered pixels, row by row, three bytes each."""
        rng = self._rng(index)
        return _render(_roads(rng), rng).tobytes()

    def stored_size(self, index: int) -> int:
        """Bytes of the rendered pixels."""
        del index
        return 3 * SIDE * SIDE

    def draw(self, index: int) -> Segments:
        """The pixels that are road, without the image."""
        return _target(_roads(self._rng(index)))

    def digest(self, index: int) -> str:
        """A hash of what scenes are a function of."""
        return hashed(NAME, str((self.seed, *self._places[index])))

    def _rng(self, index: int) -> np.random.Generator:
        return sample_rng(self.seed, *self._places[index])


def named(name: str) -> Roads | None:
    """The scenes of the name `roads`; None for another name."""
    return Roads() if name == NAME else None


@dataclass(frozen=True, slots=True)
class _Road:
    """One road of a scene.

    Attributes:
        width: In pixels.
        line: Points of its centre line, row and column, about a pixel apart.
        distance: From the centre of each pixel to that line; infinite where it is far away.
    """

    width: float
    line: Float[np.ndarray, "n 2"]
    distance: Float[np.ndarray, "H W"]


def _roads(rng: np.random.Generator) -> list[_Road]:
    """What the first random numbers of an image make: one to five roads.

    The first goes from border to border. A later one does, or it branches from an earlier one, to
    the border or to its end anywhere.
    """
    roads: list[_Road] = []
    low, high = WIDTHS
    for _ in range(int(rng.integers(1, MOST + 1))):
        kind, size, across = rng.random(3).tolist()
        start, end = _border(rng), _border(rng)
        if roads and kind < 0.6:
            line = roads[int(rng.integers(len(roads)))].line
            start = line[int(rng.integers(len(line) // 4, 3 * len(line) // 4))]
            if kind < 0.2:
                end = rng.uniform(0.1 * SIDE, 0.9 * SIDE, 2)
        elif (start == end).any() or abs(start - end).max() < SIDE / 2:
            end = SIDE - start + (across - 0.5) * SIDE / 4  # the same border, or a corner cut off
        line = _spline(start, end, rng)
        roads.append(_Road(low * (high / low) ** size, line, _distance(line)))
    return roads


def _target(roads: Sequence[_Road]) -> Segments:
    mask = np.logical_or.reduce([road.distance < road.width / 2 for road in roads])
    ids = torch.from_numpy(mask.astype(np.int16))  # pyright: ignore[reportUnknownMemberType]
    return Segments(ids[None], labels=(0,))


def _render(roads: Sequence[_Road], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    pixels = _land(rng)
    _add_houses(pixels, rng)
    for road in roads:
        # Half at the edge: no stairs.
        cover = (road.width / 2 + 0.5 - road.distance).clip(0, 1).astype(np.float32)
        pixels += cover[:, :, None] * (_tone(rng) - pixels)
    pixels *= 0.7 + 0.45 * _clouds(rng, 5)  # shadows
    pixels += _GRAIN * (rng.random(pixels.shape, dtype=np.float32) - 0.5)
    return pixels.clip(0, 255).astype(np.uint8)


def _border(rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    """A point a little outside of the image."""
    along, out = rng.uniform(0, SIDE), -4.0 if rng.random() < 0.5 else SIDE + 4.0
    return np.array([along, out] if rng.random() < 0.5 else [out, along])


_BASIS = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6
"""Of a uniform cubic B-spline: from four knots to the coefficients of 1, t, t² and t³."""


def _spline(
    start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], rng: np.random.Generator
) -> Float[np.ndarray, "n 2"]:
    """A smooth line between two points, in steps of about a pixel."""
    length = float(np.sqrt(((end - start) ** 2).sum()))
    inner = int(rng.integers(1, 6))
    knots = start + np.linspace(0, 1, inner + 2)[:, None] * (end - start)
    bend = min(0.3 * length, 60.0) * rng.uniform(0.1, 1.0)
    knots[1:-1] += bend * rng.uniform(-0.5, 0.5, (inner, 2))
    # Three times each: the line begins and ends there.
    knots = np.concatenate([knots[:1], knots[:1], knots, knots[-1:], knots[-1:]])
    steps = max(2, int(1.6 * length / (inner + 1)))
    powers = (np.arange(steps) / steps)[:, None] ** np.arange(4)
    pieces = [powers @ (_BASIS @ knots[i : i + 4]) for i in range(len(knots) - 3)]
    return np.concatenate([*pieces, knots[-1:]])


_AROUND = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].reshape(2, 1, -1)


def _distance(line: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "H W"]:
    """From each pixel's centre to a line of short pieces, where that is near.

    Double precision: no machine's rounding may decide whether a pixel is road.
    """
    start, (down, across) = line[:-1].T[:, :, None], np.diff(line, axis=0).T[:, :, None]
    rows, columns = np.floor(start).astype(np.int64) + _AROUND
    y, x = rows + 0.5 - start[0], columns + 0.5 - start[1]
    along = (y * down + x * across) / np.maximum(down**2 + across**2, 1e-12)
    along = along.clip(0, 1)
    gap = np.sqrt((y - along * down) ** 2 + (x - along * across) ** 2)
    seen = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    field = np.full((SIDE, SIDE), np.inf)
    np.minimum.at(field, (rows[seen], columns[seen]), gap[seen])
    return field


_CENTRES = np.arange(SIDE) + 0.5


def _land(rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
    """Fields of green and brown, most of them with furrows, some with a hedge between them."""
    count = int(rng.integers(4, 12))
    sites = rng.uniform(-0.1 * SIDE, 1.1 * SIDE, (count, 2))
    gaps = (sites[:, 0, None, None] - _CENTRES[:, None]) ** 2
    gaps = gaps + (sites[:, 1, None, None] - _CENTRES) ** 2
    owner = gaps.argmin(axis=0)
    green, warm, blue = rng.uniform((70, -35, -60), (140, 25, -15), (count, 3)).T
    colours = np.stack([green + warm, green, green + blue], axis=1).astype(np.float32)
    pixels = colours[owner] + 40.0 * (_clouds(rng, 24) - 0.5)
    turn, phase = rng.uniform(0, 2 * np.pi, (2, count))
    period = rng.uniform(3, 12, count)
    height = rng.uniform(0, 32, count) * (rng.random(count) < 0.7)
    down, across = np.sin(turn) / period, np.cos(turn) / period
    waves = down[owner] * _CENTRES[:, None] + across[owner] * _CENTRES
    furrows = height[owner] * np.sin(2 * np.pi * waves + phase[owner])
    pixels += furrows.astype(np.float32)[:, :, None]
    nearest, second = np.sqrt(np.partition(gaps, 1, axis=0)[:2])
    hedge = (rng.uniform(0.5, 3.0) - (second - nearest)).clip(0, 1) * (rng.random() < 0.6)
    shade = rng.uniform((20, 35, 15), (60, 90, 45)).astype(np.float32)
    return pixels + hedge.astype(np.float32)[:, :, None] * (shade - pixels)


def _add_houses(pixels: Float32[np.ndarray, "H W 3"], rng: np.random.Generator) -> None:
    """Short turned rectangles of the colours of roads, in place."""
    for _ in range(int(rng.integers(0, 13))):
        y, x, turn = rng.uniform((0, 0, 0), (SIDE, SIDE, np.pi)).tolist()
        sides = rng.uniform(1.5, 5.0, 2)
        rows, columns = _CENTRES[:, None] - y, _CENTRES - x
        u = np.abs(np.cos(turn) * rows + np.sin(turn) * columns) - sides[0]
        v = np.abs(np.cos(turn) * columns - np.sin(turn) * rows) - sides[1]
        cover = (0.5 - np.maximum(u, v)).clip(0, 1).astype(np.float32)
        pixels += cover[:, :, None] * (_tone(rng) - pixels)


def _tone(rng: np.random.Generator) -> Float32[np.ndarray, "3"]:
    """Of asphalt, concrete or earth: rather bright, of little colour."""
    warm = rng.uniform(0, 40)
    tone = rng.uniform(135, 225) + np.array([warm, 0.5 * warm, -0.3 * warm])
    return tone.astype(np.float32)


def _clouds(rng: np.random.Generator, knots: int) -> Float32[np.ndarray, "H W 1"]:
    """Soft random values of 0 to 1."""
    coarse = Image.fromarray(rng.integers(0, 256, (knots, knots), dtype=np.uint8))
    soft = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(soft, dtype=np.float32)[:, :, None] / np.float32(255)
