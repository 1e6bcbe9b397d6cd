"""Files of `torch.save`: a pickle that describes, and storages that hold the numbers.

Since torch 1.6 both stand in a zip (`name/data.pkl`, `name/data/0`, ...); before, several pickles
follow one another and the storages come after them. Neither is ever given to Python's unpickler.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Stored
from vitrail.weights.files.pickled import (
    STORAGES,
    Record,
    StorageRef,
    TensorRef,
)
from vitrail.weights.files.plain_data import plain_items
from vitrail.weights.files.span import (
    TENSORS,
    Seal,
    Span,
    check_names,
    check_room,
    check_shape,
    reach,
    row_major,
    shown,
)
from vitrail.weights.files.unpickle import OPCODES, SIZE, unpickle
from vitrail.weights.files.zip_members import Member, list_members, read_member

MAGIC = 0x1950A86A20F9469CFC6C
"""What the first pickle of an old file holds."""

PROTOCOL = 1001
"""What its second one holds."""

TABLES = ("state_dict_ema", "model", "state_dict", "model_ema", "module")
"""Keys under which dumps keep weights, in the order in which they are taken."""


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a file of torch holds.

    Attributes:
        tensors: Of the chosen table, by name.
        part: Key of that table; empty if the file is one table.
        parts: Keys of all tables.
        extras: Plain data beside them.
    """

    tensors: dict[str, Stored]
    part: str
    parts: tuple[str, ...]
    extras: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Storage:
    """Where the numbers of a storage stand in the file.

    Attributes:
        start: First byte.
        size: Bytes.
        crc: Checksum over all of them, if the container has one.
    """

    start: int
    size: int
    crc: int | None = None


def open_torch_zip(
    path: Path, part: str | None = None, members: dict[str, Member] | None = None
) -> TorchFile:
    """Open what `torch.save` has written since torch 1.6.

    Args:
        path: The file.
        part: Key of the table of weights; by default the first of `TABLES` that is there.
        members: Of the archive, where they are listed already.

    Raises:
        CheckpointError: damaged, hostile, or without weights.
    """
    members = list_members(path) if members is None else members
    prefix = _prefix(path, members)
    order = members.get(f"{prefix}byteorder")
    if order is not None and bytes(read_member(path, order, 16)) != b"little":
        raise CheckpointError(f"{path}: written on a big-endian machine; save it again on another")
    found = _unpickle(path, io.BytesIO(read_member(path, members[f"{prefix}data.pkl"], SIZE)))
    storages: dict[str, _Storage] = {}
    for name, member in members.items():
        if name.startswith(f"{prefix}data/"):
            if member.deflated:
                raise CheckpointError(
                    f"{path}: {shown(name)} is compressed, as torch does not write it; "
                    "save it again with torch.save"
                )
            key = name.removeprefix(f"{prefix}data/")
            storages[key] = _Storage(member.start, member.size, member.crc)
    return _choose(path, found, storages, part)


def open_torch_legacy(path: Path, part: str | None = None) -> TorchFile:
    """Open what torch wrote before 1.6, or with `_use_new_zipfile_serialization=False`.

    Args:
        path: The file.
        part: As in `open_torch_zip`.

    Raises:
        CheckpointError: damaged, hostile, or without weights.
    """
    try:
        with path.open("rb") as file:
            head = io.BytesIO(file.read(SIZE))
            if _short(path, head) != MAGIC or _short(path, head) != PROTOCOL:
                raise CheckpointError(
                    f"{path}: a pickle that torch.save did not write; save the weights with "
                    "torch.save or as safetensors"
                )
            system = _short(path, head)
            if not isinstance(system, dict) or system.get("little_endian") is not True:  # pyright: ignore[reportUnknownMemberType]
                raise CheckpointError(f"{path}: written on a big-endian machine, or damaged")
            refs: list[StorageRef] = []
            found = _unpickle(path, head, refs)
            keys = _unpickle(path, head)
            kinds = {ref.key: ref.kind for ref in refs}
            storages = _follow(path, file, head.tell(), keys, kinds)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
    return _choose(path, found, storages, part)


def _follow(
    path: Path, file: BinaryIO, place: int, keys: object, kinds: Mapping[str, str]
) -> dict[str, _Storage]:
    """Storages one after the other, each behind its number of elements."""
    if not isinstance(keys, list):
        raise CheckpointError(f"{path}: damaged (its storages are not listed)")
    size = file.seek(0, 2)
    storages: dict[str, _Storage] = {}
    for name in map(str, cast("list[object]", keys)):
        kind = kinds.get(name, "")
        if kind not in STORAGES or name in storages:
            raise CheckpointError(f"{path}: damaged, or a storage of numbers that are not read")
        file.seek(place)
        head = file.read(8)
        numel = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        storages[name] = _Storage(place + 8, numel * STORAGES[kind].itemsize)
        place += 8 + storages[name].size
        if numel < 0 or place > size:
            raise CheckpointError(f"{path}: damaged or cut off in storage {shown(name)}")
    return storages


