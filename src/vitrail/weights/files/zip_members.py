"""What .npz and torch's .pth share: a zip archive whose members are read in place.

The directory at the end is parsed here, within bounds and before anything is allocated: each
member must lie in the file, apart from all others, and all together must not unpack to far more
than the file holds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from vitrail.errors import CheckpointError
from vitrail.weights.files.span import PIECE, SLACK, shown

MEMBERS = 32_768
"""Members that are read at most; the largest training dumps have some thousands."""

DIRECTORY = 8 << 20
"""Bytes of directory that are read at most."""

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")

STORED, DEFLATED = 0, 8
MISSING = 0xFFFFFFFF
"""A number that stands in the 64-bit extra field instead."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the archive.

    Attributes:
        name: Its path in the archive.
        start: Byte in the archive where its data begins.
        packed: Bytes there.
        size: Bytes unpacked.
        crc: CRC-32 of the unpacked bytes.
        deflated: Whether they are compressed.
    """

    name: str
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    """A member as the directory has it: before its own header was seen."""

    member: Member
    header: int
    raw_name: bytes


def list_members(path: Path) -> dict[str, Member]:
    """All members of an archive by name, checked.

    Raises:
        CheckpointError: damaged, cut, encrypted, overlapping, or unpacking to too much.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            listed, directory = _directory(path, file, size)
            located = [_locate(path, file, item) for item in listed]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
    except struct.error as error:
        raise _damaged(path, "a header is cut") from error
    end = 0
    for item, member in sorted(zip(listed, located, strict=True), key=lambda pair: pair[0].header):
        if item.header < end:
            raise _damaged(path, f"{shown(member.name)} lies over another member")
        end = member.start + member.packed
        if end > directory:
            raise _damaged(path, f"{shown(member.name)} ends beyond the file")
    if sum(member.size for member in located) > 2 * size + SLACK:
        raise CheckpointError(
            f"{path}: refused: a zip of {size} bytes that would unpack to "
            f"{sum(member.size for member in located)}"
        )
    return {member.name: member for member in located}


def read_member(path: Path, member: Member, limit: int) -> bytearray:
    """A whole member, unpacked; its checksum is verified.

    Args:
        path: The archive.
        member: One of `list_members`.
        limit: Bytes that it may have.

    Raises:
        CheckpointError: larger than that, or damaged.
    """
    if member.size > limit:
        raise CheckpointError(
            f"{path}: {shown(member.name)} has {member.size} bytes, at most {limit} are read"
        )
    data = bytearray(member.size)
    fill_from_member(path, member, memoryview(data), 0)
    return data


def fill_from_member(path: Path, member: Member, buffer: memoryview, skip: int) -> bytes:
    """The end of a member into a buffer of exactly its length, and the `skip` bytes before it.

    Raises:
        CheckpointError: damaged, or not as long as the directory says.
    """
    head, crc, done = bytearray(), 0, 0
    for piece in _pieces(path, member):
        crc = zlib.crc32(piece, crc)
        if len(head) < skip:
            taken = min(skip - len(head), len(piece))
            head += piece[:taken]
            piece = piece[taken:]  # noqa: PLW2901
        if done + len(piece) > len(buffer):
            raise _damaged(path, f"{shown(member.name)} is longer than it says")
        buffer[done : done + len(piece)] = piece
        done += len(piece)
    if done != len(buffer) or crc != member.crc:
        raise _damaged(path, f"the checksum of {shown(member.name)} is wrong")
    return bytes(head)


def read_head(path: Path, member: Member, count: int) -> bytes:
    """The first bytes of a member, or all of it if it is shorter.

    Raises:
        CheckpointError: damaged.
    """
    head = bytearray()
    for piece in _pieces(path, member, piece=max(count, 64)):
        head += piece[: count - len(head)]
        if len(head) >= count:
            break
    return bytes(head)


def _pieces(path: Path, member: Member, piece: int = PIECE) -> Iterator[bytes]:
    """Unpacked bytes, at most `piece` at a time."""
    left, inflate = member.packed, zlib.decompressobj(-15)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(member.start)
            while left:
                packed = file.read(min(left, piece))
                if not packed:
                    raise _damaged(path, f"cut off in {shown(member.name)}")
                left -= len(packed)
                if not member.deflated:
                    yield packed
                    continue
                while packed and not inflate.eof:
                    yield inflate.decompress(packed, piece)
                    packed = inflate.unconsumed_tail
            # The end may wait inside zlib when its last room for output was full.
            while member.deflated and not inflate.eof:
                if not (last := inflate.decompress(b"", piece)):
                    raise _damaged(path, f"cut off in {shown(member.name)}")
                yield last
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
    except zlib.error as error:
        raise _damaged(path, f"{shown(member.name)} cannot be unpacked") from error


