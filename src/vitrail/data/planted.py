"""Images whose label rests on one known place: built-in data for judging explanations.

A patch of 8 x 8 pixels with one of four patterns lies anywhere on a busy background. Classes are
drawn apart from scenes, so nothing outside the patch can tell the class: an explanation that points
elsewhere is wrong, whatever the model. `planted:3` is harder: patches of the same size, colours and
contrast, whose patterns belong to no class, lie beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from vitrail.data.dataset import Dataset
from vitrail.data.order import sample_rng
from vitrail.errors import DataError
from vitrail.types import Sample

NAME = "planted"
CLASSES = ("checker", "diagonal", "horizontal", "vertical")
SIZES = {"train": 20_000, "val": 1_000, "test": 1_000}
SIDE = 40
PATCH = 8
MOST = 4
"""Patches of no class beside the planted one for which there is always room."""

_NUMBER = {"train": 0, "val": 1, "test": 2}
_CELLS = ((10, 26.0), (4, 18.0))
"""The background's textures: pixels from one random colour to the next, and their deviation."""
_GRAIN = 24.0
_TRIES = 100


class Planted(Dataset):
    """Colour images of 40 x 40 pixels; the target is the pattern of the planted patch.

    Everything is a function of (seed, split, index): a smaller set is the beginning of a larger
    one. `Sample.evidence` is the planted patch.

    Args:
        distractors: Patches of no class beside the planted one, 0 to 4.
        sizes: Images of each split.
        seed: Of classes and scenes.

    Attributes:
        published: Indices of each split.
    """

    classes = CLASSES
    multilabel = False

    def __init__(
        self, distractors: int = 0, *, sizes: Mapping[str, int] = SIZES, seed: int = 0
    ) -> None:
        assert 0 <= distractors <= MOST, f"0 to {MOST} distractors"
        self.seed, self.distractors = seed, distractors
        self._places: list[tuple[int, int]] = []
        ids: list[str] = []
        self._labels: list[int] = []
        self.published: dict[str, range] = {}
        for name, size in sizes.items():
            self.published[name] = range(len(ids), len(ids) + size)
            self._places += [(_NUMBER[name], index) for index in range(size)]
            folder = f"{name}-{distractors}" if distractors else name
            ids += [f"{folder}/{index:05d}" for index in range(size)]
            drawn = np.random.default_rng((seed, _NUMBER[name])).integers(0, len(CLASSES), size)
            self._labels += drawn.tolist()
        self.ids, self.targets = ids, self._labels

    def read(self, index: int) -> Sample:
        """Render one image."""
        image = torch.from_numpy(self.render(index))  # pyright: ignore[reportUnknownMemberType]
        evidence = torch.from_numpy(self.evidence(index))  # pyright: ignore[reportUnknownMemberType]
        return Sample(self.ids[index], image, self.targets[index], evidence)

    def read_bytes(self, index: int) -> bytes:
        """The rendered pixels, one channel after the other."""
        return self.render(index).tobytes()

    def stored_size(self, index: int) -> int:
        """Bytes of the rendered pixels."""
        del index
        return 3 * SIDE * SIDE

    def evidence(self, index: int) -> Bool[np.ndarray, "H W"]:
        """Where the planted patch lies."""
        row, column = _places(self._rng(index), self.distractors)[0]
        mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
        mask[row : row + PATCH, column : column + PATCH] = True
        return mask

    def render(self, index: int, target: int | None = None) -> UInt8[np.ndarray, "3 H W"]:
        """Draw one image.

        The class takes no part in the drawing of random numbers: with another one the same scene
        differs in the planted patch alone.

        Args:
            index: Which image.
            target: The class whose pattern is planted, instead of the image's own.
        """
        rng = self._rng(index)
        places = _places(rng, self.distractors)
        pixels = _background(rng)
        planted = _pattern(self._labels[index] if target is None else target, rng)
        inks = [planted, *_no_patterns(rng, self.distractors)]
        middle = rng.uniform(90, 165, (len(places), 3, 1, 1))
        swing = rng.uniform(40, 80, (len(places), 1, 1, 1)) * rng.uniform(0.7, 1, middle.shape)
        for (row, column), ink, mid, half in zip(places, inks, middle, swing, strict=True):
            pixels[:, row : row + PATCH, column : column + PATCH] = mid + half * ink
        pixels += _GRAIN * (rng.random(pixels.shape, dtype=np.float32) - 0.5)
        return pixels.clip(0, 255).astype(np.uint8)

    def _rng(self, index: int) -> np.random.Generator:
        return sample_rng(self.seed, *self._places[index])


