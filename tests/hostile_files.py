"""Sound checkpoints of every container, and what damage, calls and nesting make of them."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from hostile_bombs import BOMBS, FUNCTIONS, call_bytes, npz_bytes, zipped

Case = dict[str, bytes]
"""Files by name; the first is opened, or the folder if it is called `config.json`."""


class CfgNode(dict[str, Any]):
    """What yacs' class of this name is: a table with a state."""

    __module__ = "yacs.config"


# To write its objects, pickle must find the class under its module.
if "yacs.config" not in sys.modules:
    sys.modules["yacs"] = types.ModuleType("yacs")
    sys.modules["yacs.config"] = types.ModuleType("yacs.config")
    sys.modules["yacs.config"].__dict__["CfgNode"] = CfgNode


def state(rng: random.Random) -> dict[str, torch.Tensor]:
    """A few tensors of several types, one of them a view and two of one storage."""
    torch.manual_seed(rng.randrange(1 << 30))
    shared = torch.randn(6, 4)
    return OrderedDict(
        [
            ("cls_token", torch.randn(1, 1, 8)),
            ("blocks.0.norm1.weight", torch.ones(8)),
            ("blocks.0.attn.qkv.weight", torch.randn(24, 8)),
            ("half", torch.randn(3, 3).half()),
            ("brain", torch.randn(3, 3).bfloat16()),
            ("steps", torch.tensor(3)),
            ("mask", torch.tensor([True, False])),
            ("view", shared.T[1:3]),
            ("whole", shared),
            ("empty", torch.zeros(0, 3)),
        ]
    )


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def dump(rng: random.Random) -> dict[str, Any]:
    """A training dump with all that people leave in one."""
    config = CfgNode({"MODEL": CfgNode({"NAME": "swin", "DEPTHS": [2, 2]})})
    config.__dict__["__immutable__"] = True
    weights = state(rng)
    return {
        "model": {f"module.{name}": value for name, value in weights.items()},
        "model_ema": weights,
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{}]},
        "epoch": 3,
        "args": Namespace(lr=1e-3, model="deit", out=Path("/tmp/x"), size=(1, 2.5, None)),
        "config": config,
        "best": np.float64(0.5),
        "history": np.arange(5, dtype=np.float32),
        "device": torch.device("cpu"),
        "type": torch.float32,
        "words": {"a", "b"},
        "long": 1 << 70,
    }


def bases(rng: random.Random) -> list[Case]:
    """A sound file of every container."""
    arrays = {
        "embedding/kernel": np.asfortranarray(np.random.default_rng(0).random((4, 6), np.float32)),
        "params/cls": np.zeros((1, 1, 8), ">f4"),
        "brain": np.zeros((2, 3), "V2"),
        "steps": np.int64(3),
        "zeros": np.zeros((64, 64), np.float16),
    }
    weights = {name: tensor.contiguous().clone() for name, tensor in state(rng).items()}
    sound = save(weights, {"format": "pt"})
    halves = [dict(list(weights.items())[i::2]) for i in range(2)]
    index = {name: f"part{i}.safetensors" for i, half in enumerate(halves) for name in half}
    config = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "image_size": 32}
    return [
        {"a.npz": npz_bytes(arrays)},
        {"a.npz": npz_bytes(arrays, deflated=True)},
        {"a.safetensors": sound},
        {"a.pth": torch_bytes(state(rng))},
        {"a.pth.tar": torch_bytes(dump(rng))},
        {"a.pth": torch_bytes(state(rng), legacy=True)},
        {"a.pth": torch_bytes(dump(rng), legacy=True)},
        {"config.json": json.dumps(config).encode(), "model.safetensors": sound},
        {
            "config.json": json.dumps(config).encode(),
            "model.safetensors.index.json": json.dumps({"weight_map": index}).encode(),
            **{f"part{i}.safetensors": save(half) for i, half in enumerate(halves)},
        },
    ]


def mutants(seed: int, sentinel: Path, given: list[Case] | None = None) -> Iterator[Case]:
    """Hostile cases without end.

    Args:
        seed: Of all that is random.
        sentinel: A file that executed code would write.
        given: Sound cases to start from; those of `bases` by default.
    """
    rng = random.Random(seed)
    sound = bases(rng) if given is None else given
    while True:
        case = dict(rng.choice(sound))
        way = rng.random()
        if way < 0.62:
            name = rng.choice(list(case))
            case[name] = _damage(rng, case[name])
        elif way < 0.80:
            case = {"a.pth": _call(rng, sentinel)}
        elif way < 0.92:
            case = {rng.choice(["a.pth", "a.npz", "a.safetensors"]): rng.choice(BOMBS)(rng)}
        else:
            case = {"a.pth": _nest(rng, sound)}
        yield case


