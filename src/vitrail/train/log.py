"""What a run writes while it goes: metrics.jsonl, TensorBoard files, quarantine.csv."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]

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
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=at.step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; numbers in it become TensorBoard scalars."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        scalars = {key: value for key, value in row.items() if isinstance(value, float)}
        scalars |= {f"val/{key}": value for key, value in row.get("val", {}).items()}
        for key, value in scalars.items():
            self._board.add_scalar(  # pyright: ignore[reportUnknownMemberType]
                key, value, row["step"]
            )

    def close(self) -> None:
        """Finish both files."""
        self._file.close()
        self._board.close()


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
