from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_bombs import zipped
from vitrail.errors import CheckpointError
from vitrail.weights.files.zip_members import list_members, read_head, read_member


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.zip"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        list_members(path)
    return str(caught.value)


@settings(deadline=None)
@given(
    members=st.dictionaries(
        st.text("abc/é", min_size=1, max_size=9),
        st.binary(max_size=50) | st.integers(0, 300_000).map(bytes),
        max_size=5,
    ),
    deflated=st.booleans(),
)
def test_members_are_those_that_python_reads(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], deflated: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "archive.zip"
    path.write_bytes(zipped(members, deflated=deflated))
    found = list_members(path)
    assert found.keys() == members.keys()
    for name, data in members.items():
        assert read_member(path, found[name], 1 << 20) == data
        assert read_head(path, found[name], 10) == data[:10]
        assert read_head(path, found[name], 1 << 20) == data


def test_sizes_of_64_bits(path: Path) -> None:
    """As torch and NumPy write them, though the files are small."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"abc")
    path.write_bytes(stream.getvalue())
    assert read_member(path, list_members(path)["a"], 3) == b"abc"
    data = stream.getvalue()
    start = data.index(b"PK\x01\x02")
    # The same directory once more, with sizes and place in the extra field.
    entry = bytearray(data[start : data.index(b"PK\x05\x06")])
    struct.pack_into("<2L", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 28)
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    wide = bytes(entry) + struct.pack("<2H3Q", 1, 24, 3, 3, 0)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(wide), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(wide), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(data[:start] + wide + end64 + locator + end)
    assert read_member(path, list_members(path)["a"], 3) == b"abc"
    cut = wide[:-8].replace(struct.pack("<2H", 1, 24), struct.pack("<2H", 1, 16))
    assert "damaged" in refusal(path, data[:start] + cut + end64 + locator + end)


def test_a_bomb_is_refused_before_it_is_unpacked(path: Path) -> None:
    data = zipped({str(i): bytes(40 << 20) for i in range(4)}, deflated=True)
    assert "refused: a zip of" in refusal(path, data)


def test_one_member_is_bounded(path: Path) -> None:
    path.write_bytes(zipped({"a": bytes(100)}))
    with pytest.raises(CheckpointError, match="'a' has 100 bytes, at most 99 are read"):
        read_member(path, list_members(path)["a"], 99)


def test_a_member_inside_another(path: Path) -> None:
    """One run of bytes that two entries unpack is how a small file becomes a large one."""
    inner = zipped({"in": b"x" * 50})
    local = inner[: inner.index(b"PK\x01\x02")]
    outer = zipped({"out": local})
    start, end = outer.index(b"PK\x01\x02", len(local)), outer.rindex(b"PK\x05\x06")
    entry = bytearray(inner[inner.index(b"PK\x01\x02") : inner.index(b"PK\x05\x06")])
    struct.pack_into("<L", entry, 42, outer.index(local))
    directory = outer[start:end] + bytes(entry)
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), start, 0)
    assert "'in' lies over another member" in refusal(path, outer[:start] + directory + closing)


def changed(data: bytes, place: int, value: int) -> bytes:
    """The first entry of the directory with another 16-bit number."""
    damaged = bytearray(data)
    struct.pack_into("<H", damaged, data.index(b"PK\x01\x02") + place, value)
    return bytes(damaged)


def test_what_is_refused(path: Path) -> None:
    data = zipped({"a": b"hello"})
    assert "'a' is encrypted" in refusal(path, changed(data, 8, 1))
    assert "'a' is compressed by method 12" in refusal(path, changed(data, 10, 12))
    assert "'a' has two sizes" in refusal(path, changed(data, 24, 6))
    assert "ends beyond the file" in refusal(path, changed(changed(data, 20, 500), 24, 500))
    assert "is not that of the directory" in refusal(path, changed(data, 42, 3))
    assert "the directory is broken" in refusal(path, changed(data, 0, 3))
    assert "bytes follow the end" in refusal(path, data + b"x")
    assert "the end of the zip archive is missing" in refusal(path, data[:40])
    assert "not where its end says" in refusal(path, b"x" + data)
    twice = data[: data.index(b"PK\x05\x06")] + data[data.index(b"PK\x01\x02") :]
    assert "damaged" in refusal(path, twice)
    end = data.index(b"PK\x05\x06")
    assert "one part of a zip in several" in refusal(
        path, data[: end + 4] + b"\1" + data[end + 5 :]
    )
    many = data[: end + 8] + b"\xfe\xff\xfe\xff" + data[end + 12 :]
    assert "refused: a zip with 65534 members" in refusal(path, many)


@pytest.mark.parametrize("deflated", [False, True])
def test_every_flipped_byte_is_harmless(path: Path, deflated: bool) -> None:
    content = {"a": b"hello" * 20, "b/c": b"world"}
    data = zipped(content, deflated=deflated)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            members = list_members(path)
            found = {name: read_member(path, member, 1000) for name, member in members.items()}
        except CheckpointError:
            continue
        assert sorted(found.values()) == sorted(content.values())  # a date, or a flag of no matter
