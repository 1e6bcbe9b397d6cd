"""Archives, pickles and headers that were made up to take memory, time or control."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable

import numpy as np


def npz_bytes(arrays: dict[str, np.ndarray], *, deflated: bool = False) -> bytes:
    """What NumPy writes."""
    stream = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def zipped(members: dict[str, bytes], *, deflated: bool = False) -> bytes:
    """A sound archive."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def call_bytes(name: str, arguments: bytes, how: int) -> bytes:
    """Opcodes that call a function by name, with a pickled tuple of arguments.

    Args:
        name: Module and function, with a space between.
        arguments: Opcodes that leave the tuple on the stack.
        how: Which of the opcodes that call is used.
    """
    module, function = name.split(" ")
    by_stack = b"\x8c" + bytes([len(module)]) + module.encode()
    by_stack += b"\x8c" + bytes([len(function)]) + function.encode() + b"\x93"
    text = f"{module}\n{function}\n".encode()
    command = arguments[1:-1]  # without the mark and the opcode for a tuple
    return [
        b"c" + text + arguments + b"R",
        by_stack + arguments + b"R",
        b"(" + command + b"i" + text,
        b"(c" + text + command + b"o",
        by_stack + arguments + b"\x81",
        by_stack + arguments + b"}\x92",
        b"c" + text + b")R" + arguments + b"b",
    ][how]


FUNCTIONS = (
    *("os system", "posix system", "nt system", "os popen", "os _exit", "os _wrap_close"),
    *("subprocess call", "subprocess Popen", "asyncio.subprocess create_subprocess_exec"),
    *("builtins eval", "builtins exec", "builtins compile", "builtins getattr", "builtins open"),
    *("__builtin__ eval", "__builtin__ execfile", "builtins __import__", "sys exit", "pip main"),
    *("importlib import_module", "runpy run_path", "shutil rmtree", "webbrowser open"),
    *("pickle loads", "torch load", "torch.storage _load_from_bytes", "torch.jit _load"),
    *("torch.hub load", "torch._utils _rebuild_sparse_tensor", "torch._C _from_dlpack"),
    *("numpy load", "numpy.testing._private.utils runstring", "functools partial"),
    *("operator attrgetter", "timeit timeit", "code InteractiveInterpreter", "ctypes CDLL"),
    *("types CodeType", "types FunctionType", "pydoc pipepager", "signal raise_signal"),
    *("multiprocessing Process", "cloudpickle.cloudpickle _builtin_type"),
)
"""What real attacks call, and what loads or runs something by a way round."""


def tensor_opcodes(shape: tuple[int, ...], strides: tuple[int, ...], numel: int) -> bytes:
    """A tensor over storage 0."""
    identity = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    identity += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    sizes = b"".join(b"(" + b"".join(b"L%dL\n" % n for n in row) + b"t" for row in (shape, strides))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity + b"L%dL\nt" % numel + b"Q" + b"K\x00" + sizes
        + b"\x89ccollections\nOrderedDict\n)Rt" + b"R"
    )  # fmt: skip


def torch_zip(pickled: bytes, storage: bytes = bytes(64)) -> bytes:
    """An archive as torch writes it, around any pickle."""
    return zipped({"a/data.pkl": pickled, "a/byteorder": b"little", "a/data/0": storage})


