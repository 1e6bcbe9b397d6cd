"""NumPy's .npz: one .npy a tensor, in a zip. No pickle is read: arrays of objects are refused.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Stored
from vitrail.weights.files.span import (
    TENSORS,
    Seal,
    Span,
    bytes_of,
    check_names,
    check_room,
    check_shape,
    row_major,
    shown,
    values_of,
)
from vitrail.weights.files.zip_members import Member, fill_from_member, list_members, read_head

HEADER = 64 << 10
"""Bytes of an array's header that are read at most; it names a type and a shape."""

DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "b1": torch.bool,
    # NumPy has no bfloat16: what JAX saves of it comes out as two bytes of nothing.
    "V2": torch.bfloat16,
}

FIELD = r"""\s*['"]{}['"]\s*:\s*"""
TEXT = re.compile(
    rf"""\{{{FIELD.format("descr")}['"]([<>=|]?)([a-zA-Z]\d*)['"]\s*,"""
    rf"""{FIELD.format("fortran_order")}(True|False)\s*,"""
    rf"""{FIELD.format("shape")}\(([\d\sL,]*)\)\s*,?\s*\}}\s*"""
)
"""What every writer of .npy puts into the header; nothing is evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflated(Stored):
    """A tensor in a compressed member.

    Attributes:
        path: The archive.
        member: Where it stands.
        skip: Bytes of header before the values.
        shape: Its shape.
        dtype: Its type.
        strides: In elements; None where rows follow one another.
        big_endian: Whether its bytes stand in the other order.
    """

    path: Path
    member: Member
    skip: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...] | None
    big_endian: bool

    def read(self) -> Tensor:
        """The values, unpacked.

        Raises:
            CheckpointError: damaged since it was opened.
        """
        raw = torch.empty(math.prod(self.shape) * self.dtype.itemsize, dtype=torch.uint8)
        fill_from_member(self.path, self.member, bytes_of(raw), self.skip)
        return values_of(raw, self, self.strides, big_endian=self.big_endian)


def open_npz(path: Path, members: dict[str, Member] | None = None) -> dict[str, Stored]:
    """The arrays of an .npz by name.

    Args:
        path: The file.
        members: Of the archive, where they are listed already.

    Raises:
        CheckpointError: damaged, no .npz, or an array of a type that no tensor has.
    """
    members = list_members(path) if members is None else members
    if len(members) > TENSORS:
        raise CheckpointError(f"{path}: {len(members)} arrays, at most {TENSORS} are read")
    tensors: dict[str, Stored] = {}
    for name, member in members.items():
        if name.endswith("/") and member.size == 0:
            continue
        if not name.endswith(".npy"):
            raise CheckpointError(f"{path}: {shown(name)} in the zip is no array (.npy)")
        tensors[name.removesuffix(".npy")] = _array(path, member)
    check_names(path, tensors)
    check_room(path, path.stat().st_size, tensors.values())
    return tensors


def _array(path: Path, member: Member) -> Stored:
    name = member.name.removesuffix(".npy")
    text, skip = _header(path, member)
    match = TEXT.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"{path}: array {shown(name)} holds no plain numbers ({shown(text.strip())})"
        )
    order, kind, fortran, sizes = match.groups()
    if kind not in DTYPES:
        raise CheckpointError(
            f"{path}: array {shown(name)} has type {shown(order + kind)}, which is not read"
        )
    try:
        shape = check_shape([int(size.rstrip("L")) for size in sizes.replace(",", " ").split()])
    except ValueError as error:
        raise CheckpointError(f"{path}: array {shown(name)}: a shape that no tensor has") from error
    dtype = DTYPES[kind]
    if member.size != skip + math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"{path}: damaged: array {shown(name)} says shape {list(shape)} and has "
            f"{member.size - skip} bytes"
        )
    columns_first = tuple(reversed(row_major(shape[::-1]))) if fortran == "True" else None
    if member.deflated:
        return Deflated(
            path=path,
            member=member,
            skip=skip,
            shape=shape,
            dtype=dtype,
            strides=columns_first,
            big_endian=order == ">",
        )
    return Span(
        path=path,
        name=name,
        start=member.start + skip,
        shape=shape,
        dtype=dtype,
        strides=columns_first,
        big_endian=order == ">",
        seal=Seal(member.start, member.crc),
    )


def _header(path: Path, member: Member) -> tuple[str, int]:
    """Text of the header, and bytes before the values."""
    head = read_head(path, member, 12)
    if len(head) < 12 or not head.startswith(b"\x93NUMPY") or head[6] not in (1, 2, 3):
        raise CheckpointError(f"{path}: {shown(member.name)} in the zip is no array (.npy)")
    wide = head[6] > 1
    length = struct.unpack("<L", head[8:12])[0] if wide else struct.unpack("<H", head[8:10])[0]
    begin = 12 if wide else 10
    if length > HEADER or begin + length > member.size:
        raise CheckpointError(f"{path}: damaged: the header of {shown(member.name)} is too long")
    text = read_head(path, member, begin + length)[begin:]
    return text.decode("utf-8" if head[6] == 3 else "latin-1", "backslashreplace"), begin + length
