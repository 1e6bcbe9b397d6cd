"""A process that watches what hostile checkpoints do to a function that opens them.

`run` reports whatever is not a `UserError`: another exception, a crash, something executed or
written, too much memory, too much time.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hostile_files import Case, mutants
from vitrail.errors import UserError
from vitrail.weights.files.containers import open_checkpoint

EXTRA_MEMORY = 200 << 20
SECONDS = 2.0


def open_and_read(path: Path) -> None:
    """Everything that a container has; all tensors are kept at once, in float32."""
    kept = [stored.read() for stored in open_checkpoint(path).tensors.values()]
    kept = [tensor.float() if tensor.is_floating_point() else tensor for tensor in kept]
    del kept


@dataclass
class Report:
    """What became of many cases.

    Attributes:
        opened: How many were read without an error.
        refused: How many were refused, by the beginning of the message.
        faults: Whatever must not be, as text.
        slowest: Seconds of the slowest.
        largest: Bytes beyond twice the file of the one that took most memory.
    """

    opened: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = -(1 << 62)


FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
EXECUTED: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what is executed, connected to or written."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3
    if event in FORBIDDEN or event.startswith(("socket.", "ctypes.")) or writes:
        EXECUTED.append(f"{event} {arguments}")


def _memory(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{key}:")[1].split()[0]) << 10


def _forget_peak() -> None:
    descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
    os.write(descriptor, b"5")
    os.close(descriptor)


def _batch(action: Callable[[Path], None], cases: list[Case], folder: Path, results: Any) -> None:
    """The work of one process."""
    torch.set_num_threads(1)
    for case in cases[:3]:  # whatever is imported when first used is not the file's doing
        _store(case, folder / "warm")
        with suppress(Exception):
            action(_target(case, folder / "warm"))
    tempfile.gettempdir()  # tries once where it may write
    sys.addaudithook(_watch)
    report = Report()
    for number, case in enumerate(cases):
        where = folder / "case"
        shutil.rmtree(where, ignore_errors=True)
        _store(case, where)
        if fault := _try(action, case, where, report):
            kept = folder.parent / f"fault-{folder.name}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(where, kept)
            report.faults.append(f"{kept}: {fault[-1000:]}")
            if len(report.faults) == 20:  # a pipe holds no more, and it is enough
                break
    results.put(report)


def _try(action: Callable[[Path], None], case: Case, where: Path, report: Report) -> str:
    """What one case does that it must not; empty if nothing."""
    size = sum(len(data) for data in case.values())
    _forget_peak()
    before, started, fault = _memory("VmRSS"), time.process_time(), ""
    EXECUTED.clear()
    try:
        action(_target(case, where))
        report.opened += 1
    except UserError as error:
        report.refused += 1
        if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
            fault = f"not one line: {str(error)[:300]!r}"
    except BaseException:  # noqa: BLE001
        fault = traceback.format_exc(limit=-4)
    if EXECUTED:
        fault = f"executed {EXECUTED[:3]}"
    seconds, taken = time.process_time() - started, _memory("VmHWM") - before - 2 * size
    report.slowest, report.largest = max(report.slowest, seconds), max(report.largest, taken)
    if taken > EXTRA_MEMORY:
        fault = f"{taken >> 20} MiB beyond twice the file"
    return f"{seconds:.1f} s" if seconds > SECONDS else fault


def _store(case: Case, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in case.items():
        (folder / name).write_bytes(data)


def _target(case: Case, folder: Path) -> Path:
    first = next(iter(case))
    return folder if first == "config.json" else folder / first


def run(
    action: Callable[[Path], None],
    count: int,
    folder: Path,
    *,
    seed: int = 0,
    given: list[Case] | None = None,
    batch: int = 250,
) -> Report:
    """Give many hostile cases to a function, in processes that are watched.

    Args:
        action: Opens a path; anything but a `UserError` is a fault. It must be importable.
        count: How many cases.
        folder: To work in; cases at fault are kept there.
        seed: Of the cases.
        given: Sound cases to start from; those of `bases` by default.
        batch: Cases a process.
    """
    context = multiprocessing.get_context("spawn")
    sentinel = folder / "executed"
    stream = mutants(seed, sentinel, given)
    total = Report()
    for start in range(0, count, batch):
        cases = [next(stream) for _ in range(min(batch, count - start))]
        results = context.SimpleQueue()
        place = folder / f"batch{start}"
        place.mkdir(parents=True, exist_ok=True)
        process = context.Process(target=_batch, args=(action, cases, place, results))
        process.start()
        process.join(timeout=600)
        if process.exitcode != 0:
            process.kill()
            total.faults.append(f"{place}: the process ended with {process.exitcode}")
            continue
        report: Report = results.get()
        total.opened += report.opened
        total.refused += report.refused
        total.faults += report.faults
        total.slowest = max(total.slowest, report.slowest)
        total.largest = max(total.largest, report.largest)
        shutil.rmtree(place)
    if sentinel.exists():
        total.faults.append("something was executed")
    return total
