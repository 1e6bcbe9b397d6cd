"""safetensors: a JSON header, then the bytes of all tensors without gaps.

Format: https://huggingface.co/docs/safetensors. The header is read here, and not by the library,
so that each tensor goes from the file into its own memory once, and nothing is memory-mapped.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from vitrail.errors import CheckpointError
from vitrail.weights.files.span import Span, check_names, check_room, check_shape, shown

NO_HEADER = "no safetensors header"
"""What is said of a file that is none at all."""

HEADER_LIMIT = 8 << 20
"""Bytes of header that are read at most: a bloated header cannot exhaust memory."""

BRACKETS = 200_000
"""Lists and tables in the header at most; a tensor takes three."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors_header(path: Path) -> tuple[dict[str, Span], dict[str, str]]:
    """Tensors by name, of which there may be none, and the free text of the header.

    Raises:
        CheckpointError: missing, damaged, or holding what no tensor is; the message begins with
            the path.
    """
    size, text = _header(path)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "the header is no JSON") from error
    if not isinstance(table, dict):
        raise _damaged(path, "the header is no table")
    entries = cast("dict[str, Any]", table)
    metadata = entries.pop("__metadata__", {})
    if not _is_text(metadata):
        raise _damaged(path, "'__metadata__' is no table of text")
    begin = 8 + len(text)
    tensors = {name: _tensor(path, name, entry, begin) for name, entry in entries.items()}
    _check_ranges(path, tensors, begin, size)
    return tensors, metadata


def open_safetensors(path: Path) -> tuple[dict[str, Span], dict[str, str]]:
    """Tensors by name and the free text of the header, of a file of weights.

    Raises:
        CheckpointError: as `read_safetensors_header`, or without tensors.
    """
    tensors, metadata = read_safetensors_header(path)
    check_names(path, tensors)
    check_room(path, path.stat().st_size, tensors.values())
    return tensors, metadata


def _header(path: Path) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if length < 2 or length > min(HEADER_LIMIT, size - 8):
                raise _damaged(path, NO_HEADER)
            text = file.read(length)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
    if len(text) != length or text[:1] != b"{":
        raise _damaged(path, NO_HEADER)
    if text.count(b"{") + text.count(b"[") > BRACKETS:
        raise _damaged(path, "the header is too large")
    return size, text


def _tensor(path: Path, name: str, entry: object, begin: int) -> Span:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    match fields.get("dtype"), fields.get("data_offsets"):
        case str(kind), [int(first), int(last)]:
            pass
        case _:
            raise _damaged(path, f"tensor {shown(name)} is not described")
    if kind not in DTYPES:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has type {shown(kind)}; {', '.join(DTYPES)} are read"
        )
    try:
        shape = check_shape(fields.get("shape"))
    except CheckpointError as error:
        raise _damaged(path, f"tensor {shown(name)}: {error}") from error
    if not 0 <= first <= last or last - first != math.prod(shape) * DTYPES[kind].itemsize:
        raise _damaged(path, f"tensor {shown(name)} has not the size of its shape")
    return Span(path=path, name=name, start=begin + first, shape=shape, dtype=DTYPES[kind])


def _check_ranges(path: Path, tensors: Mapping[str, Span], begin: int, size: int) -> None:
    """Every byte belongs to one tensor."""
    end = begin
    for start, length, name in sorted(
        (t.start, math.prod(t.shape) * t.dtype.itemsize, name) for name, t in tensors.items()
    ):
        if start != end:
            raise _damaged(path, f"tensor {shown(name)} does not follow the one before")
        end = start + length
    if end != size:
        raise _damaged(path, f"tensors end at byte {end} of {size}")


def _is_text(metadata: object) -> bool:
    if not isinstance(metadata, dict):
        return False
    table = cast("dict[object, object]", metadata)
    return all(isinstance(value, str) for value in table.values())


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or truncated ({what})")
