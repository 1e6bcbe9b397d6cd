from __future__ import annotations

import io
import pickle
import random
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hostile_bombs import FUNCTIONS, call_bytes
from hostile_files import CfgNode
from vitrail.errors import CheckpointError
from vitrail.weights.files.pickled import Record, StorageRef
from vitrail.weights.files.plain_data import plain_items
from vitrail.weights.files.unpickle import OPCODES, unpickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes, opcodes: int = OPCODES) -> Any:
    return unpickle(io.BytesIO(data), [], opcodes)


def refusal(data: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(data)
    return str(caught.value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(-99, 99), inner, max_size=4)
    ),
)


@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_data_is_what_pickle_reads(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes(data: bytes, framed: bool) -> None:
    try:
        read(b"\x80\x04" + data + b"." if framed else data)
    except CheckpointError:
        return


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_are_inert(protocol: int) -> None:
    config = CfgNode({"MODEL": CfgNode({"DEPTHS": [2, 2]})})
    config.__dict__["frozen"] = True
    given = {
        "args": Namespace(lr=0.1, path=PurePosixPath("/a/b")),
        "config": config,
        "ordered": OrderedDict(a=1),
        "default": defaultdict(list, {"b": [1]}),
        "count": Counter("aab"),
        "queue": deque([1, 2]),
        "set": {1},
        "frozen": frozenset({2}),
        "bytes": b"\xff\x00",
        "array": bytearray(b"ab"),
        "complex": 1j,
        "scalar": np.float32(0.5),
        "truth": np.bool_(True),
        "matrix": np.arange(4, dtype=">i2").reshape(2, 2),
        "large": np.zeros(10_000),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "size": torch.Size([1, 2]),
        "kind": Namespace,
        (1, "a"): 3,
        0.5: 4,
    }
    found = read(pickle.dumps(given, protocol))
    assert type(found["args"]) is Record
    assert found["args"].kind == "argparse.Namespace"
    items = plain_items(found)
    assert items["args"] == {"lr": 0.1, "path": "/a/b"}
    assert items["config"] == {"MODEL": {"DEPTHS": [2, 2]}, "frozen": True}
    assert items["ordered"] == {"a": 1}
    assert items["default"] == {"b": [1]}
    assert items["count"] == {"a": 2, "b": 1}
    assert items["queue"] == [1, 2]
    assert list(items["set"]) == [1]
    assert list(items["frozen"]) == [2]
    assert found["bytes"] == b"\xff\x00"
    assert found["array"] == b"ab"
    assert items["complex"] == [0.0, 1.0]
    assert items["scalar"] == 0.5
    assert items["truth"] is True
    assert items["matrix"] == [[0, 1], [2, 3]]
    assert "large" not in items
    assert items["dtype"] == "torch.bfloat16"
    assert items["device"] == "cuda:1"
    assert tuple(items["size"]) == (1, 2)
    assert items["kind"] == "argparse.Namespace"
    assert items["(1, 'a')"] == 3
    assert items["0.5"] == 4


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("how", range(7))
def test_calls_are_refused_by_name(name: str, how: int) -> None:
    body = call_bytes(name, b"(X\x01\x00\x00\x00at", how)
    wanted = name.replace(" ", ".").replace("__builtin__", "builtins")
    assert f"the file asks to call {wanted}; weights call nothing" in refusal(body + b".")


def test_calls_by_pickle_itself() -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return eval, ("1/0",)

    for protocol in PROTOCOLS:
        assert "asks to call builtins.eval" in refusal(pickle.dumps([Attack()], protocol))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "broken pickle"),
        (b"N", "broken pickle"),
        (b".", "broken pickle"),
        (b"(.", "a mark in the place of a value"),
        (b"((d", "broken pickle"),
        (b"Nt.", "broken pickle"),
        (b"h\x07.", "broken pickle"),
        (b"NNNs.", "items set in no table"),
        (b"}(Nu.", "items set in no table"),
        (b"N(NNe.", "appended to no list"),
        (b"}]Ns.", "neither text nor number"),
        (b"NNR.", "arguments that are no tuple"),
        (b"N)R.", "a call of what is no class"),
        (b"N)\x81.", "an object of no class"),
        (b"NNb.", "a state for what has none"),
        (b"NNQ.", "a storage that is not described"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x97.", "opcode NEXT_BUFFER"),
        (b"Pabc\n.", "opcode PERSID"),
        (b"cos;x\nY\n.", "which is no class"),
        (b"c" + b"a" * 400 + b"\nB\n.", "absurd length"),
        (b"\x8a\xff" + b"\x7f" * 255 + b".", "a number of absurd length"),
        (b"I" + b"9" * 5000 + b"\n.", "broken pickle"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00rot0tR.", "broken pickle"),
        (b"ctorch._utils\n_rebuild_tensor\n(NNNNtR.", "not described as torch does"),
        (b"ctorch._utils\n_rebuild_parameter\n(NtR.", "no tensor"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(NNNNtR.", "not described as torch does"),
    ],
)
def test_broken_streams(data: bytes, words: str) -> None:
    message = refusal(data)
    assert words in message
    assert "\n" not in message


def test_lengths_are_bounded() -> None:
    assert read(b"(" + b"N" * 90 + b"l.", 100) == [None] * 90
    with pytest.raises(CheckpointError, match="more than 100 opcodes"):
        read(b"(" + b"N" * 100 + b"l.", 100)


def test_what_has_no_end_is_left_out() -> None:
    found = read(b"}(X\x01\x00\x00\x00a]q\x01h\x01aX\x01\x00\x00\x00bK\x05u.")
    assert found["a"][0] is found["a"]
    assert plain_items(found) == {"b": 5}
    laughs: Any = [1]
    for _ in range(30):
        laughs = [laughs] * 10
    assert plain_items({"laughs": laughs, "long": [0] * 20_000, "epoch": 3}) == {"epoch": 3}


@given(st.integers(0, 1 << 30))
def test_flipped_streams(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(STREAM)
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        found = read(bytes(data))
    except CheckpointError:
        return
    if isinstance(found, dict):
        plain_items(found)


STREAM = pickle.dumps(
    {"args": Namespace(a=1, b=[1, 2.5, None]), "array": np.arange(3), "set": {1, "b"}}, 2
)


def test_storages_are_reported() -> None:
    refs: list[StorageRef] = []
    data = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    data += b"X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x09"
    ref = unpickle(io.BytesIO(data + b"tQ."), refs, OPCODES)
    assert refs == [ref] == [StorageRef("FloatStorage", "7", 9)]
    view = data + b"(X\x01\x00\x00\x008K\x02K\x03ttQ."
    assert read(view) == StorageRef("FloatStorage", "7", 3, first=2)
