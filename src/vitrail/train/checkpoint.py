"""Checkpoints of a run (contract 4): whole or not there, found again after any interruption.

In the folder `checkpoints`:

- `step-S-E-B/`: one folder a checkpoint, after S steps, in epoch E, with B of its batches done
    - `tensors.safetensors`: weights, optimizer moments, moving average
    - `state.json`: where training stands
    - `sha256.json`: hashes of the two
- `latest`: name of the newest one and the hash of its sha256.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitrail.config import Config
from vitrail.errors import ModelFileError
from vitrail.types import Skipped
from vitrail.weights.modelfile import sync_folder, write_atomically

KEEP = 2
"""Checkpoints that are kept: the newest, and the one before it in case that is damaged."""


class Position(Config):
    """Where training stands. The data stream itself is (epoch, batch) and nothing more.

    Attributes:
        epoch: Epoch, from 0.
        batch: Batches of it that are done.
        step: Optimizer steps done in the whole run.
        loss_sum: Sum of the losses of this epoch's samples.
        loss_count: Samples in that sum.
        best: Best value of the selection metric so far.
        best_epoch: Its epoch, or -1.
        seconds: Time spent training, over all interruptions.
        finished: Whether the run has ended.
        skipped: Samples of the training part that could not be read, so far.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    finished: bool = False
    skipped: dict[str, str] = Field(default_factory=dict[str, str])

    def with_skipped(self, skipped: tuple[Skipped, ...]) -> dict[str, str]:
        """The list with further samples in it."""
        return self.skipped | {sample.id: sample.reason for sample in skipped}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        path: Its folder.
        tensors: Weights, optimizer moments, moving average.
        position: Where training stood.
        note: A sentence, if a newer one is damaged and this is the one before.
    """

    path: Path
    tensors: dict[str, Tensor]
    position: Position
    note: str | None


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], position: Position) -> Path:
    """Write a checkpoint, then move `latest` to it, then drop the old ones.

    Raises:
        ModelFileError: the disk is full or cannot be written; what was there stays.
    """
    name = f"step-{position.step:08d}-{position.epoch:05d}-{position.batch:08d}"
    while (folder / name).exists():
        name += "+"  # never replaced in place: `latest` may point to it
    target, beside = folder / name, folder / f".{name}.{os.getpid()}"
    parts = {
        "tensors.safetensors": save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}),
        "state.json": position.model_dump_json().encode(),
    }
    manifest = json.dumps({key: _sha256(data) for key, data in parts.items()}).encode()
    try:
        _drop(folder.glob(".step-*"))
        beside.mkdir(parents=True)
        for key, data in (parts | {"sha256.json": manifest}).items():
            with (beside / key).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(beside)
        beside.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise ModelFileError(
            f"{target}: cannot write a checkpoint ({error.strerror}); free space, then --resume"
        ) from error
    write_atomically(folder / "latest", f"{name} {_sha256(manifest)}\n".encode())
    # One with a later name is left from before a damage, when training had come further.
    names = _names(folder)
    last = names.index(name) + 1
    _drop(folder / old for old in names if old not in names[max(last - KEEP, 0) : last])
    return target


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none at all.

    Raises:
        ModelFileError: there are checkpoints, and all of them are damaged.
    """
    damage: list[str] = []
    for name, promised in _candidates(folder):
        try:
            tensors, position = _read(folder / name, promised)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damage.append(f"checkpoint {name} is damaged ({error})")
            continue
        note = f"{'; '.join(damage)}; going on from {name}" if damage else None
        return Checkpoint(folder / name, tensors, position, note)
    if damage:
        raise ModelFileError(f"{folder}: no whole checkpoint: {'; '.join(damage)}; train afresh")
    return None


def _read(path: Path, promised: str | None) -> tuple[dict[str, Tensor], Position]:
    manifest = (path / "sha256.json").read_bytes()
    if promised is not None and _sha256(manifest) != promised:
        raise ValueError("sha256.json is not what `latest` promises")
    hashes: dict[str, Any] = json.loads(manifest)
    parts = {key: (path / key).read_bytes() for key in ("tensors.safetensors", "state.json")}
    for key, data in parts.items():
        if _sha256(data) != hashes[key]:
            raise ValueError(f"{key} does not match its hash")
    position = Position.model_validate_json(parts["state.json"])
    return load(parts["tensors.safetensors"]), position


def _candidates(folder: Path) -> list[tuple[str, str | None]]:
    """Checkpoints from the one that `latest` names backwards, each with its promised hash."""
    names = _names(folder)[::-1]
    try:
        name, promised = (folder / "latest").read_text().split()
    except (OSError, ValueError):
        return [(name, None) for name in names]
    # A checkpoint newer than `latest` was renamed just before the kill: it is whole as well, but
    # the pointer decides, so that what was promised is what is read.
    return [(name, promised), *((other, None) for other in names if other != name)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*") if path.is_dir())


def _drop(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
