"""A tensor that is a range of bytes in a file: checked when the file is opened, read when wanted.

The values go from the file straight into the tensor's own memory. Nothing is memory-mapped, so
that a file which changes or shrinks later is an error and not the end of the process.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Stored

TENSORS = 10_000
"""Tensors that a file may have."""

DIMENSIONS = 16
"""Dimensions that a tensor may have."""

SLACK = 128 << 20
"""Bytes that the tensors of a file may take beyond twice its size."""

PIECE = 1 << 20
"""Bytes that are read and checked at a time."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A checksum over a range that begins at or before a tensor and ends with it.

    Attributes:
        start: First byte of the range in the file.
        crc: CRC-32 of the range.
    """

    start: int
    crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Stored):
    """A tensor in a range of bytes.

    Attributes:
        path: The file.
        name: Of the tensor, for errors.
        start: Byte of its first element in the file.
        shape: Its shape.
        dtype: Its type.
        strides: In elements; None where rows follow one another without gaps.
        big_endian: Whether its bytes stand in the other order.
        seal: Checksum that the container has of it.
    """

    path: Path
    name: str
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...] | None = None
    big_endian: bool = False
    seal: Seal | None = None

    def read(self) -> Tensor:
        """The values in memory of their own, contiguous.

        Raises:
            CheckpointError: the file was cut, damaged or taken away since it was opened.
        """
        elements = reach(self.shape, self.strides)
        raw = torch.empty(elements * self.dtype.itemsize, dtype=torch.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                self._fill(cast("BinaryIO", file), bytes_of(raw))
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot read ({error.strerror})") from error
        return values_of(raw, self, self.strides, big_endian=self.big_endian)

    def _fill(self, file: BinaryIO, buffer: memoryview) -> None:
        crc = 0
        if self.seal is not None:
            file.seek(self.seal.start)
            crc = zlib.crc32(file.read(self.start - self.seal.start))
        file.seek(self.start)
        for begin in range(0, len(buffer), PIECE):
            piece = buffer[begin : begin + PIECE]
            if not _read_into(file, piece):
                raise CheckpointError(f"{self.path}: cut off in tensor {shown(self.name)}")
            if self.seal is not None:
                crc = zlib.crc32(piece, crc)
        if self.seal is not None and crc != self.seal.crc:
            raise CheckpointError(
                f"{self.path}: damaged: the checksum of tensor {shown(self.name)} is wrong"
            )


def bytes_of(raw: Tensor) -> memoryview:
    """The memory of a tensor of bytes, to read into."""
    return memoryview(cast("Any", raw.numpy()))


def values_of(
    raw: Tensor, stored: Stored, strides: Sequence[int] | None, *, big_endian: bool
) -> Tensor:
    """The tensor that bytes stand for.

    Args:
        raw: The bytes.
        stored: Its shape and type.
        strides: In elements; None where rows follow one another without gaps.
        big_endian: Whether its bytes stand in the other order.
    """
    if big_endian:
        raw = raw.view(-1, stored.dtype.itemsize).flip(1).reshape(-1)
    values = raw.view(stored.dtype)
    if strides is None:
        return values.view(stored.shape)
    return values.as_strided(stored.shape, list(strides)).contiguous()


def reach(shape: Sequence[int], strides: Sequence[int] | None) -> int:
    """Elements from the first to the last of a tensor, both counted."""
    count = math.prod(shape)
    if strides is None or count == 0:
        return count
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor without gaps."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def check_shape(shape: object) -> tuple[int, ...]:
    """A shape from a file.

    Raises:
        CheckpointError: no list of whole numbers that a tensor could have.
    """
    if not isinstance(shape, list | tuple):
        raise CheckpointError("a shape that is no list")
    sizes = cast("Sequence[object]", shape)
    if len(sizes) > DIMENSIONS:
        raise CheckpointError(f"{len(sizes)} dimensions, {DIMENSIONS} are read")
    good = [size for size in sizes if type(size) is int and 0 <= size < 1 << 48]
    if len(good) != len(sizes) or math.prod(max(size, 1) for size in good) >= 1 << 48:
        raise CheckpointError("a shape that no tensor has")
    return tuple(good)


def check_room(path: Path, size: int, tensors: Iterable[Stored]) -> None:
    """Refuse a file whose tensors take far more memory in float32 than the file is long.

    Raises:
        CheckpointError: they do.
    """
    total = sum(
        math.prod(t.shape) * max(t.dtype.itemsize, 4 * t.dtype.is_floating_point) for t in tensors
    )
    if total > 2 * size + SLACK:
        raise CheckpointError(
            f"{path}: refused: {size} bytes that claim to hold {total} bytes of weights"
        )


def check_names(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Refuse names that no line of text could show.

    Raises:
        CheckpointError: such a name, or no tensor at all.
    """
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it")
    if len(tensors) > TENSORS:
        raise CheckpointError(f"{path}: {len(tensors)} tensors, at most {TENSORS} are read")
    for name in tensors:
        if not name.isprintable() or len(name) > 500:
            raise CheckpointError(f"{path}: a tensor with the unreadable name {shown(name)}")


def shown(text: str) -> str:
    """Text from a file as it may stand in an error: quoted, on one line, cut."""
    quoted = ascii(text) if not text.isprintable() else f"'{text}'"
    return quoted if len(quoted) <= 100 else f"{quoted[:97]}..."


def _read_into(file: BinaryIO, buffer: memoryview) -> bool:
    """Whether the buffer was filled."""
    done = 0
    while done < len(buffer):
        count = cast("int", file.readinto(buffer[done:]))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        if not count:
            return False
        done += count
    return True
