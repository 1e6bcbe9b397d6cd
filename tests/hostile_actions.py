"""What is done with hostile checkpoints, and what must not be: the harness looks for that."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.weights.load import load_checkpoint
from vitrail.weights.reader import Given


def loads(path: Path) -> None:
    """All of it: the format, the model, every tensor. Heads are given, since few files tell."""
    given = Given(backbone={} if path.is_dir() else {"heads": 4})
    load_checkpoint(path, given)


def executes(path: Path) -> None:
    """Run a command."""
    os.system(f"test -e {path}")


def writes(path: Path) -> None:
    """Write a file."""
    (path.parent / "written").write_text("x", encoding="utf-8")


def fails(path: Path) -> None:
    """Raise what is no error of the user."""
    raise KeyError(path)


def dies(path: Path) -> None:
    """End the process."""
    os._exit(3)


def bloats(path: Path) -> None:
    """Take far more memory than the file."""
    data = bytearray(300 << 20)
    data[::4096] = bytes(300 << 8)
