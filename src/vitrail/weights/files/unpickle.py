"""A pickle machine that cannot import or call anything: it builds plain data and nothing else.

Python's unpickler is a program loader, and an allow-list on top of it is a fence around one. This
one runs the opcodes itself, over `pickletools.genops`, which only cuts the stream into opcodes.
Tensors become descriptions of where they lie. Objects of any class (`argparse.Namespace`, yacs'
`CfgNode`) become a `Record` of their plain data, under the name of the class, which is text here.
A stream that asks to call a function is refused, although it could not.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from collections.abc import Callable, Iterable, Sized
from typing import Any, cast

from vitrail.errors import CheckpointError
from vitrail.weights.files.pickle_calls import call, name_global
from vitrail.weights.files.pickled import Global, Record, StorageRef, as_key, set_state
from vitrail.weights.files.span import shown

OPCODES = 400_000
"""Opcodes of one stream at most; a training dump of ViT-L with optimizer and averages takes 90,000.

With `pickletools` at about 2 microseconds an opcode, a hostile stream ends within a second.
"""

SIZE = 16 << 20
"""Bytes of one stream at most."""

INTEGER = 1024
"""Bits of a number at most, so that printing it ends."""

FAULTS = (
    *(ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error),
    *(AttributeError, RecursionError),
)
"""What a broken stream makes the steps below raise."""


class _Mark:
    """Where a list of arguments begins on the stack."""


MARK = _Mark()


def unpickle(stream: io.BytesIO, storages: list[StorageRef], opcodes: int) -> Any:
    """The value of the next pickle in a stream, which is left behind it.

    Args:
        stream: All of the file that may be read.
        storages: Gets every storage that is named.
        opcodes: How many it may have.

    Returns:
        None, bool, int, float, str, bytes, tuple, list, dict, `Record`, `TensorRef`,
        `StorageRef`.

    Raises:
        CheckpointError: broken, too long, or asking for a call; without the path.
    """
    machine = _Machine(storages)
    try:
        return _run(machine, stream, opcodes)
    except CheckpointError:
        raise
    except FAULTS as error:
        raise CheckpointError(f"a broken pickle ({shown(str(error))})") from error


def _run(machine: _Machine, stream: io.BytesIO, opcodes: int) -> Any:
    with warnings.catch_warnings():
        # Old text opcodes with odd escapes: what they mean does not matter here.
        warnings.simplefilter("ignore", DeprecationWarning)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= opcodes:
                raise CheckpointError(f"a pickle of more than {opcodes} opcodes")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    raise CheckpointError("a broken pickle (it does not end)")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, storages: list[StorageRef]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = OPCODES

    def step(self, name: str, argument: Any) -> None:
        """Run one opcode."""
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in LITERALS:
            self.stack.append(_bounded(argument))
        elif name in PUTS:
            index = len(self.memo) if argument is None else argument
            self.memo[index] = self.top()
        elif name in GETS:
            self.stack.append(self.memo[argument])
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise CheckpointError(f"a pickle with opcode {name}, which weights do not need")

    def top(self) -> Any:
        """The value on top, which stays."""
        value = self.stack[-1]
        if value is MARK:
            raise ValueError("a mark in the place of a value")
        return value

    def pop(self) -> Any:
        """The value on top."""
        value = self.top()
        self.stack.pop()
        return value

    def pop_mark(self) -> list[Any]:
        """All values down to the last mark, which goes too."""
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def spend(self, count: int) -> None:
        """Count the copying of values that the stream names but does not hold again."""
        self.budget -= count
        if self.budget < 0:
            raise CheckpointError("a pickle that unfolds to far more than it holds")

    def reduce(self, function: Any, arguments: Any) -> None:
        """What a pickle calls a call: only descriptions are built."""
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are no tuple")
        given = cast("tuple[Any, ...]", arguments)
        self.spend(sum(map(_length, given)))
        self.stack.append(call(function, given))

    def make(self, function: Any, arguments: Any) -> None:
        """An object of a class, from the arguments of its `__new__`."""
        if not isinstance(function, Global):
            raise TypeError("an object of no class")
        self.reduce(function, arguments)

    def append(self, values: Iterable[Any]) -> None:
        """Lay values into the list, set or object on top."""
        target = self.top()
        if isinstance(target, Record):
            target.arguments.extend(values)
        elif type(target) is list:
            cast("list[Any]", target).extend(values)
        else:
            raise TypeError("values appended to no list")

    def set_items(self, values: list[Any]) -> None:
        """Lay keys and values into the table or object on top."""
        target = self.top()
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError("items set in no table")
        table = cast("dict[Any, Any]", target)
        for key, value in zip(values[::2], values[1::2], strict=True):
            table[as_key(key)] = value


Step = Callable[[_Machine, Any], None]


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > INTEGER:
        raise CheckpointError("a pickle with a number of absurd length")
    return bytes(value) if isinstance(value, bytearray) else value


def _length(value: Any) -> int:
    """How much a copy of it costs."""
    return len(cast("Sized", value)) if isinstance(value, str | bytes | list | tuple | dict) else 1


def _persistent(machine: _Machine) -> None:
    storage = StorageRef.from_id(machine.pop())
    machine.storages.append(storage)
    machine.stack.append(storage)


def _tuple(count: int) -> Step:
    def step(machine: _Machine, argument: Any) -> None:
        del argument
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(values)))

    return step


def _pop(machine: _Machine, argument: Any) -> None:
    del argument
    machine.stack.pop()


def _pop_mark(machine: _Machine, argument: Any) -> None:
    del argument
    machine.pop_mark()


def _set_item(machine: _Machine, argument: Any) -> None:
    del argument
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, argument: Any) -> None:
    del argument
    value = machine.pop()
    machine.append([value])


def _dict(machine: _Machine, argument: Any) -> None:
    del argument
    values = machine.pop_mark()
    machine.stack.append({})
    machine.set_items(values)


def _stack_global(machine: _Machine, argument: Any) -> None:
    del argument
    name, module = machine.pop(), machine.pop()
    machine.stack.append(name_global(module, name))


def _global(machine: _Machine, argument: Any) -> None:
    machine.stack.append(name_global(*_two(argument)))


def _instance(machine: _Machine, argument: Any) -> None:
    arguments = tuple(machine.pop_mark())
    machine.make(name_global(*_two(argument)), arguments)


def _object(machine: _Machine, argument: Any) -> None:
    del argument
    kind, *arguments = machine.pop_mark()
    machine.make(kind, tuple(arguments))


def _reduce(machine: _Machine, argument: Any) -> None:
    del argument
    arguments, function = machine.pop(), machine.pop()
    machine.reduce(function, arguments)


def _new_object(machine: _Machine, argument: Any) -> None:
    del argument
    arguments, kind = machine.pop(), machine.pop()
    machine.make(kind, arguments)


def _new_object_by_keyword(machine: _Machine, argument: Any) -> None:
    del argument
    keywords, arguments, kind = machine.pop(), machine.pop(), machine.pop()
    machine.make(kind, arguments)
    machine.spend(_length(keywords))
    set_state(machine.top(), keywords)


def _build(machine: _Machine, argument: Any) -> None:
    del argument
    state = machine.pop()
    parts = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else (state,)
    machine.spend(sum(map(_length, parts[:2])))
    set_state(machine.top(), state)


def _two(argument: Any) -> list[str]:
    """`pickletools` joins module and name with a space."""
    return str(argument).split(" ", 1)


CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "MARK": MARK,
}
LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
STEPS: dict[str, Step] = {
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "DICT": _dict,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "APPEND": _append,
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _reduce,
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_by_keyword,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: _persistent(machine),
}