def table_pickle(*values: bytes) -> bytes:
    """A table of values t0, t1, ..."""
    items = b"".join(b"X\x02\x00\x00\x00t%d" % i + value for i, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


def _zeros_npz(rng: random.Random) -> bytes:
    """Zeros that unpack to a thousand times their size."""
    count = rng.choice([1 << 20, 60 << 20])
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % count
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i in range(rng.choice([1, 4])):
            with archive.open(f"a{i}.npy", "w") as member:
                member.write(head)
                for _ in range(count >> 20):
                    member.write(bytes(1 << 20))
    return stream.getvalue()


def _overlapping(rng: random.Random) -> bytes:
    """Many entries of the directory for one member."""
    data = npz_bytes({"a": np.zeros(1000, np.float32)})
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    count = rng.choice([2, 100, 30_000])
    entry = data[start:end]
    names = [entry.replace(b"a.npy", b"%05x" % i) for i in range(count)]
    directory = b"".join(names)
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return data[:start] + directory + closing


def _lying_sizes(rng: random.Random) -> bytes:
    """A directory that says other sizes than there are."""
    data = bytearray(npz_bytes({"a": np.zeros(9, np.float32)}, deflated=rng.random() < 0.5))
    start = data.index(b"PK\x01\x02")
    value = rng.choice([0, 1, 1 << 20, 1 << 26, (1 << 32) - 2])
    struct.pack_into("<L", data, start + rng.choice([20, 24, 42]), value)
    return bytes(data)


def _laughs(rng: random.Random) -> bytes:
    """Lists of the same list, of the same list."""
    opener, closer = rng.choice([(b"]", b"e"), (b"", b"t")])
    body = b"K\x01" if opener == b"" else b"]"
    body += b"q\x00"
    for i in range(rng.choice([10, 40, 250])):
        body += b"0" + opener + b"(" + (b"h" + bytes([i % 255])) * 10 + closer + b"q"
        body += bytes([(i + 1) % 255])
    return torch_zip(table_pickle(body, tensor_opcodes((4,), (1,), 16)))


def _self_reference(rng: random.Random) -> bytes:
    """A list in itself."""
    del rng
    return torch_zip(table_pickle(b"]q\x05h\x05a", tensor_opcodes((4,), (1,), 16)))


def _tuple_keys(rng: random.Random) -> bytes:
    """Keys whose hash takes 2^n steps."""
    body = b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    opener = rng.choice([b"}" + body + b"K\x01s", b"\x8f(" + body + b"\x90"])
    return torch_zip(table_pickle(opener, tensor_opcodes((4,), (1,), 16)))


def _deep(rng: random.Random) -> bytes:
    """Nesting beyond any recursion limit."""
    depth = rng.choice([1000, 100_000])
    kinds = [b"]" * depth + b"a" * (depth - 1), b")" + b"\x85" * depth, b"(" * depth + b"t" * depth]
    return torch_zip(table_pickle(rng.choice(kinds), tensor_opcodes((4,), (1,), 16)))


def _many(rng: random.Random) -> bytes:
    """As many opcodes as fit."""
    filler = rng.choice([b"}0", b"]0", b")0", b"\x8f0", b"N0", b"K\x010", b"(0", b"\x94"])
    closing = b"." if filler != b"\x94" else b"0."
    count = rng.choice([1000, 200_000, 3_000_000])
    body = b"\x80\x04" + (b"N" if filler == b"\x94" else b"") + filler * count
    if rng.random() < 0.3:
        body = b"\x80\x04" + rng.choice([b"}", b"]", b"\x8f"]) * count
    return torch_zip(body + b"}" + closing)


def _copies(rng: random.Random) -> bytes:
    """The same long text or list, unfolded again and again."""
    text = b"A" * (1 << 20)
    word = b"X" + struct.pack("<I", len(text)) + text + b"q\x00X\x06\x00\x00\x00latin1q\x01"
    encode = word + b"c_codecs\nencode\nq\x02" + b"0h\x02h\x00h\x01\x86R" * 60_000
    names = word + b"h\x00\x930" * 100_000
    many = b"(" + b"N" * 100_000 + b"lq\x00cbuiltins\nlist\nq\x01" + b"0h\x01h\x00\x85R" * 60_000
    items = b"".join(b"M%c%cN" % (i % 256, i // 256) for i in range(50_000))
    states = b"cx\nY\n)Rq\x00}(" + items + b"uq\x01bh\x00" + b"h\x01b" * 50_000
    return torch_zip(b"\x80\x02" + rng.choice([encode, names, many, states]) + b".")


def _numbers(rng: random.Random) -> bytes:
    """Numbers that take quadratic time to read or write."""
    size = rng.choice([5000, 4_000_000])
    digits = b"9" * size
    long = b"\x8b" + struct.pack("<i", size) + b"\x7f" * size
    kinds = [b"I" + digits + b"\n", b"L" + digits + b"L\n", b"F" + digits + b"\n", long]
    return torch_zip(table_pickle(rng.choice(kinds)))


def _strides(rng: random.Random) -> bytes:
    """Tensors that are larger than what they are made of."""
    shapes = [
        ((1 << 30,), (0,)),
        ((1 << 20, 1 << 20), (0, 1)),
        ((8, 8), (1, 1)),
        ((1 << 40, 0), (1, 1)),
        ((4,), (-1,)),
        ((1 << 62, 1 << 62), (1, 1)),
        ((4,), (1 << 61,)),
        ((2,) * 60, (1,) * 60),
    ]
    numel = rng.choice([16, 1 << 40, -1, 0])
    return torch_zip(table_pickle(tensor_opcodes(*rng.choice(shapes), numel)))


def _shared(rng: random.Random) -> bytes:
    """A thousand tensors of one storage."""
    storage = bytes(1 << rng.choice([10, 22]))
    tensor = tensor_opcodes((len(storage) // 4,), (1,), len(storage) // 4)
    body = b"\x80\x02}" + tensor + b"q\x00" + b"0("
    count = rng.choice([500, 50_000])
    body += b"".join(b"X\x05\x00\x00\x00%05dh\x00" % i for i in range(count))
    return torch_zip(body + b"u.", storage)


def _wide_header(rng: random.Random) -> bytes:
    """A safetensors header that is all list, all table, or all names."""
    count = rng.choice([1000, 2_000_000])
    inside = rng.choice([b'{"a":[%s0]}', b'{"a":{"shape":[%s0]}}'])
    kinds = [b"[],", b"{},", b"1,", b'"ab",', b"[" * 9 + b"]" * 9 + b","]
    text = inside % (rng.choice(kinds) * count)
    if rng.random() < 0.2:
        text = b'{"a":' + b"[" * count
    if rng.random() < 0.3:
        entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        text = ("{" + ",".join(entry % i for i in range(count // 20)) + "}").encode()
    return struct.pack("<Q", len(text)) + text


def _giant_npy(rng: random.Random) -> bytes:
    """Headers of arrays that nobody has."""
    descr = rng.choice(["<f4", "|O", "<V2", "<c8", "<M8[s]", ">f8", "<f16", "|S5"])
    shapes = ["()", "(-1,)", f"({1 << 62},)", "(2**9,)", "(" * 900, "(" + "9" * 5000 + "L,)"]
    shape = rng.choice([*shapes, f"(0, {1 << 47}, {1 << 47})", "__import__('os')", "(10,)"])
    header = f"{{'descr': '{descr}', 'fortran_order': True, 'shape': {shape}, }}".encode()
    length = rng.choice([len(header), 65535, 1])
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + header
    return zipped({"a.npy": head + bytes(40)}, deflated=rng.random() < 0.5)


def _random_bytes(rng: random.Random) -> bytes:
    """Noise behind a magic number."""
    magics = [b"", b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x04\x95", b"\x93NUMPY"]
    magics += [b"\x1f\x8b", struct.pack("<Q", 100) + b"{", b"\x89HDF", bytes(257) + b"ustar"]
    return rng.choice(magics) + rng.randbytes(rng.randrange(2000))


BOMBS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_zeros_npz, _overlapping, _lying_sizes, _laughs, _self_reference, _tuple_keys, _deep, _many),
    *(_copies, _numbers, _strides, _shared, _wide_header, _giant_npy, _random_bytes),
)
