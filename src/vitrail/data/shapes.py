"""Generated scenes of overlapping shapes: built-in data for `detect` and `segment`.

One to twelve circles, squares, stars and triangles lie on a busy background, the later ones over
the earlier ones. Boxes and masks are exact: they hold what is seen of a shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int8, UInt8
from PIL import Image

from vitrail.data.dataset import Dataset, Picked
from vitrail.data.order import sample_rng
from vitrail.data.segments import DrawnTargets, Piece, SegmentDataset, hashed, stack
from vitrail.types import Box, Boxes, Sample, Segments, Target

NAME = "shapes"
CLASSES = ("circle", "square", "star", "triangle")
SIZES = {"train": 4_000, "val": 400, "test": 1_000}
SIDE = 128
MOST = 12
"""Shapes of a scene at most."""
SEEN = 0.25
"""Share of a shape that must be seen for it to be labelled."""

_NUMBER = {"train": 0, "val": 1, "test": 2}
_DIAMETERS = (12.0, 32.0)
"""Of the circle of a shape's area: a star of the largest is 48 pixels across."""
_RIM = 1.5
"""Pixels at the edge of a shape that are darker, which parts two shapes of one colour."""
_GRAIN = 30.0


class Shapes(Dataset):
    """Colour images of 128 x 128 pixels; the target is the box of each shape that is seen.

    Everything is a function of (seed, split, index): a smaller set is the beginning of a larger
    one. A shape of which less than a quarter is seen has no label. `Box.area` counts the pixels
    that are seen, and `Sample.evidence` shows those of all labelled shapes.

    Args:
        sizes: Images of each split.
        seed: Of the scenes.

    Attributes:
        published: Indices of each split.
    """

    classes = CLASSES
    multilabel = False
    boxes = True

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
        self.targets = _Labels(self)

    def read(self, index: int) -> Sample:
        """Render one image."""
        image = torch.from_numpy(self.render(index))  # pyright: ignore[reportUnknownMemberType]
        evidence = torch.from_numpy(self.masks(index).any(axis=0))  # pyright: ignore[reportUnknownMemberType]
        return Sample(self.ids[index], image.permute(2, 0, 1), self.targets[index], evidence)

    def read_bytes(self, index: int) -> bytes:
        """The rendered pixels, row by row, three bytes each."""
        return self.render(index).tobytes()

    def stored_size(self, index: int) -> int:
        """Bytes of the rendered pixels."""
        del index
        return 3 * SIDE * SIDE

    def masks(self, index: int) -> Bool[np.ndarray, "N H W"]:
        """The pixels that are seen of each labelled shape, in the order of the target."""
        return self.scene(index).masks()

    def scene(self, index: int) -> _Scene:
        """The shapes of one image."""
        return _Scene.draw(self._rng(index))

    def place(self, index: int) -> tuple[int, int, int]:
        """What an image is a function of: seed, number of the split, index in it."""
        return self.seed, *self._places[index]

    def render(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Draw one image."""
        rng = self._rng(index)
        scene = _Scene.draw(rng)
        pixels = _background(rng)
        for shape, colour in zip(scene.shapes, _colours(rng, len(scene.shapes)), strict=True):
            window = pixels[shape.window]
            cover = (0.5 - shape.distance).clip(0, 1)[:, :, None]  # half at the edge: no stairs
            inner = (0.5 - shape.distance - _RIM).clip(0, 1)[:, :, None]
            window += cover * (colour * (0.55 + 0.45 * inner) - window)
        pixels += _GRAIN * (rng.random(pixels.shape, dtype=np.float32) - 0.5)
        return pixels.clip(0, 255).astype(np.uint8)

    def _rng(self, index: int) -> np.random.Generator:
        return sample_rng(*self.place(index))


class _Labels(Sequence[Target]):
    """Boxes of all scenes, each found when it is first asked for."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._found: dict[int, Boxes] = {}

    def __len__(self) -> int:
        return len(self._shapes)

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        place = range(len(self))[index]
        if place not in self._found:
            self._found[place] = self._shapes.scene(place).boxes()
        return self._found[place]


class ShapeMasks(SegmentDataset):
    """The same scenes with the pixels of each shape instead of its box."""

    segments = "instance"

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.classes, self.multilabel = shapes.classes, shapes.multilabel
        self.published, self.ids = shapes.published, shapes.ids
        self.targets = DrawnTargets(self)

    def read(self, index: int) -> Sample:
        """Render one image."""
        return replace(self._shapes.read(index), target=self.draw(index), evidence=None)

    def read_bytes(self, index: int) -> bytes:
        """The rendered pixels, row by row, three bytes each."""
        return self._shapes.read_bytes(index)

    def stored_size(self, index: int) -> int:
        """Bytes of the rendered pixels."""
        return self._shapes.stored_size(index)

    def draw(self, index: int) -> Segments:
        """What is seen of each shape; no two overlap."""
        scene = self._shapes.scene(index)
        own: list[int] = scene.labelled.tolist()
        labels = [scene.shapes[shape].label for shape in own]
        return stack(map(Piece, scene.masks(), labels), (SIDE, SIDE))

    def digest(self, index: int) -> str:
        """A hash of what scenes are a function of."""
        return hashed(NAME, str(self._shapes.place(index)))


def named(name: str) -> Shapes | None:
    """The scenes of the name `shapes`; None for another name."""
    return Shapes() if name == NAME else None


class _Kind(NamedTuple):
    """A figure that looks the same from each of its corners.

    Attributes:
        corners: How many reach furthest out.
        waist: Distance from the centre half way between two of them, as a share of theirs.
    """

    corners: int
    waist: float

    def reach(self, diameter: float) -> float:
        """Distance of the corners from the centre for the area of a circle."""
        area = self.corners * self.waist * math.sin(math.pi / self.corners)
        return diameter / 2 * math.sqrt(math.pi / area)


def _regular(corners: int) -> _Kind:
    return _Kind(corners, math.cos(math.pi / corners))


_KINDS = (_regular(64), _regular(4), _Kind(5, 0.45), _regular(3))
"""One a class; with 64 corners a circle is right to a hundredth of a pixel."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """One shape of a scene.

    Attributes:
        label: Index of its class.
        window: Rows and columns of the image that it touches.
        distance: From the centre of each pixel of the window to the shape's edge, negative inside.
    """

    label: int
    window: tuple[slice, slice]
    distance: Float[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Shapes from the rearmost to the foremost.

    Attributes:
        shapes: At least one.
        owner: The shape that is seen at each pixel; -1 is the background.
        labelled: Indices of the shapes of which enough is seen.
    """

    shapes: list[_Shape]
    owner: Int8[np.ndarray, "H W"]
    labelled: Int8[np.ndarray, "N"]

    @staticmethod
    def draw(rng: np.random.Generator) -> _Scene:
        """A scene is what the first random numbers of an image make."""
        draws = rng.random((int(rng.integers(1, MOST + 1)), 5)).tolist()
        shapes = [_shape(*draw) for draw in draws]
        owner = np.full((SIDE, SIDE), -1, dtype=np.int8)
        whole: list[int] = []
        for index, shape in enumerate(shapes):
            inside = shape.distance < 0
            owner[shape.window][inside] = index
            whole.append(int(inside.sum()))
        seen = np.bincount(owner.ravel() + 1, minlength=len(shapes) + 1)[1:]
        return _Scene(shapes, owner, np.flatnonzero(seen >= SEEN * np.array(whole)).astype(np.int8))

    def masks(self) -> Bool[np.ndarray, "N H W"]:
        """The pixels that are seen of each labelled shape."""
        return self.owner == self.labelled[:, None, None]

    def boxes(self) -> Boxes:
        """The box around what is seen of each labelled shape."""
        return Boxes(tuple(self._box(index) for index in self.labelled.tolist()), (SIDE, SIDE))

    def _box(self, index: int) -> Box:
        shape = self.shapes[index]
        seen = self.owner[shape.window] == index
        (top, bottom), (left, right) = (_ends(seen.any(axis=axis)) for axis in (1, 0))
        down, across = (axis.start for axis in shape.window)
        corners = (across + left, down + top, across + right, down + bottom)
        return Box(corners, shape.label, area=int(seen.sum()))


def _ends(line: Bool[np.ndarray, "n"]) -> tuple[float, float]:
    """Where the first true pixel begins and the last one ends."""
    return float(line.argmax()), float(len(line) - line[::-1].argmax())


def _shape(kind: float, size: float, down: float, across: float, turn: float) -> _Shape:
    """A shape that lies inside the image, from five random numbers of 0 to 1.

    All figures are one: turned into the wedge between a corner and the waist beside it, which
    symmetry allows, the edge is the straight line between the two.
    """
    label = int(kind * len(_KINDS))
    corners, waist = _KINDS[label]
    low, high = _DIAMETERS
    reach = _KINDS[label].reach(low * (high / low) ** size)
    y, x = (reach + share * (SIDE - 2 * reach) for share in (down, across))
    window = _span(y, reach), _span(x, reach)
    rows, columns = _CENTRES[window[0], None] - y, _CENTRES[None, window[1]] - x
    wedge = math.pi / corners
    angle = np.arctan2(rows, columns) + 2 * math.pi * (turn + 1)
    angle = np.abs(angle % (2 * wedge) - wedge)  # 0 at the waist, `wedge` at the corner
    # The line's normal, as an angle from the waist.
    normal = wedge - math.atan2(1 - waist * math.cos(wedge), waist * math.sin(wedge))
    out = np.sqrt(rows**2 + columns**2) * np.cos(angle - normal)
    return _Shape(label, window, out - reach * math.cos(wedge - normal))


def _span(centre: float, reach: float) -> slice:
    """The pixels that a shape touches along one side, and one more for the soft edge."""
    return slice(max(0, int(centre - reach) - 1), min(SIDE, math.ceil(centre + reach) + 1))


# Double precision: no machine's rounding may decide whether a pixel is inside.
_CENTRES = np.arange(SIDE) + 0.5


def _background(rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
    """Muted clouds of two sizes, with stripes across."""
    pixels = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    pixels[:] = rng.uniform(70, 150) + rng.uniform(-20, 20, 3)
    for knots, height in ((4, 50.0), (20, 40.0)):
        colours = rng.integers(0, 256, (knots, knots, 3), dtype=np.uint8)
        clouds = Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels += np.float32(height / 255) * (np.asarray(clouds, dtype=np.float32) - 127.5)
    turn, period, phase, height = rng.uniform((0, 6, 0, 0), (np.pi, 40, 2 * np.pi, 18)).tolist()
    down, across = (wave / period * _CENTRES for wave in (math.sin(turn), math.cos(turn)))
    waves = np.sin(2 * np.pi * (down[:, None] + across) + phase, dtype=np.float32)
    return pixels + np.float32(height) * waves[:, :, None]


def _colours(rng: np.random.Generator, count: int) -> Float[np.ndarray, "n 3"]:
    """Strong colours: of each, one channel is bright, one dark and one anywhere between."""
    colours = np.stack([rng.uniform(0, 60, count), rng.uniform(0, 255, count)], axis=1)
    colours = np.concatenate([colours, rng.uniform(190, 255, (count, 1))], axis=1)
    return rng.permuted(colours, axis=1).astype(np.float32)
