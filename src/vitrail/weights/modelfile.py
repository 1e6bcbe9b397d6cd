"""The sealed model file (contract 2): one .safetensors with weights and a JSON header.

The header stands in safetensors' own metadata under the key `vitrail`. Nothing else is needed to
predict. A contradiction is an error that names itself; no pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from vitrail import __version__
from vitrail.backbones import VARIANTS
from vitrail.config import Config, build
from vitrail.errors import CheckpointError, ConfigError, ModelFileError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.build import assign, empty_model, on_meta
from vitrail.weights.files.safetensors_file import HEADER_LIMIT, NO_HEADER, read_safetensors_header
from vitrail.weights.files.span import Span

FORMAT_VERSION = 1


class Certificate(Config):
    """That the weights gave the numbers of a reference.

    Attributes:
        verdict: `equal`, or `whole` where nothing was compared.
        reference: What the outputs were compared with.
        max_abs: Largest absolute difference of each output.
        versions: Versions that it was found with.
    """

    verdict: str
    reference: str
    max_abs: dict[str, float]
    versions: dict[str, str]


class Provenance(Config):
    """Where a model comes from and how good it is.

    Attributes:
        data: Name of the data it was trained on.
        fingerprint: Hash of ids, labels and sizes of that data.
        seed: Seed of training and split.
        metrics: Metrics on the test split of that data.
        intervals: Bootstrap 95 % intervals of the headline metrics.
        recipe: The recipe it was trained with, as a table.
        versions: Versions of vitrail, torch, numpy and Python.
        licence: Licence of the weights.
        certificate: What `vitrail verify --seal` found; None where it was not asked.
    """

    data: str = ""
    fingerprint: str = ""
    seed: int = 0
    metrics: dict[str, float] = Field(default_factory=dict[str, float])
    intervals: dict[str, tuple[float, float]] = Field(
        default_factory=dict[str, tuple[float, float]]
    )
    recipe: dict[str, Any] = Field(default_factory=dict[str, Any])
    versions: dict[str, str] = Field(default_factory=dict[str, str])
    licence: str = "not stated"
    certificate: Certificate | None = None


class Header(Config):
    """The JSON header of a model file."""

    format_version: int = Field(ge=1)
    config: ModelConfig
    provenance: Provenance


def save_model(model: Model, path: Path, provenance: Provenance) -> Path:
    """Write a model file atomically: it is whole or not there.

    Raises:
        ModelFileError: the disk is full or the folder cannot be written.
    """
    header = Header(
        format_version=FORMAT_VERSION, config=model.config, provenance=provenance
    ).model_dump_json()
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    seal = _seal(header, tensors)
    write_atomically(path, save(tensors, {"vitrail": header, "sha256": seal}))
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename, fsync the folder.

    Raises:
        ModelFileError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot write ({error.strerror}); free space or give another --out"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_header(path: Path) -> Header:
    """The header of a model file, checked, without reading the weights.

    Raises:
        ModelFileError: missing, damaged, truncated, no vitrail file, or of a newer format.
    """
    return _parse(path, _open(path)[1])


def _parse(path: Path, metadata: dict[str, str]) -> Header:
    if "vitrail" not in metadata:
        raise ModelFileError(
            f"{path}: weights without a vitrail header; a published checkpoint becomes a model "
            f"file by `vitrail convert {path} --to vitrail`"
        )
    try:
        table = json.loads(metadata["vitrail"])
        version = int(table["format_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path}: the vitrail header is damaged ({error!r})") from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: model file of format {version}, this vitrail reads up to {FORMAT_VERSION}; "
            "upgrade with `pip install --upgrade vitrail`"
        )
    try:
        return build(Header, table, source=f"{path}: header")
    except ConfigError as error:
        raise ModelFileError(str(error)) from error


def load_model(path: Path) -> tuple[Model, Provenance]:
    """Read a model file; the model is in evaluation mode on the CPU.

    Every tensor is read once, into the memory that the model then owns.

    Raises:
        ModelFileError: as `read_header`, or the weights contradict the header; the first tensor
            that is missing, unknown or of another shape is named.
    """
    spans, metadata = _open(path)
    header = _parse(path, metadata)
    # On the meta device first: a header that promises a giant takes no memory.
    with on_meta():
        wanted = Model(header.config).state_dict()
    if isinstance(header.config.task, ClassifyConfig):
        _check_classes(path, len(header.config.task.classes), spans)
    _check_tensors(path, wanted, spans)
    tensors = _read(path, spans)
    if metadata.get("sha256", "") not in ("", _seal(metadata["vitrail"], tensors)):
        raise ModelFileError(
            f"{path}: damaged: the checksum in the file is not that of its content"
        )
    return assign(empty_model(header.config), tensors).eval(), header.provenance


def _seal(header: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of header and weights: a flipped bit is an error, not another model."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_model_file(path: Path) -> bool:
    """Whether a file is one of ours: safetensors with our header. It need not be whole."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = file.read(min(length, HEADER_LIMIT))
    except OSError:
        return False
    return head.startswith(b"{") and b'"vitrail"' in head and b'"__metadata__"' in head


