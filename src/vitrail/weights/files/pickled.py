"""What the pickle machine builds: plain data, descriptions of tensors, and records of objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
DTYPES = {
    str(dtype): dtype for dtype in (*STORAGES.values(), torch.uint16, torch.uint32, torch.uint64)
}


@dataclass(frozen=True, slots=True)
class Global:
    """A class that a pickle names; text, and not the class.

    Attributes:
        name: Module and name, joined by a dot.
    """

    name: str


class Record(dict[Any, Any]):
    """An object without its class: attributes and items.

    Attributes:
        kind: Module and name of the class.
        arguments: What it was made from, and the elements of a list.
        state: Its state, where that is no table of attributes.
    """

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: Sequence[Any] = (), state: Any = None) -> None:
        super().__init__()
        self.kind = kind
        self.arguments = list(arguments)
        self.state = state


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A run of numbers in the file.

    Attributes:
        kind: torch's class of it, such as `FloatStorage`.
        key: Its name in the file.
        numel: How many.
        first: Where it begins in the storage of that name, for views in old files.
    """

    kind: str
    key: str
    numel: int
    first: int = 0

    @classmethod
    def from_id(cls, identity: Any) -> StorageRef:
        """From what torch writes in the place of a storage."""
        view = None
        match identity:
            case ("storage", Global(kind), key, _, int(numel)):
                pass
            case ("storage", Global(kind), key, _, int(numel), view):
                pass
            case _:
                raise TypeError("a storage that is not described as torch does")
        if not isinstance(key, str | int):
            raise TypeError("a storage whose name is no text")
        kind = kind.rpartition(".")[2]
        match view:
            case None:
                return cls(kind, str(key), numel)
            case (str() | int(), int(first), int(size)):
                return cls(kind, str(key), size, first)
            case _:
                raise TypeError("a view of a storage that is not described as torch does")


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor in the file, as the pickle describes it; nothing of it is checked yet.

    Attributes:
        storage: Where its numbers are.
        offset: Of its first element there, in elements.
        shape: Its shape.
        strides: In elements.
        dtype: Its type, if it is not that of the storage.
    """

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype | None = None


def set_state(target: Any, state: Any) -> None:
    """Give an object its attributes; those of plain containers are dropped."""
    if not isinstance(target, Record):
        if isinstance(target, dict | list | TensorRef):
            return
        raise TypeError("a state for what has none")
    match state:
        case dict():
            tables: list[Any] = [state]
        case (dict() | None, dict()):
            tables = [table for table in cast("tuple[Any, ...]", state) if table is not None]
        case _:
            target.state = state
            return
    for table in tables:
        for key, value in cast("dict[Any, Any]", table).items():
            target.setdefault(as_key(key), value)


def as_key(key: Any) -> Any:
    """A key whose hash is quick and cannot be made to collide; others become text."""
    if key is None or isinstance(key, str | bytes | bool):
        return key
    if isinstance(key, int) and abs(key) < 1 << 32:
        return key
    if isinstance(key, int | float):
        return repr(key)
    if isinstance(key, tuple):
        parts = cast("tuple[Any, ...]", key)
        if len(parts) <= 64 and all(isinstance(part, str | int | float | None) for part in parts):
            return repr(tuple(part[:100] if isinstance(part, str) else part for part in parts))
    raise TypeError("a key that is neither text nor number")


def numpy_type(record: Any) -> np.dtype[Any] | None:
    """The type that a pickled `numpy.dtype` names, if it is one of plain numbers."""
    if not isinstance(record, Record) or not record.arguments:
        return None
    text = record.arguments[0]
    if not isinstance(text, str) or not re.fullmatch(r"[fiu][1248]|b1", text) or text == "f1":
        return None
    match record.state:
        case (_, "<" | ">" | "|" | "=" as order, *_):
            return np.dtype(order + text)
        case _:
            return np.dtype(text)
