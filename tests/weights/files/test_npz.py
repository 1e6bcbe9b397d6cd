from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from hostile_bombs import npz_bytes, zipped
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Stored
from vitrail.weights.files.npz import open_npz


def opened(folder: Path, data: bytes) -> dict[str, Stored]:
    path = folder / "model.npz"
    path.write_bytes(data)
    return open_npz(path)


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        opened(folder, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("npz")


KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@settings(deadline=None, max_examples=60)
@given(
    array=arrays_of.arrays(
        st.sampled_from([np.dtype(order + kind) for kind in KINDS for order in "<>"]),
        arrays_of.array_shapes(min_dims=0, min_side=0, max_dims=4),
    ),
    fortran=st.booleans(),
    deflated=st.booleans(),
)
def test_arrays_are_those_that_numpy_reads(
    scratch: Path, array: np.ndarray, fortran: bool, deflated: bool
) -> None:
    array = np.array(array, order="F" if fortran else "C")
    stored = opened(scratch, npz_bytes({"a/b": array}, deflated=deflated))["a/b"]
    read = stored.read()
    assert stored.shape == array.shape == tuple(read.shape)
    assert read.dtype == stored.dtype
    assert read.is_contiguous()
    native = array.astype(array.dtype.newbyteorder("="))
    assert read.numpy().dtype == native.dtype
    assert read.numpy().tobytes() == native.tobytes()


def test_truths_and_two_bytes_of_nothing(tmp_path: Path) -> None:
    numbers = torch.tensor([1.5, -2.0, 3e38]).bfloat16()
    given = {"mask": np.array([True, False]), "brain": numbers.view(torch.uint8).numpy().view("V2")}
    found = opened(tmp_path, npz_bytes(given))
    assert found["mask"].read().tolist() == [True, False]
    assert torch.equal(found["brain"].read(), numbers)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_of_the_header(tmp_path: Path, version: int) -> None:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }   \n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    data = b"\x93NUMPY" + bytes([version, 0]) + length + text + np.float32([1, 2]).tobytes()
    assert opened(tmp_path, zipped({"a.npy": data}))["a"].read().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}], dtype=object), "array 'a' has type '|O', which is not read"),
        (np.zeros(2, np.complex64), "has type '<c8'"),
        (np.array(["text"]), "has type '<U4'"),
        (np.zeros(2, [("x", "f4")]), "holds no plain numbers"),
        (np.zeros(2, "M8[s]"), "holds no plain numbers"),
    ],
)
def test_arrays_that_no_tensor_is(tmp_path: Path, array: np.ndarray, words: str) -> None:
    assert words in refusal(tmp_path, npz_bytes({"a": array}))


@pytest.mark.parametrize("deflated", [False, True])
def test_damage_that_only_the_checksum_shows(tmp_path: Path, deflated: bool) -> None:
    array = np.random.default_rng(0).random(1000, np.float32)
    data = bytearray(npz_bytes({"a": array}, deflated=deflated))
    data[2000] ^= 1
    found = opened(tmp_path, bytes(data))
    with pytest.raises(CheckpointError, match=r"damaged"):
        found["a"].read()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "no tensors in it"),
        ({"a.npy": b""}, "is no array"),
        ({"a.npy": b"\x93NUMPY\x09\x00" + bytes(99)}, "is no array"),
        ({"a.npy": b"\x93NUMPY\x01\x00\xff\xff" + bytes(99)}, "header of 'a.npy' is too long"),
        ({"a.txt": b"x"}, "'a.txt' in the zip is no array"),
        ({"a\nb.npy": b"x"}, "'a\\nb.npy' in the zip is no array"),
    ],
)
def test_other_members(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    assert words in refusal(tmp_path, zipped(members))


@pytest.mark.parametrize(
    "shape", ["(9,)", "(-1,)", "(2**3,)", f"({1 << 60}, {1 << 60})", f"(0, {1 << 60})", "(1 2"]
)
def test_shapes_that_the_bytes_are_not(tmp_path: Path, shape: str) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8)
    refusal(tmp_path, zipped({"a.npy": data}))