def _prefix(path: Path, members: Mapping[str, Member]) -> str:
    """The folder in the archive that holds `data.pkl`, with its slash."""
    found = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise CheckpointError(
            f"{path}: a zip without weights (neither arrays nor torch's data.pkl)"
        )
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise CheckpointError(
            f"{path}: a TorchScript program, not a table of weights; save its state_dict()"
        )
    return prefix


def _short(path: Path, stream: io.BytesIO) -> Any:
    """One of the pickles that come first in an old file; they are short."""
    return _unpickle(path, stream, [], 100)


def _unpickle(
    path: Path, stream: io.BytesIO, refs: list[StorageRef] | None = None, opcodes: int = OPCODES
) -> Any:
    try:
        return unpickle(stream, [] if refs is None else refs, opcodes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _choose(
    path: Path, found: object, storages: Mapping[str, _Storage], part: str | None
) -> TorchFile:
    """The table of weights, and what stands beside it."""
    if isinstance(found, Record):
        raise CheckpointError(
            f"{path}: an object of class {shown(found.kind)}, not a table of weights; "
            "save its state_dict()"
        )
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: no table of weights in it")
    root = cast("dict[Any, Any]", found)
    tables = {str(key): value for key, value in root.items() if _is_table(value)}
    chosen = _name(path, root, tables, part)
    table = tables[chosen] if chosen else root
    refs = {str(name): value for name, value in table.items() if isinstance(value, TensorRef)}
    if len(refs) > TENSORS:
        raise CheckpointError(f"{path}: {len(refs)} tensors, at most {TENSORS} are read")
    tensors: dict[str, Stored] = {
        name: _resolve(path, name, ref, storages) for name, ref in refs.items()
    }
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    check_names(path, tensors)
    check_room(path, path.stat().st_size, tensors.values())
    rest = {key: value for key, value in root.items() if str(key) not in tables}
    return TorchFile(tensors, chosen, tuple(tables), plain_items(rest))


def _is_table(value: object) -> bool:
    if type(value) is not dict:
        return False
    table = cast("dict[Any, Any]", value)
    return any(isinstance(item, TensorRef) for item in table.values())


def _name(path: Path, root: Mapping[Any, Any], tables: Mapping[str, Any], part: str | None) -> str:
    """Key of the table to take; empty for the root."""
    listed = ", ".join(shown(name) for name in tables) or "none"
    if part is not None and part not in tables:
        raise CheckpointError(f"{path}: no table {shown(part)}; tables of weights: {listed}")
    if part is not None:
        return part
    for name in TABLES:
        if name in tables:
            return name
    if any(isinstance(value, TensorRef) for value in root.values()):
        return ""
    if len(tables) == 1:
        return next(iter(tables))
    if tables:
        raise CheckpointError(f"{path}: several tables of weights; name one of {listed} as part")
    kinds = {value.kind for value in root.values() if isinstance(value, Record)}
    objects = f"; there are objects of {', '.join(map(shown, sorted(kinds)))}" if kinds else ""
    raise CheckpointError(f"{path}: no table of weights in it{objects}")


def _resolve(path: Path, name: str, ref: TensorRef, storages: Mapping[str, _Storage]) -> Span:
    """A tensor in the file, once it is sure that it lies there."""
    fault = f"{path}: tensor {shown(name)}"
    unit = STORAGES.get(ref.storage.kind)
    if unit is None:
        raise CheckpointError(f"{fault} is a {shown(ref.storage.kind)}, which is not read")
    if ref.storage.key not in storages:
        raise CheckpointError(f"{fault} is not in the file (damaged or cut off)")
    storage = storages[ref.storage.key]
    dtype = ref.dtype or unit
    try:
        shape, strides = check_shape(ref.shape), check_shape(ref.strides)
    except CheckpointError as error:
        raise CheckpointError(f"{fault}: {error}") from error
    begin, room = ref.storage.first * unit.itemsize, ref.storage.numel * unit.itemsize
    if not 0 <= begin <= begin + room <= storage.size:
        raise CheckpointError(f"{fault}: damaged: its storage has {storage.size} bytes")
    if len(shape) != len(strides):
        raise CheckpointError(f"{fault}: damaged: {len(shape)} sizes, {len(strides)} strides")
    if ref.offset < 0 or (ref.offset + reach(shape, strides)) * dtype.itemsize > room:
        raise CheckpointError(f"{fault}: damaged: it reaches beyond its storage")
    if math.prod(shape) * dtype.itemsize > room:
        raise CheckpointError(f"{fault}: refused: {list(shape)} values out of {room} bytes")
    plain = _without_gaps(shape, strides)
    start = storage.start + begin + ref.offset * dtype.itemsize
    whole = plain and start == storage.start and math.prod(shape) * dtype.itemsize == storage.size
    return Span(
        path=path,
        name=name,
        start=start,
        shape=shape,
        dtype=dtype,
        strides=None if plain else strides,
        seal=Seal(start, storage.crc) if whole and storage.crc is not None else None,
    )


def _without_gaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if math.prod(shape) == 0:
        return True
    return all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(shape, strides, row_major(shape), strict=True)
    )
