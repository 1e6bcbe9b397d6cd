"""Arguments, epochs and settings beside the weights of a training dump, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np

from vitrail.weights.files.pickled import Global, Record, numpy_type

ITEMS = 100
"""Items of a table that are looked at."""

NODES = 10_000
"""Values that an item may have."""

DEPTH = 32
"""How deep they may be nested."""

SMALL = 4096
"""Elements that an array may have to be kept."""


class _Nothing:
    """What stands for values that are no plain data, such as tensors."""


NOTHING = _Nothing()


class _EndlessError(Exception):
    """More values than are kept."""


def plain_items(table: Mapping[Any, Any]) -> dict[str, Any]:
    """Those items of a table that are plain data.

    Objects become tables of their attributes, classes their names. What is no plain data is left
    out, and so is an item of more than `NODES` values: a list that holds itself has no end.
    """
    items: dict[str, Any] = {}
    for key, value in islice(table.items(), ITEMS):
        with suppress(_EndlessError):
            if (plain := _Budget(NODES).plain(value, DEPTH)) is not NOTHING:
                items[str(key)] = plain
    return items


@dataclass(slots=True)
class _Budget:
    """Values that may still be kept."""

    left: int

    def plain(self, value: Any, depth: int) -> Any:
        """The value in containers of its own, or `NOTHING`."""
        self.left -= 1
        if self.left < 0 or depth < 0:
            raise _EndlessError
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Record():
                return self._record(value, depth)
            case dict():
                return self._dict(cast("dict[Any, Any]", value), depth)
            case list() | tuple():
                values = self._list(cast("list[Any] | tuple[Any, ...]", value), depth)
                return values if isinstance(value, list) else tuple(values)
            case _:
                return value.name if isinstance(value, Global) else NOTHING

    def _dict(self, table: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        items: dict[Any, Any] = {}
        for key, value in table.items():
            if (plain := self.plain(value, depth - 1)) is not NOTHING:
                items[key] = plain
        return items

    def _list(self, values: Iterable[Any], depth: int) -> list[Any]:
        items = [self.plain(value, depth - 1) for value in values]
        return [item for item in items if item is not NOTHING]

    def _record(self, record: Record, depth: int) -> Any:
        if record.kind == "numpy.ndarray":
            return _array(record)
        if record.kind.startswith("pathlib.") and record.kind.endswith("Path"):
            parts = (str(part) for part in record.arguments[:100] if isinstance(part, str))
            return "/".join(parts).replace("//", "/")
        if record:
            return self._dict(record, depth)
        if len(record.arguments) == 1:
            return self.plain(record.arguments[0], depth - 1)
        return self._list(record.arguments, depth)


def _array(record: Record) -> Any:
    """The numbers of a small array as lists; `NOTHING` for any other."""
    match record.state:
        case (_, tuple(), Record() as dtype, bool() as fortran, bytes() as data, *_):
            kind = numpy_type(dtype)
        case _:
            return NOTHING
    if kind is None or len(data) > SMALL * kind.itemsize or len(data) % kind.itemsize:
        return NOTHING
    shape: Any = record.state[1]
    try:
        values = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, OverflowError):
        return NOTHING
    return values.tolist() if values.size else []
