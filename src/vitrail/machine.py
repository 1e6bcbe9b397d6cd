"""What this process may use of the machine: cores and memory, as its container limits them."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows the control groups of a container."""

MEMINFO = Path("/proc/meminfo")


def usable_cores(cgroup: Path = CGROUP) -> float:
    """Cores that this process may use: affinity and the quota of its container count.

    Args:
        cgroup: Where the control groups are mounted.
    """
    cores = float(os.cpu_count() or 1)
    if sys.platform == "linux":
        cores = float(len(os.sched_getaffinity(0)))
    return min(cores, _quota(cgroup))


def _quota(cgroup: Path) -> float:
    first = read_text(cgroup / "cpu.max").split()
    second = [
        read_text(cgroup / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    quota, period = first if len(first) == 2 else second
    if not quota.isdecimal() or not period.isdecimal():  # `max`, `-1` or no such file: no limit
        return math.inf
    return int(quota) / int(period)


def usable_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> tuple[int, int]:
    """Bytes of memory in all and still free: of the machine or its container, whichever is less.

    Args:
        cgroup: Where the control groups are mounted.
        meminfo: The kernel's list of the machine's memory.

    Returns:
        (0, 0) where the system does not say.
    """
    entries = dict(line.split(":", 1) for line in read_text(meminfo).splitlines() if ":" in line)
    if not {"MemTotal", "MemAvailable"} <= entries.keys():
        return 0, 0
    total, free = (int(entries[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    for folder, limit, used, cache in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (
            *(cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    ):
        bound, taken = read_text(folder / limit).strip(), read_text(folder / used).strip()
        if bound.isdecimal() and taken.isdecimal() and int(bound) < total:
            # Cached files count as used, but give way when memory is asked for.
            stat = dict(line.split() for line in read_text(folder / "memory.stat").splitlines())
            room = int(bound) - int(taken) + int(stat.get(cache, 0))
            return int(bound), max(min(free, room), 0)
    return total, free


def read_text(path: Path) -> str:
    """The text of a system file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def keep_freed_memory() -> bool:
    """Ask malloc to keep what is freed instead of handing it back to the kernel.

    A training step frees and takes the same gigabytes again and again; each time they come back
    the kernel maps and clears every page anew, about 2 % of a step on a CPU. The peak of the
    process stays what it is. Only glibc has this switch; it holds for the whole process.

    Returns:
        Whether it was switched.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    threshold = 1 << 30
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, threshold)) and bool(
        libc.mallopt(_M_TRIM_THRESHOLD, threshold * 2 - 1)
    )


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of the two parameters in glibc's malloc.h."""
