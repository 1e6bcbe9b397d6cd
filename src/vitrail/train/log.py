"""What a run writes while it goes: metrics.jsonl, TensorBoard files, quarantine.csv."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from tensorboardX import RecordWriter  # pyright: ignore[reportMissingTypeStubs]
from tensorboardX.proto import event_pb2, summary_pb2  # pyright: ignore[reportMissingTypeStubs]

from vitrail.errors import UserError
from vitrail.train.checkpoint import Position
from vitrail.weights.modelfile import write_atomically


class MetricsLog:
    """Rows of metrics.jsonl, and the same figures for TensorBoard.

    Args:
        run: The run folder.
        at: Where training stands: later rows are dropped, for they will be made again.
    """

    def __init__(self, run: Path, at: Position) -> None:
        self.path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if _is_before(row, at)]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _EventFile(run / "tensorboard", at.step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; numbers in it become TensorBoard scalars.

        Raises:
            UserError: the disk is full.
        """
        scalars = {key: value for key, value in row.items() if isinstance(value, float)}
        scalars |= {f"val/{key}": value for key, value in row.get("val", {}).items()}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            self._board.write(row["step"], scalars)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write ({error.strerror}); free space, then --resume"
            ) from error

    def close(self) -> None:
        """Finish both files. Each row was written through, so that nothing can be lost here."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._board.close()


class _EventFile:
    """A TensorBoard event file.

    tensorboardX's own writer has a thread, in which a full disk ends in a traceback; its records
    written from here raise the error where it can be dealt with.

    Args:
        folder: Where event files lie; each start of a run makes its own.
        step: TensorBoard forgets what earlier files say from this step on.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.0f}.{os.getpid()}"
        self._records = cast("Any", RecordWriter)(str(path))
        self._add(file_version="brain.Event:2")
        start = cast("Any", event_pb2).SessionLog(status=cast("Any", event_pb2).SessionLog.START)
        self._add(step=step, session_log=start)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Write scalars through to the disk."""
        summary = cast("Any", summary_pb2).Summary
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(step=step, summary=summary(value=values))
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _add(self, **fields: Any) -> None:
        event = cast("Any", event_pb2).Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())


def _is_before(row: dict[str, Any], at: Position) -> bool:
    """An epoch is measured after its last step, so that the step alone does not tell."""
    return row["step"] <= at.step and (row["kind"] != "epoch" or row["epoch"] < at.epoch)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut off by a kill is left out."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write_quarantine(run: Path, skipped: dict[str, dict[str, str]]) -> None:
    """List the samples that could not be used.

    Args:
        run: The run folder.
        skipped: Reasons by id by split.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "id", "reason"])
    for split, reasons in skipped.items():
        writer.writerows([split, name, reason] for name, reason in sorted(reasons.items()))
    write_atomically(run / "quarantine.csv", text.getvalue().encode())