def _directory(path: Path, file: BinaryIO, size: int) -> tuple[list[_Listed], int]:
    """Entries of the directory, and the byte where it begins."""
    count, length, start, end = _end(path, file, size)
    if length > DIRECTORY or count > MEMBERS:
        raise CheckpointError(
            f"{path}: refused: a zip with {count} members, at most {MEMBERS} are read"
        )
    if start + length != end:
        raise _damaged(path, "the directory is not where its end says")
    file.seek(start)
    data = file.read(length)
    listed: list[_Listed] = []
    place = 0
    while place < len(data):
        item, place = _entry(path, data, place)
        listed.append(item)
    if len(listed) != count or len({item.member.name for item in listed}) != count:
        raise _damaged(path, "the directory does not hold what its end says")
    return listed, start


def _end(path: Path, file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """Number of members, length and start of the directory, and the byte that follows it."""
    tail_start = max(0, size - END.size - 0xFFFF)
    file.seek(tail_start)
    tail = file.read(size - tail_start)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + END.size > len(tail):
        raise _damaged(path, "the end of the zip archive is missing")
    _, disk, first, _, count, length, start, comment = END.unpack_from(tail, place)
    end = tail_start + place
    if place + END.size + comment != len(tail):
        raise _damaged(path, "bytes follow the end of the zip archive")
    locator = place - LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, end, _ = LOCATOR.unpack_from(tail, locator)
        if end + END64.size > size:
            raise _damaged(path, "the end of the zip archive is missing")
        file.seek(end)
        magic, _, _, _, disk, first, _, count, length, start = END64.unpack(file.read(END64.size))
        if magic != b"PK\x06\x06":
            raise _damaged(path, "the end of the zip archive is missing")
    if disk or first:
        raise CheckpointError(f"{path}: one part of a zip in several; join them first")
    return count, length, start, end


def _entry(path: Path, data: bytes, place: int) -> tuple[_Listed, int]:
    """The entry at a byte of the directory, and the byte of the next."""
    entry = CENTRAL.unpack_from(data, place)
    magic, flags, method, crc = entry[0], entry[3], entry[4], entry[7]
    packed, size, header = entry[8], entry[9], entry[16]
    name_end = place + CENTRAL.size + entry[10]
    extra_end = name_end + entry[11]
    after = extra_end + entry[12]
    if magic != b"PK\x01\x02" or after > len(data):
        raise _damaged(path, "the directory is broken")
    raw_name = data[place + CENTRAL.size : name_end]
    name = raw_name.decode("utf-8", "backslashreplace")
    if MISSING in (size, packed, header):
        size, packed, header = _wide(path, data[name_end:extra_end], size, packed, header)
    if flags & 0x2041:
        raise CheckpointError(f"{path}: {shown(name)} is encrypted")
    if method not in (STORED, DEFLATED):
        raise CheckpointError(f"{path}: {shown(name)} is compressed by method {method}")
    if method == STORED and packed != size:
        raise _damaged(path, f"{shown(name)} has two sizes")
    member = Member(name, 0, packed, size, crc, deflated=method == DEFLATED)
    return _Listed(member, header, raw_name), after


def _wide(path: Path, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset of a member of an archive that may be larger than 4 GiB."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            field = extra[place + 4 : place + 4 + length]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            values = [next(wide, -1) if v == MISSING else v for v in (size, packed, header)]
            if min(values) < 0:
                break
            return values[0], values[1], values[2]
        place += 4 + length
    raise _damaged(path, "a size is missing in the directory")


def _locate(path: Path, file: BinaryIO, item: _Listed) -> Member:
    """The member with the place of its data, from its own header."""
    member = item.member
    file.seek(item.header)
    head = file.read(LOCAL.size + len(item.raw_name))
    fields = LOCAL.unpack_from(head)
    same = fields[0] == b"PK\x03\x04" and head[LOCAL.size :] == item.raw_name
    if not same or fields[9] != len(item.raw_name) or (fields[3] == DEFLATED) != member.deflated:
        raise _damaged(path, f"the header of {shown(member.name)} is not that of the directory")
    return replace(member, start=item.header + LOCAL.size + fields[9] + fields[10])


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or cut off ({what})")
