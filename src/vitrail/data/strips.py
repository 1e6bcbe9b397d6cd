"""Rows of real handwritten digits, rendered on demand: built-in data for `transcribe`.

Each strip shows digits of scikit-learn side by side, at a scale, spacing and grey of its own. The
source digits are cut into train, validation and test before any strip is made: no strip shows a
digit that a strip of another split shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8

from vitrail.data.builtin import digits
from vitrail.data.dataset import Dataset
from vitrail.data.order import sample_rng
from vitrail.data.split import split
from vitrail.errors import DataError
from vitrail.types import Sample

NAME = "strips"
LENGTHS = (3, 12)
SIZES = {"train": 50_000, "val": 1_000, "test": 2_000}
HEIGHT = 32
MAX_LENGTH = 64

SOURCE_TEST = 0.15
SOURCE_VAL = 0.1
"""Shares of the source digits that only test and validation strips show."""

_SIDE = 8  # of a source digit
_MARGIN = 2.0
_SMALLEST, _LARGEST = 14.0, 26.0
_STEP = 32  # the width is a multiple of it, for any patch


class Strips(Dataset):
    """Grey rows of digits; the target is the text, e.g. `40721`.

    Everything is a function of (seed, split, index): a smaller set is the beginning of a larger
    one. Strips of all lengths are equally wide: what the longest one needs.

    Args:
        lengths: Fewest and most digits of a strip.
        sizes: Strips of each split.
        seed: Of texts and rendering; the cut of the source digits is always the same.

    Attributes:
        sources: Indices into `digits()` that the strips of each split may show.
        width: Pixels; 256 for 12 digits, in proportion for others.
        published: Indices of each split.
    """

    multilabel = False
    text = True

    def __init__(
        self,
        lengths: tuple[int, int] = LENGTHS,
        *,
        sizes: Mapping[str, int] = SIZES,
        seed: int = 0,
    ) -> None:
        low, high = lengths
        assert 1 <= low <= high <= MAX_LENGTH, "lengths, shortest first"
        self.lengths, self.seed = lengths, seed
        self.width = _STEP * -(-high * 256 // (12 * _STEP))
        data = digits()
        self.classes = data.classes
        self._images = data.images.astype(np.float32) / 255
        # The ink of a digit, without the faint rim that the scan's reduction to 8 x 8 leaves.
        inked = data.images.max(axis=1) >= 64
        self._left = inked.argmax(axis=1).astype(np.float32)
        self._ink = _SIDE - inked[:, ::-1].argmax(axis=1) - self._left
        cut = split(data, seed=0, test=SOURCE_TEST, val=SOURCE_VAL)
        self.sources = {name: np.array(cut[name].indices) for name in sizes}
        self._shown: list[list[int]] = []
        self._places: list[tuple[int, int]] = []
        ids: list[str] = []
        self.published: dict[str, range] = {}
        for name, size in sizes.items():
            self.published[name] = range(len(ids), len(ids) + size)
            self._shown += _draw(self.sources[name], size, lengths, (seed, _NUMBER[name]))
            self._places += [(_NUMBER[name], index) for index in range(size)]
            ids += [f"{name}/{index:05d}" for index in range(size)]
        self.ids = ids
        self.targets = ["".join(str(data.targets[i]) for i in shown) for shown in self._shown]

    def read(self, index: int) -> Sample:
        """Render one strip; grey is repeated over the three channels."""
        pixels = np.repeat(self.render(index)[:, :, None], 3, axis=2)
        image = torch.from_numpy(pixels)  # pyright: ignore[reportUnknownMemberType]
        return Sample(self.ids[index], image.permute(2, 0, 1), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        """The rendered pixels, grey."""
        return self.render(index).tobytes()

    def stored_size(self, index: int) -> int:
        """Bytes of the rendered pixels."""
        del index
        return HEIGHT * self.width

    def render(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Draw one strip, bright on dark."""
        shown = self._shown[index]
        rng = sample_rng(self.seed, *self._places[index])
        scale, left, top = self._layout(shown, rng)
        centres = np.arange(self.width, dtype=np.float32) + 0.5
        # Where the centre of each pixel of the strip lies on the axes of each source digit.
        across = (centres - left[:, None]) / scale[:, None] + self._left[shown][:, None] - 0.5
        down = (centres[:HEIGHT] - top[:, None]) / scale[:, None] - 0.5
        rows = _weights(down).transpose(0, 2, 1) @ self._images[shown]
        # All digits in one product: (H, n * 8) times (n * 8, W).
        ink = rows.transpose(1, 0, 2).reshape(HEIGHT, -1) @ _weights(across).reshape(-1, self.width)
        dark, bright, grain = rng.uniform((0, 190, 0), (40, 255, 20)).astype(np.float32)
        noise = rng.random(ink.shape, dtype=np.float32) - 0.5
        pixels = dark + (bright - dark) * ink.clip(0, 1) + grain * noise
        return pixels.clip(0, 255).astype(np.uint8)

    def _layout(
        self, shown: list[int], rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Scale, left edge of the ink and top of each digit, in pixels of the strip.

        One hand writes a strip: its digits share a size, a spacing and a line, and each departs a
        little from them. The size is drawn from what fits, so that no digit is ever cut off.
        """
        count = len(shown)
        gaps = rng.uniform(0.5, 4) + rng.uniform(-1, 1.5, count)
        gaps[0] = 0
        own = rng.uniform(0.93, 1.07, count)
        wide = self._ink[shown] * own
        room = self.width - 2 * _MARGIN - gaps.sum()
        largest = min(_LARGEST, _SIDE * room / wide.sum())
        size = (rng.uniform(_SMALLEST, largest) * own).clip(_SMALLEST, _LARGEST)
        scale = size / _SIDE
        ink = self._ink[shown] * scale
        left = np.cumsum(gaps + ink) - ink
        free = self.width - 2 * _MARGIN - float(left[-1] + ink[-1])
        left += _MARGIN + rng.uniform(0, min(max(free, 0), HEIGHT))
        line = rng.uniform(0, 1) * (HEIGHT - size.max()) + (size.max() - size) / 2
        top = (line + rng.uniform(-1.5, 1.5, count)).clip(0, HEIGHT - size)
        return scale.astype(np.float32), left.astype(np.float32), top.astype(np.float32)


_NUMBER = {"train": 0, "val": 1, "test": 2}


def named(name: str) -> Strips | None:
    """The strips of a name: `strips`, `strips:13-20` (digits a strip); None for another name.

    Raises:
        DataError: the lengths are no lengths.
    """
    start, colon, lengths = name.partition(":")
    if start != NAME:
        return None
    if not colon:
        return Strips()
    found = re.fullmatch(r"([0-9]{1,3})-([0-9]{1,3})", lengths)
    low, high = map(int, found.groups()) if found else (0, 0)
    if not 1 <= low <= high <= MAX_LENGTH:
        raise DataError(
            f"{name}: '{lengths}' is no range of lengths; write the fewest and the most digits a "
            f"strip, from 1 to {MAX_LENGTH}, e.g. {NAME}:13-20"
        )
    return Strips((low, high))


def _draw(
    sources: np.ndarray, count: int, lengths: tuple[int, int], stream: tuple[int, int]
) -> list[list[int]]:
    """The source digits of each strip, every length and every source equally likely."""
    low, high = lengths
    long = np.random.default_rng((*stream, 0)).integers(low, high + 1, count)
    picks = np.random.default_rng((*stream, 1)).integers(0, len(sources), (count, high))
    shown: list[list[int]] = sources[picks].tolist()
    return [row[:length] for row, length in zip(shown, long.tolist(), strict=True)]


def _weights(places: Float[np.ndarray, "n L"]) -> Float[np.ndarray, "n 8 L"]:
    """What each of the 8 source pixels gives to each place (cubic convolution, Keys 1981, eq. 15).

    Beyond its edge a digit is empty.
    """
    distance = np.abs(places[:, None, :] - np.arange(_SIDE, dtype=np.float32)[:, None])
    x = np.minimum(distance, 2)  # where the kernel ends
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, far)