def named(name: str) -> Planted | None:
    """The scenes of a name: `planted`, `planted:3` (distractors); None for another name.

    Raises:
        DataError: the number of distractors is none.
    """
    start, colon, count = name.partition(":")
    if start != NAME:
        return None
    if not colon:
        return Planted()
    if not (count.isdecimal() and int(count) <= MOST):
        raise DataError(
            f"{name}: '{count}' is no number of distractors; write one from 0 to {MOST}, "
            f"e.g. {NAME}:3"
        )
    return Planted(int(count))


def _places(rng: np.random.Generator, distractors: int) -> list[tuple[int, int]]:
    """Top left corners of patches that do not overlap, the planted one first.

    The first is taken whatever the others are: every place is equally likely for it.
    """
    taken: list[tuple[int, int]] = []
    for row, column in rng.integers(0, SIDE - PATCH + 1, (_TRIES, 2)).tolist():
        if all(abs(row - r) >= PATCH or abs(column - c) >= PATCH for r, c in taken):
            taken.append((row, column))
            if len(taken) > distractors:
                return taken
    raise AssertionError(f"no room in {_TRIES} tries")


def _background(rng: np.random.Generator) -> Float32[np.ndarray, "3 H W"]:
    """A colour with coarse and fine waves of other colours on it."""
    pixels = np.empty((3, SIDE, SIDE), dtype=np.float32)
    pixels[:] = rng.uniform(90, 165, (3, 1, 1))
    for (_, deviation), blend in zip(_CELLS, _BLENDS, strict=True):
        knots = blend.shape[1]
        colours = rng.standard_normal((3, knots, knots), dtype=np.float32)
        pixels += deviation * (blend @ colours @ blend.T)
    return pixels


def _blend(cell: int) -> Float32[np.ndarray, "H knots"]:
    """What each knot gives to each pixel: linear from one to the next."""
    knots = np.arange(SIDE // cell + 1, dtype=np.float32) * cell
    pixels = np.arange(SIDE, dtype=np.float32)[:, None] + 0.5
    return (1 - np.abs(pixels - knots) / cell).clip(0)


_BLENDS = [_blend(cell) for cell, _ in _CELLS]
_ROWS, _COLUMNS = np.mgrid[:PATCH, :PATCH]


def _pattern(target: int, rng: np.random.Generator) -> Float[np.ndarray, "8 8"]:
    """The pattern of a class, from -1 to 1, its phase at random; stripes are 2 pixels wide."""
    down, across, turn = rng.integers(0, 4, 3).tolist()
    rows, columns = _ROWS + down, _COLUMNS + across
    match CLASSES[target]:
        case "horizontal":
            steps = rows // 2
        case "vertical":
            steps = columns // 2
        case "diagonal":  # rising or falling, so that a mirrored image keeps its class
            steps = (rows + columns if turn % 2 else rows + PATCH - columns) // 2
        case _:
            steps = rows // 2 + columns // 2
    return steps % 2 * 2.0 - 1


def _no_patterns(rng: np.random.Generator, count: int) -> list[Float[np.ndarray, "8 8"]]:
    """Patterns of no class, from -1 to 1: each is speckle, a disc or a ramp."""
    inks: list[Float[np.ndarray, "8 8"]] = []
    for kind in rng.integers(0, 3, count).tolist():
        if kind == 0:
            inks.append(rng.integers(0, 2, (PATCH, PATCH)) * 2.0 - 1)
        elif kind == 1:
            top, left, radius, sign = rng.uniform((2.5, 2.5, 1.8, -1), (4.5, 4.5, 3.2, 1)).tolist()
            inside = np.hypot(_ROWS - top, _COLUMNS - left) <= radius
            inks.append(np.where(inside == (sign > 0), 1.0, -1.0))
        else:
            angle = rng.uniform(0, 2 * np.pi)
            slope = np.cos(angle) * (_ROWS - 3.5) + np.sin(angle) * (_COLUMNS - 3.5)
            inks.append(slope / np.abs(slope).max())
    return inks
