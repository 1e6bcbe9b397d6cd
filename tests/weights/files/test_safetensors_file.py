from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from hostile_files import state
from vitrail.errors import CheckpointError
from vitrail.weights.files.safetensors_file import (
    BRACKETS,
    HEADER_LIMIT,
    open_safetensors,
    read_safetensors_header,
)


def framed(header: object, content: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def refusal(folder: Path, data: bytes) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_safetensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_tensors_are_those_that_the_library_reads(tmp_path: Path) -> None:
    weights = {name: t.contiguous().clone() for name, t in state(random.Random(0)).items()}
    for dtype in (torch.float64, torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16):
        weights[str(dtype)] = torch.arange(3).to(dtype)
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(weights, {"format": "pt"}))
    tensors, metadata = open_safetensors(path)
    assert metadata == {"format": "pt"}
    expected = load_file(path)
    assert tensors.keys() == expected.keys()
    for name, stored in tensors.items():
        assert stored.read().dtype == stored.dtype == expected[name].dtype
        assert torch.equal(stored.read(), expected[name])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"{}", "tensors end at byte"),
        (b"[]", "no safetensors header"),
        (b"{]", "no JSON"),
        (b'{"a":' + b"[" * 50_000, "no JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"\xff": 1}', "no JSON"),
        ({"__metadata__": {"x": 1}, **one()}, "no table of text"),
        ({"a": 1}, "tensor 'a' is not described"),
        ({"a": {}}, "tensor 'a' is not described"),
        (one("F8_E4M3"), "tensor 'a' has type 'F8_E4M3'; F64, F32"),
        (one(shape=4), "a shape that is no list"),
        (one(shape=(-4,)), "a shape that no tensor has"),
        (one(shape=(4.0,)), "a shape that no tensor has"),
        (one(shape=(True, 4)), "a shape that no tensor has"),
        (one(shape=(0, 1 << 60)), "a shape that no tensor has"),
        (one(shape=(1,) * 17), "17 dimensions"),
        (one(shape=(5,)), "has not the size of its shape"),
        (one(offsets=(16, 0)), "has not the size of its shape"),
        (one(offsets=(0,)), "is not described"),
        (one(offsets=("0", "16")), "is not described"),
        (one(offsets=(-16, 0)), "has not the size of its shape"),
        (one(offsets=(16, 32)), "does not follow the one before"),
        (one(shape=(2,), offsets=(0, 8)), "tensors end at byte"),
        ({**one(), "b": one()["a"]}, "tensor 'b' does not follow the one before"),
        ({"a\nb": one()["a"]}, "unreadable name 'a\\nb'"),
        ({"x" * 600: one()["a"]}, "unreadable name"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: object, words: str) -> None:
    assert words in refusal(tmp_path, framed(header))


def test_headers_are_bounded(tmp_path: Path) -> None:
    assert "no safetensors header" in refusal(tmp_path, framed(b"{" + b" " * HEADER_LIMIT + b"}"))
    many = b'{"a":[' + b"[]," * BRACKETS + b"0]}"
    assert "the header is too large" in refusal(tmp_path, framed(many))
    entry = one(shape=(0,), offsets=(0, 0))["a"]
    names = {str(i): entry for i in range(10_001)}
    assert "10001 tensors, at most 10000 are read" in refusal(tmp_path, framed(names, b""))


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(8), struct.pack("<Q", 1 << 63) + b"{}"])
def test_no_header(tmp_path: Path, data: bytes) -> None:
    assert "damaged or truncated" in refusal(tmp_path, data)


def test_an_empty_table_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(b"{}", b""))
    assert read_safetensors_header(path) == ({}, {})
    assert "no tensors in it" in refusal(tmp_path, framed(b"{}", b""))


def test_a_file_that_is_cut_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": torch.ones(1000)}))
    tensors, _ = open_safetensors(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut off in tensor 'a'"):
        tensors["a"].read()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
)


@settings(deadline=None, max_examples=50)
@given(dtype=JSON, shape=JSON, offsets=JSON)
def test_any_table(
    tmp_path_factory: pytest.TempPathFactory, dtype: Any, shape: Any, offsets: Any
) -> None:
    refusal(tmp_path_factory.getbasetemp(), framed(one(dtype, shape, offsets), b""))
