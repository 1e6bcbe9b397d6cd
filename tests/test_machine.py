"""What a container leaves of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vitrail.machine import read_text, usable_cores, usable_memory

KIB = 1024
MEMINFO = "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    5000 kB\n"


def write(folder: Path, **texts: str) -> Path:
    """Files whose names have a dot in place of the first underscore."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


def own() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@pytest.mark.parametrize("text", ["max 100000\n", "", "9900000 100000\n"])
def test_without_a_lower_limit_all_own_cores(tmp_path: Path, text: str) -> None:
    assert usable_cores(write(tmp_path, cpu_max=text)) == own()


def test_the_quota_of_a_container(tmp_path: Path) -> None:
    assert usable_cores(write(tmp_path, cpu_max="50000 100000\n")) == 0.5


def test_the_quota_of_an_old_container(tmp_path: Path) -> None:
    write(tmp_path / "cpu", cpu_cfs_quota_us="25000\n", cpu_cfs_period_us="100000\n")
    assert usable_cores(tmp_path) == 0.25
    write(tmp_path / "cpu", cpu_cfs_quota_us="-1\n")
    assert usable_cores(tmp_path) == own()


def test_memory_of_the_machine(tmp_path: Path) -> None:
    meminfo = write(tmp_path, mem_info=MEMINFO) / "mem.info"
    assert usable_memory(tmp_path / "none", meminfo) == (8000 * KIB, 5000 * KIB)
    assert usable_memory(tmp_path, tmp_path / "none") == (0, 0)
    write(tmp_path, memory_max="max\n", memory_current="17\n")
    assert usable_memory(tmp_path, meminfo) == (8000 * KIB, 5000 * KIB)


@pytest.mark.parametrize(
    ("current", "free"), [("1000", 3500), ("4500", 0), ("4000", 500)], ids=["free", "full", "cache"]
)
def test_memory_of_a_container(tmp_path: Path, current: str, free: int) -> None:
    """500 bytes of cached files can be had back."""
    meminfo = write(tmp_path, mem_info=MEMINFO) / "mem.info"
    stat = "anon 1\ninactive_file 500\n"
    write(tmp_path, memory_max="4000\n", memory_current=current, memory_stat=stat)
    assert usable_memory(tmp_path, meminfo) == (4000, free)


def test_memory_of_an_old_container(tmp_path: Path) -> None:
    meminfo = write(tmp_path, mem_info=MEMINFO) / "mem.info"
    write(tmp_path / "memory", memory_limit_in_bytes="4000", memory_usage_in_bytes="1000")
    assert usable_memory(tmp_path, meminfo) == (4000, 3000)


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_text(tmp_path / "none") == ""
