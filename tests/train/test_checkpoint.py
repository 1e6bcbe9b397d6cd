"""Checkpoints: whatever happens while one is written, a whole one is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_disk import small_disk
from vitrail.errors import ModelFileError
from vitrail.train.checkpoint import Position, load_checkpoint, save_checkpoint

CALLS = [
    (os, "fsync"),
    (os, "open"),
    (os, "close"),
    (Path, "mkdir"),
    (Path, "open"),
    (Path, "rename"),
    (Path, "replace"),
    (shutil, "rmtree"),
]
"""All ways in which saving touches the disk; writes and flushes lie between them."""


def tensors(value: float) -> dict[str, Tensor]:
    return {"model/w": torch.full((3, 2), value), "optimizer/0/step": torch.tensor(value)}


def save(folder: Path, step: int, **changes: Any) -> Path:
    return save_checkpoint(
        folder, tensors(step), Position(step=step, epoch=1, batch=step, **changes)
    )


def read(folder: Path) -> int:
    """The step of the checkpoint that is found, after a look at its tensors."""
    found = load_checkpoint(folder)
    assert found is not None
    step = found.position.step
    assert set(found.tensors) == set(tensors(step))
    assert all(torch.equal(found.tensors[key], value) for key, value in tensors(step).items())
    return step


class Kill(BaseException):
    """Like `kill -9`: nothing in the product catches it."""


def arm(monkeypatch: pytest.MonkeyPatch, at: int, error: Callable[[], BaseException]) -> list[int]:
    """Make the call number `at` to the file system raise; returns a counter of the calls."""
    count = [0]

    def wrap(function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if count[0] == at:
                count[0] += 1
                raise error()
            if count[0] > at and error is Kill:
                raise Kill  # a dead process touches nothing any more
            count[0] += 1
            return function(*args, **kwargs)

        return counted

    for owner, name in CALLS:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    return count


def save_and_die(folder: Path, step: int, at: int, **changes: Any) -> None:
    """Save, and be killed at the call number `at`, or after the last one."""
    with pytest.MonkeyPatch.context() as patch, suppress(Kill):
        arm(patch, at, Kill)
        save(folder, step, **changes)


def calls_of_a_save(tmp_path: Path) -> int:
    folder = tmp_path / "count"
    save(folder, 1)
    save(folder, 2)
    with pytest.MonkeyPatch.context() as patch:
        count = arm(patch, 10**9, Kill)
        save(folder, 3)
    return count[0]


def test_nothing_there(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    assert load_checkpoint(tmp_path / "empty") is None


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    position = Position(
        epoch=3, batch=4, step=5, loss_sum=0.1, loss_count=7, best=0.3, best_epoch=2,
        seconds=1.5, skipped={"a.png": "truncated"},
    )  # fmt: skip
    path = save_checkpoint(tmp_path, tensors(5), position)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.path, found.position, found.note) == (path, position, None)
    assert read(tmp_path) == 5


def test_two_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step)
    assert len(list(tmp_path.glob("step-*"))) == 2
    assert read(tmp_path) == 4


@pytest.mark.parametrize("earlier", [1, 2], ids=["first", "later"])
def test_a_kill_at_any_call_leaves_the_old_or_the_new(tmp_path: Path, earlier: int) -> None:
    total = calls_of_a_save(tmp_path)
    assert total > 10, "the calls are seen"
    seen = set()
    for at in range(total):
        folder = tmp_path / str(at)
        for step in range(1, earlier + 1):
            save(folder, step)
        save_and_die(folder, 9, at)
        seen.add(read(folder))
        save(folder, 10)
        assert read(folder) == 10, "training goes on after it"
        left = {path.name for path in folder.iterdir()}
        assert not any(name.startswith(".step") for name in left), "and clears up"
    assert seen == {earlier, 9}


def test_a_kill_in_the_very_first_save_is_a_fresh_start_or_whole(tmp_path: Path) -> None:
    for at in range(calls_of_a_save(tmp_path)):
        folder = tmp_path / str(at)
        save_and_die(folder, 1, at)
        found = load_checkpoint(folder)
        assert found is None or read(folder) == 1


def test_a_kill_while_the_same_position_is_saved_again(tmp_path: Path) -> None:
    """A signal may ask for a checkpoint just after one was made: the one there must survive."""
    for at in range(calls_of_a_save(tmp_path)):
        folder = tmp_path / str(at)
        save(folder, 1, seconds=1.0)
        save_and_die(folder, 1, at, seconds=2.0)
        assert read(folder) == 1


def test_the_same_position_again_is_the_newer_one(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0, 3.0):
        save(tmp_path, 1, seconds=seconds)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.position.seconds == 3.0
    save(tmp_path, 2)
    assert read(tmp_path) == 2


def test_an_error_at_any_call_is_a_user_error_and_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    for at in range(calls_of_a_save(tmp_path)):
        folder = tmp_path / str(at)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, at, lambda: OSError(28, "No space left on device"))
            with suppress(ModelFileError):
                save(folder, 9)
        assert read(folder) in {1, 9}


def damage(path: Path, part: str) -> None:
    file = path / part
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


PARTS = ["tensors.safetensors", "state.json", "sha256.json"]


@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(tmp_path: Path, part: str) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2), part)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.position.step == 1
    assert found.note is not None
    assert "step-00000002-00001-00000002 is damaged" in found.note
    assert "going on from step-00000001" in found.note


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{}", b"\xff", b'{"state.json": 1}'])
def test_a_manifest_of_any_content_is_no_crash(tmp_path: Path, text: bytes) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "sha256.json").write_bytes(text)
    (tmp_path / "latest").unlink()  # so that nothing promises a hash
    assert read(tmp_path) == 1


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_damage(tmp_path: Path, part: str) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / part).unlink()
    assert read(tmp_path) == 1


@pytest.mark.parametrize("text", ["", "nonsense", "a b c", "step-99999999 00"])
def test_a_damaged_pointer_is_no_loss(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").write_text(text)
    assert read(tmp_path) == 2


def test_all_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        damage(save(tmp_path, step), "state.json")
    with pytest.raises(ModelFileError, match=r"no whole checkpoint: .*train afresh"):
        load_checkpoint(tmp_path)


def test_after_a_damage_the_new_ones_are_kept_not_the_damaged(tmp_path: Path) -> None:
    save(tmp_path, 10)
    damage(save(tmp_path, 100), "state.json")
    assert read(tmp_path) == 10
    for step in (20, 30):
        save(tmp_path, step)
        assert read(tmp_path) == step
    names = sorted(path.name[:13] for path in tmp_path.glob("step-*"))
    assert names == ["step-00000020", "step-00000030"]


def test_a_full_disk_is_one_line_and_the_old_one_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        _fill(disk / "checkpoints")


def _fill(folder: Path) -> None:
    save(folder, 1)
    large = {"w": torch.zeros(1 << 20)}
    with pytest.raises(ModelFileError, match=r"No space left on device.*free space") as caught:
        save_checkpoint(folder, large, Position(step=2))
    assert "\n" not in str(caught.value)
    assert read(folder) == 1
    assert {path.name[:13] for path in folder.iterdir()} == {"latest", "step-00000001"}
    save(folder, 3)
    assert read(folder) == 3
