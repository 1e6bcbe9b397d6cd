"""Logs: rows survive a kill, and none is written twice."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from small_disk import small_disk
from vitrail.errors import UserError
from vitrail.train.checkpoint import Position
from vitrail.train.log import MetricsLog, read_metrics, write_quarantine


def write_two_epochs(run: Path) -> None:
    log = MetricsLog(run, Position())
    for epoch in (0, 1):
        for step in (1, 2):
            row = {"kind": "step", "epoch": epoch, "step": 2 * epoch + step, "loss": 0.5}
            log.write(row)
        log.write({"kind": "epoch", "epoch": epoch, "step": 2 * epoch + 2, "val": {"top1": 0.9}})
    log.close()


def kept(run: Path, at: Position) -> list[tuple[str, int]]:
    MetricsLog(run, at).close()
    return [(row["kind"], row["step"]) for row in read_metrics(run / "metrics.jsonl")]


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    write_two_epochs(tmp_path)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    rows = [("step", 1), ("step", 2), ("epoch", 2), ("step", 3)]
    assert kept(tmp_path, Position(epoch=1, batch=1, step=3)) == rows
    assert kept(tmp_path, Position(epoch=1, batch=0, step=2)) == rows[:3]
    assert kept(tmp_path, Position(epoch=0, batch=2, step=2)) == rows[:2], "not yet validated"
    assert kept(tmp_path, Position()) == []


def test_tensorboard_can_read_it(tmp_path: Path) -> None:
    """The records as TensorBoard's format defines them: length, checksum, event, checksum."""
    write_two_epochs(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
        events.append(event_pb2.Event.FromString(body))
        data = data[16 + length :]
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (1, event_pb2.SessionLog.START)
    scalars = [(e.step, v.tag, round(v.simple_value, 3)) for e in events for v in e.summary.value]
    assert scalars[:3] == [(1, "loss", 0.5), (2, "loss", 0.5), (2, "val/top1", 0.9)]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        log = MetricsLog(disk, Position())
        row = {"kind": "step", "epoch": 0, "step": 1, "text": "x" * 9000}
        with pytest.raises(UserError, match=r"metrics\.jsonl: cannot write \(No space left"):
            log.write(row)
        log.close()


def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    write_two_epochs(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert len(read_metrics(path)) == 5
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_quarantine(tmp_path: Path) -> None:
    write_quarantine(tmp_path, {"train": {"b.png": "cut, off", "a.png": 'a "bad" one'}, "val": {}})
    with (tmp_path / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["split", "id", "reason"],
        ["train", "a.png", 'a "bad" one'],
        ["train", "b.png", "cut, off"],
    ]