def _damage(rng: random.Random, data: bytes) -> bytes:
    if data[:2] == b"PK" and rng.random() < 0.6:
        return _rewrapped(rng, data)
    if data[8:9] == b"{" and rng.random() < 0.6:
        length = struct.unpack("<Q", data[:8])[0]
        header = _json(rng, data[8 : 8 + length])
        return struct.pack("<Q", len(header)) + header + data[8 + length :]
    if data[:1] == b"{" and rng.random() < 0.7:
        return _json(rng, data)
    return _bytes(rng, data)


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, overwritten, cut, repeated or removed, mostly near either end."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at, kind = _place(rng, len(damaged)), rng.randrange(6)
        if kind == 0:
            damaged[at : at + 1] = bytes(
                byte ^ 1 << rng.randrange(8) for byte in damaged[at : at + 1]
            )
        elif kind == 1:
            damaged[at : at + 1] = rng.randbytes(1)
        elif kind == 2:
            width = rng.choice([2, 4, 8])
            value = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 1 << 40])
            damaged[at : at + width] = value.to_bytes(8, "little")[:width]
        elif kind == 3:
            del damaged[at:]
        elif kind == 4:
            del damaged[at : at + rng.randrange(1, 64)]
        else:
            other = _place(rng, len(damaged))
            damaged[at:at] = damaged[other : other + rng.randrange(1, 64)]
    return bytes(damaged)


def _place(rng: random.Random, length: int) -> int:
    near = min(length, 400)
    if not near:
        return 0
    return rng.choice(
        [rng.randrange(near), length - 1 - rng.randrange(near), rng.randrange(length)]
    )


def _rewrapped(rng: random.Random, data: bytes) -> bytes:
    """Damage inside a zip whose checksums are right again, as an attacker would."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError):
        return _bytes(rng, data)
    targets = [name for name in members if name.endswith("data.pkl")] or list(members)
    for _ in range(rng.choice([1, 1, 3])):
        target = rng.choice(targets if rng.random() < 0.8 else list(members))
        if target not in members:
            continue
        kind = rng.random()
        if kind < 0.8:
            members[target] = _digits(rng, _bytes(rng, members[target]))
        elif kind < 0.9:
            del members[target]
        else:
            members[rng.choice(["../x", "a/b/c.npy", "x" * 300, "é\n"])] = members[target]
    return zipped(members, deflated=rng.random() < 0.3)


def _digits(rng: random.Random, data: bytes) -> bytes:
    """One number written in digits becomes another."""
    places = [i for i, byte in enumerate(data[:200]) if 48 <= byte < 58]
    if not places or rng.random() < 0.5:
        return data
    at = rng.choice(places)
    return data[:at] + rng.choice([b"-1", b"999999999999", b"0", b"7"]) + data[at + 1 :]


def _json(rng: random.Random, text: bytes) -> bytes:
    """A table in which values became others, or vanished."""
    try:
        table = json.loads(text)
    except ValueError:
        return _bytes(rng, text)
    if not isinstance(table, dict):
        return _bytes(rng, text)
    odd: list[Any] = [None, -1, 0, 1 << 62, 10**400, 1.5, "x", "F8_E4M3", [], {}, [[]], True]
    odd += ["\ud800", [2**40, 2**40], [0, 2**63], "a\nb", {"dtype": "F32"}]
    for _ in range(rng.choice([1, 1, 2, 5])):
        node: Any = table
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = rng.choice(keys)
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
                if rng.random() < 0.2 and isinstance(node, dict):
                    node[rng.choice(["x", "", "é\n", "a" * 1000])] = node.pop(key)
                else:
                    node[key] = copy.deepcopy(rng.choice(odd))
                break
            node = node[key]
    return json.dumps(table).encode("utf-8", "surrogatepass")


def _call(rng: random.Random, sentinel: Path) -> bytes:
    """A dump with a call in it."""
    command = f"open({str(sentinel)!r},'w')".encode()
    shell = f"touch {sentinel}".encode()
    text = rng.choice([command, shell])
    arguments = b"(" + b"X" + struct.pack("<I", len(text)) + text + b"t"
    body = call_bytes(rng.choice(FUNCTIONS), arguments, rng.randrange(7))
    wrap = rng.random()
    if wrap < 0.1:
        return rng.choice([b"", b"\x80\x02", b"\x80\x04"]) + body + b"."
    if wrap < 0.3:
        data = bytearray(torch_bytes(state(rng), legacy=True))
        at = data.rfind(b"\x80\x02}q")  # before the table itself
        return bytes(data[: max(at, 0)]) + b"\x80\x02" + body + b"." + bytes(data[max(at, 0) :])
    pickled = _pickle_of(torch_bytes(dump(rng) if rng.random() < 0.5 else state(rng)))
    name, data = pickled["name"], pickled["data"]
    if rng.random() < 0.5:
        data = b"\x80\x02" + body + b"0" + data[2:]
    else:
        data = data[:-1] + b"X\x01\x00\x00\x00x" + body + b"s."
    members: dict[str, bytes] = pickled["members"]
    return zipped({**members, name: data}, deflated=rng.random() < 0.1)


def _pickle_of(data: bytes) -> dict[str, Any]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("/data.pkl"))
    return {"members": members, "name": name, "data": members[name]}


def _nest(rng: random.Random, sound: list[Case]) -> bytes:
    """Archives in archives, and files behind or before others."""
    one, two = (rng.choice(list(rng.choice(sound).values())) for _ in range(2))
    if rng.random() < 0.3:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo("../../model.pth")
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
        return stream.getvalue()
    kind = rng.randrange(6)
    if kind == 0:
        return one + two
    if kind == 1:
        return zlib.compress(one)
    if kind == 2:
        return zipped({"a.npy": one, "a/data.pkl": two})
    if kind == 3:
        return zipped({"a/data.pkl": one, "a/data/0": two})
    if kind == 4:
        return zipped({"model.pth": one}, deflated=True)
    return pickle.dumps({"model": one, "other": [two]}, protocol=rng.randrange(6))
