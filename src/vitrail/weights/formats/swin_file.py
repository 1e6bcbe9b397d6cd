"""What an owners' Swin file tells by shapes and buffers, and what its buffers must hold.

Where several tensors tell the same, most decide: one that was cut or turned is then the one that
does not fit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.nn.windows import Windows
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.swin_table import TABLE, AnySwin
from vitrail.weights.formats.swin_windows import relative_coordinates, relative_index
from vitrail.weights.mapping import Derived
from vitrail.weights.reader import Reader

INDEX = "attn.relative_position_index"
COORDS = "attn.relative_coords_table"
SCALE = "attn.logit_scale"
MASK = "attn_mask"

LARGEST = 1 << 27
"""Numbers of a buffer that are held against what they must be; no published one has more."""

MOST_STAGES = 16
"""Widths double with each."""


class SwinFile:
    """The evidence.

    Attributes:
        dense: Whether it is the backbone of a fork for dense prediction.
        stem: What leads the names.
        v2: Whether it is version 2.
        depths: Blocks of each stage.
        windows: Side of each stage's window, None where nothing tells.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader, self.checkpoint = reader, reader.checkpoint
        names = self.checkpoint.tensors
        self.dense = reader.any("backbone.layers.")
        self.stem = "backbone." if self.dense else ""
        self.v2 = any(".attn.cpb_mlp." in n or n.endswith(f".{SCALE}") for n in names)
        stages = reader.count(f"{self.stem}layers.")
        if stages > MOST_STAGES:
            raise CheckpointError(f"{self.checkpoint.path}: {stages} stages; Swin has four")
        self.depths = tuple(
            reader.count(f"{self.stem}layers.{stage}.blocks.") for stage in range(stages)
        )
        self.windows = tuple(self._window(stage) for stage in range(len(self.depths)))

    def named(self, stage: int, name: str) -> list[str]:
        """The names of that tensor in all blocks of a stage that have it."""
        return [full for full in self._blocks(stage, name) if full in self.checkpoint.tensors]

    def heads(self, stage: int) -> int:
        """By the tables of v1, by the scales of v2."""
        wanted = SCALE if self.v2 else TABLE
        shapes = self._shapes(stage, wanted)
        if self.v2:
            told = [s[0] for s in shapes if len(s) == 3 and s[1:] == (1, 1) and s[0]]
        else:
            told = [s[1] for s in shapes if len(s) == 2 and _window_of(s[0]) and s[1]]
        if told:
            return _most(told)
        first = next(iter([*self.named(stage, wanted), *self._blocks(stage, wanted)]))
        raise CheckpointError(
            f"{self.checkpoint.path}: tensor '{first}' has shape "
            f"{list(self.reader.shape(first))}, which tells no number of heads"
        )

    def mlp_ratio(self, width: int) -> float:
        """The largest over the stages: rounding down to whole widths loses a little in each."""
        name, best = "mlp.fc1.bias", 0.0
        for stage in range(len(self.depths)):
            first = next(iter([*self.named(stage, name), *self._blocks(stage, name)]))
            hidden, own = self.reader.shape(first, 1)[0], max(1, width * 2**stage)
            ratio = hidden / own
            best = max(best, ratio if int(own * ratio) == hidden else math.nextafter(ratio, 1e9))
        return best

    def image(self, patch: int) -> int | None:
        """Side of the image: by masks, and by windows that were shrunk to the map."""
        largest = max((window for window in self.windows if window), default=0)
        found: list[int] = []
        for stage, window in enumerate(self.windows):
            if not window:
                continue
            for shape in self._shapes(stage, MASK):
                side = math.isqrt(shape[0]) if shape else 0
                if shape[1:] == (window**2, window**2) and side and side**2 == shape[0]:
                    found.append(side * window * patch * 2**stage)
            if window < largest:
                found.append(window * patch * 2**stage)
        return _most(found) if found else None

    def pretrained(self, stage: int) -> int | None:
        """The window in whose units v2's coordinates are, 0 for its own, None where none are.

        The far corner holds log2(1 + 8 r) / 3 with r = (window - 1) / (pretrained - 1).
        """
        window = self.windows[stage]
        for name in self.named(stage, COORDS):
            stored = self.checkpoint.tensors[name]
            if not window or stored.shape != _of_coords(window):
                continue
            if window == 1:
                return 0
            largest = float(stored.read().double().max())
            before = 1 + (window - 1) * 8 / (2 ** (3 * largest) - 1) if 0 < largest < 10 else 0.0
            if before < 1.5 or abs(before - round(before)) > 0.01 * before:
                raise CheckpointError(
                    f"{self.checkpoint.path}: tensor '{name}' holds coordinates of no window"
                )
            return 0 if round(before) == window else round(before)
        return None

    def derived(self, config: AnySwin) -> list[Derived]:
        """Buffers of all blocks; their values where the file has them in the right shape."""
        found: list[Derived] = []
        grids = self._grids(config)
        for stage, depth in enumerate(self.depths):
            window = self.windows[stage] or config.windows[stage].size
            grid, values = grids[stage], _Values(self.checkpoint)
            before = self.pretrained(stage) if self.v2 else None
            for block in range(depth):
                name = f"{self.stem}layers.{stage}.blocks.{block}."
                found.append(values.index(name + INDEX, window))
                if self.v2:
                    found.append(values.coords(name + COORDS, window, before or window))
                if block % 2 and self.windows[stage] and not self.dense:
                    found += values.mask(name + MASK, window, grid)
        return found

    def _grids(self, config: AnySwin) -> tuple[Grid, ...]:
        """Maps for which the masks were made: of a square image, unless those of ours fit better.

        As many windows as a square has may also lie in an oblong, 2 x 8 for 4 x 4.
        """
        image = self.image(config.patch_size)
        if image is None or config.image_size == (image, image):
            return config.grids
        square = tuple((image // stride, image // stride) for stride in config.strides)
        return max((square, config.grids), key=self._fitting)

    def _fitting(self, grids: tuple[Grid, ...]) -> int:
        """How many masks of the file are those of such maps."""
        count = 0
        for stage, grid in enumerate(grids):
            values, window = _Values(self.checkpoint), self.windows[stage]
            if window is None:
                continue
            for name in self.named(stage, MASK):
                stored = self.checkpoint.tensors[name]
                for item in values.mask(name, window, grid):
                    count += item.value is not None and torch.equal(item.value, stored.read())
        return count

    def _blocks(self, stage: int, name: str) -> Iterator[str]:
        for block in range(self.depths[stage]):
            yield f"{self.stem}layers.{stage}.blocks.{block}.{name}"

    def _shapes(self, stage: int, name: str) -> list[tuple[int, ...]]:
        return [self.checkpoint.tensors[full].shape for full in self.named(stage, name)]

    def _window(self, stage: int) -> int | None:
        told = [_window_of(s[0]) for s in self._shapes(stage, TABLE) if len(s) == 2]
        if not any(told):
            told = [_root(s) for s in self._shapes(stage, INDEX)]
            told += [_root(s[1:]) for s in self._shapes(stage, MASK)]
            told += [
                (s[1] + 1) // 2
                for s in self._shapes(stage, COORDS)
                if len(s) == 4 and s[1] == s[2] and s[1] % 2 == 1
            ]
        sides = [window for window in told if window]
        return _most(sides) if sides else None


class _Values:
    """Buffers of one stage: what each must hold, computed once, and only where it is there."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.kept: dict[str, Tensor] = {}

    def index(self, name: str, window: int) -> Derived:
        shape = (window**2, window**2)
        if not self._has(name, shape):
            return Derived(name, shape)
        if INDEX not in self.kept:
            self.kept[INDEX] = relative_index(window)
        return Derived(name, shape, self.kept[INDEX])

    def coords(self, name: str, window: int, before: int) -> Derived:
        shape = _of_coords(window)
        if not self._has(name, shape):
            return Derived(name, shape)
        if COORDS not in self.kept:
            self.kept[COORDS] = relative_coordinates(window, before)
        return Derived(name, shape, self.kept[COORDS])

    def mask(self, name: str, window: int, grid: Grid) -> list[Derived]:
        """None where the map is no larger than the window, which then does not shift."""
        windows = Windows(grid, window, window // 2)
        if min(grid) <= window or windows.padded != grid:
            return []
        shape = (windows.count, window**2, window**2)
        if not self._has(name, shape):
            return [Derived(name, shape)]
        if MASK not in self.kept:
            self.kept[MASK] = window_mask(windows)
        return [Derived(name, shape, self.kept[MASK])]

    def _has(self, name: str, shape: tuple[int, ...]) -> bool:
        there = name in self.checkpoint.tensors and self.checkpoint.tensors[name].shape == shape
        return there and math.prod(shape) <= LARGEST


def window_mask(windows: Windows) -> Tensor:
    """What keeps apart places that the roll brought together, (windows, N, N)."""
    mask = windows.mask(torch.device("cpu"))
    assert mask is not None, "a mask belongs to a shift"
    return mask[:, 0]


def _of_coords(window: int) -> tuple[int, ...]:
    return (1, 2 * window - 1, 2 * window - 1, 2)


def _window_of(offsets: int) -> int | None:
    """Side of the window that has so many offsets, None if there is none."""
    side = math.isqrt(offsets)
    return (side + 1) // 2 if side % 2 == 1 and side * side == offsets else None


def _root(shape: tuple[int, ...]) -> int | None:
    """Side of a window by a matrix over its places."""
    if len(shape) != 2 or shape[0] != shape[1]:
        return None
    side = math.isqrt(shape[0])
    return side if side and side * side == shape[0] else None


def _most(values: list[int]) -> int:
    return Counter(values).most_common(1)[0][0]