def resolve_model(model: str) -> Path:
    """The model file that a person means: the file itself, or the one in a run folder.

    Raises:
        ModelFileError: nothing there, a run that has not finished, or a variant without weights.
    """
    path = Path(model)
    if path.is_dir():
        inside = path / "model.safetensors"
        if inside.is_file():
            return inside
        unfinished = (path / "run.json").is_file()
        way_out = f"finish it with `vitrail train --resume --out {path}`" if unfinished else ""
        raise ModelFileError(f"{path}: no model.safetensors in this folder; {way_out}".rstrip("; "))
    if not path.exists() and model in VARIANTS:
        raise ModelFileError(f"'{model}' is a variant without weights; give a model file or a run")
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file or run folder")
    return path


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "vitrail": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _open(path: Path) -> tuple[dict[str, Span], dict[str, str]]:
    try:
        return read_safetensors_header(path)
    except CheckpointError as error:
        if NO_HEADER not in str(error):
            raise ModelFileError(str(error)) from error
        raise ModelFileError(
            f"{path}: no model file, or damaged or truncated; a published checkpoint becomes one "
            f"by `vitrail convert {path} --to vitrail`"
        ) from error


def _read(path: Path, spans: dict[str, Span]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, span in spans.items():
        try:
            tensors[name] = span.read()
        except CheckpointError as error:
            raise ModelFileError(str(error)) from error
        if span.dtype.is_floating_point and not bool(torch.isfinite(tensors[name]).all()):
            raise ModelFileError(f"{path}: tensor '{name}' holds NaN or infinity")
    return tensors


def _check_classes(path: Path, count: int, found: dict[str, Span]) -> None:
    bias = found.get("task.head.bias")
    if bias is not None and bias.shape != (count,):
        outputs = math.prod(bias.shape)
        raise ModelFileError(
            f"{path}: the header names {count} classes, the head has {outputs} outputs"
        )


def _check_tensors(path: Path, wanted: dict[str, Tensor], found: dict[str, Span]) -> None:
    for name in sorted(wanted.keys() - found.keys()):
        raise ModelFileError(f"{path}: tensor '{name}' is missing")
    for name in sorted(found.keys() - wanted.keys()):
        raise ModelFileError(f"{path}: tensor '{name}' is not part of the model in the header")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise ModelFileError(
                f"{path}: tensor '{name}' has shape {tensor.shape}, "
                f"the header's model wants {tuple(wanted[name].shape)}"
            )
        if tensor.dtype.is_floating_point != wanted[name].is_floating_point():
            raise ModelFileError(
                f"{path}: tensor '{name}' holds {tensor.dtype}, not numbers to use"
            )
