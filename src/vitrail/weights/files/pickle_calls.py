"""What stands for the names that a pickle mentions and the functions that it asks to call.

Nothing is looked up anywhere: a name is text, and the few functions by which tensors, arrays and
plain containers are written are done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from vitrail.errors import CheckpointError
from vitrail.weights.files.pickled import (
    DTYPES,
    Global,
    Record,
    StorageRef,
    TensorRef,
    as_key,
    numpy_type,
    set_state,
)
from vitrail.weights.files.span import shown

NAME = 300
"""Characters that a name may have."""

TORCH_NAMES = frozenset(
    {
        *(name.removeprefix("torch.") for name in DTYPES),
        *("complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float", "half", "double"),
        *("strided", "sparse_coo", "contiguous_format", "channels_last", "preserve_format"),
    }
)
"""Constants of torch that stand in settings; they become text."""

DATA_CLASSES = frozenset(
    {
        *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
        *("datetime.timezone", "types.SimpleNamespace", "uuid.UUID", "numpy.ndarray"),
        *(f"builtins.{name}" for name in ("object", "int", "float", "str", "bool", "complex")),
        *(f"builtins.{name}" for name in ("slice", "range")),
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)),
        *("numpy.bool", "numpy.bool_"),
    }
)
"""Classes of plain data whose names are written small, or whose modules are refused otherwise."""

REFUSED = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "_posixsubprocess", "builtins", "importlib"),
        *("runpy", "shutil", "socket", "ctypes", "_ctypes", "pty", "pickle", "_pickle", "marshal"),
        *("types", "functools", "operator", "inspect", "multiprocessing", "threading", "asyncio"),
        *("signal", "code", "codeop", "pdb", "bdb", "timeit", "webbrowser", "urllib", "http"),
        *("tempfile", "zipimport", "pip", "pydoc", "io", "_io", "gc", "atexit", "imp", "site"),
        *("requests", "ssl", "smtplib", "ftplib", "telnetlib", "cProfile", "profile", "trace"),
    }
)
"""Modules of which nothing is even named."""

ALIASES = {"__builtin__": "builtins", "copy_reg": "copyreg", "torch.cuda": "torch"}
"""Names that modules had in Python 2, and storages on a GPU."""


def name_global(module: Any, name: Any) -> Global | str:
    """What a name in a pickle stands for; constants of torch are text.

    Raises:
        CheckpointError: a function, or anything of a module that runs or reaches something.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a global whose name is no text")
    if len(module) + len(name) > NAME:
        raise CheckpointError("the file names a class of absurd length")
    module = ALIASES.get(module, module).replace("numpy.core", "numpy._core")
    full = f"{module}.{name}"
    if not all(part.isidentifier() for part in full.split(".")):
        raise CheckpointError(f"the file names {shown(full)}, which is no class")
    if full in CALLS or full in DATA_CLASSES:
        return Global(full)
    if module == "torch" and name in TORCH_NAMES:
        return full
    last = full.rpartition(".")[2].lstrip("_")
    if module.partition(".")[0] in REFUSED or not last[:1].isupper():
        raise CheckpointError(
            f"refused: the file asks to call {shown(full)[1:-1]}; weights call nothing"
        )
    return Global(full)


def call(function: Any, given: tuple[Any, ...]) -> Any:
    """The description of what a call would have made."""
    if not isinstance(function, Global):
        raise TypeError("a call of what is no class")
    known = CALLS.get(function.name)
    return Record(function.name, given) if known is None else known(*given)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorRef:
    """`torch._utils._rebuild_tensor` and `_v2`."""
    del rest
    plain = isinstance(storage, StorageRef) and isinstance(offset, int)
    if not plain or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor that is not described as torch does")
    return TensorRef(
        storage, offset, cast("tuple[int, ...]", shape), cast("tuple[int, ...]", strides)
    )


def _typed_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *rest: Any,
) -> TensorRef:
    """`_rebuild_tensor_v3`: the type beside an untyped storage."""
    del grad, hooks, rest
    if dtype not in DTYPES:
        raise CheckpointError(f"a tensor of type {shown(str(dtype))}, which is not read")
    plain = _tensor(storage, offset, shape, strides)
    return TensorRef(plain.storage, plain.offset, plain.shape, plain.strides, DTYPES[dtype])


def _parameter(data: Any, *rest: Any) -> TensorRef:
    del rest
    if not isinstance(data, TensorRef):
        raise TypeError("a parameter that is no tensor")
    return data


def _of_type(function: Any, kind: Any, given: Any, *rest: Any) -> Any:
    """`_rebuild_from_type_v2`: a subclass of `Tensor`, of which the tensor is taken."""
    del kind, rest
    if not isinstance(function, Global) or function.name not in TENSORS:
        raise TypeError("a tensor that is not described as torch does")
    return TENSORS[function.name](*given)


def _listed(*given: Any) -> list[Any]:
    return list(given[0]) if given else []


def _tupled(*given: Any) -> tuple[Any, ...]:
    return tuple(given[0]) if given else ()


def _table(*given: Any) -> dict[Any, Any]:
    """`dict` and `OrderedDict`, from a table or from pairs."""
    items: Any = given[0] if given else []
    pairs = cast("dict[Any, Any]", items).items() if isinstance(items, dict) else items
    return {as_key(key): value for key, value in pairs}


def _defaults(*given: Any) -> dict[Any, Any]:
    """`defaultdict`, whose first argument makes the defaults."""
    return _table(*given[1:])


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as old protocols write them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes that are not written as pickle does")
    return text.encode("latin-1")


def _bytes(*given: Any) -> bytes:
    match given:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str(), str()):
            return _encoded(*given)
        case _:
            raise TypeError("bytes that are not written as pickle does")


def _reconstructed(kind: Any, base: Any, state: Any) -> Record:
    """`copyreg._reconstructor`: an object, as protocols 0 and 1 write it."""
    del base
    if not isinstance(kind, Global):
        raise TypeError("an object of no class")
    record = Record(kind.name)
    if isinstance(state, dict):
        set_state(record, state)
    return record


def _named_text(*given: Any) -> str:
    """`torch.device` and layouts."""
    return ":".join(str(part) for part in given if isinstance(part, str | int))[:100]


def _number(dtype: Any, data: Any = b"") -> Any:
    """A NumPy scalar."""
    kind = numpy_type(dtype)
    if kind is None or not isinstance(data, bytes) or len(data) != kind.itemsize:
        return Record("numpy.scalar")
    return np.frombuffer(data, kind)[0].item()


def _array(*given: Any) -> Record:
    """An empty NumPy array, whose state follows."""
    del given
    return Record("numpy.ndarray")


def _buffer_array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Record:
    """A NumPy array, as protocol 5 writes it."""
    return Record("numpy.ndarray", state=(1, shape, dtype, order == "F", data))


TENSORS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
CALLS: Mapping[str, Callable[..., Any]] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _tupled,
    "torch.device": _named_text,
    "torch.serialization._get_layout": _named_text,
    "collections.OrderedDict": _table,
    "collections.Counter": _table,
    "collections.defaultdict": _defaults,
    "collections.deque": _listed,
    "builtins.dict": _table,
    "builtins.list": _listed,
    "builtins.tuple": _tupled,
    "builtins.set": _listed,
    "builtins.frozenset": _tupled,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "numpy.dtype": lambda *given: Record("numpy.dtype", given),
    "numpy._core.multiarray.scalar": _number,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.numeric._frombuffer": _buffer_array,
}
"""Functions that writers of weights use, and what takes their place."""
