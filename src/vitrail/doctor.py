"""Is this machine fit? Each part is tried, not only looked up; nothing here needs the network."""

from __future__ import annotations

import importlib.metadata
import io
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from vitrail.config import Config
from vitrail.machine import read_text, usable_cores, usable_memory

if TYPE_CHECKING:
    import torch
    from packaging.requirements import Requirement

Status = Literal["ok", "warn", "fail"]

GIB = 1024**3

_CPUINFO = Path("/proc/cpuinfo")
_ATTENTION_TOLERANCE = 1e-3
_JPEG_TOLERANCE = 2


class Row(Config):
    """One thing that was looked at.

    Attributes:
        name: What.
        value: What was found.
        status: `fail` stops vitrail from working, `warn` makes it slow or will stop some of it.
        advice: The way out, where there is something to do.
    """

    name: str
    value: str
    status: Status = "ok"
    advice: str = ""


class Diagnosis(Config):
    """All that `doctor` looked at.

    Attributes:
        rows: In the order software, processor, memory, disk, trials.
    """

    rows: tuple[Row, ...]

    @property
    def fit(self) -> bool:
        """Whether nothing failed."""
        return all(row.status != "fail" for row in self.rows)


def doctor() -> Diagnosis:
    """Look at this machine: versions, devices, threads, memory, disk, and two trials.

    A part that breaks becomes a failed row; the others are still looked at.
    """
    parts: tuple[tuple[str, Callable[[], Iterable[Row]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("devices", _devices),
        ("cores", _cores),
        ("instructions", _instructions),
        ("memory", _memory),
        ("disk", _disk),
        ("shared memory", _shared_memory),
        ("temporary folder", _temporary),
        ("VITRAIL_DATA", _data),
        ("jpeg", _jpeg),
        ("attention", _attention),
    )
    return Diagnosis(rows=tuple(row for name, part in parts for row in examine(name, part)))


def examine(name: str, part: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of one part, or one failed row where it breaks."""
    try:
        return list(part())
    except Exception as error:  # noqa: BLE001 a broken library may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        advice = "reinstall vitrail in a fresh virtual environment"
        return [Row(name=name, value=text, status="fail", advice=advice)]


def _python() -> Iterable[Row]:
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    old = sys.version_info < (3, 11)
    advice = "install Python 3.11 or newer" if old else ""
    yield Row(name="python", value=value, status="fail" if old else "ok", advice=advice)


def _packages() -> Iterable[Row]:
    from packaging.requirements import Requirement

    try:
        distribution = importlib.metadata.distribution("vitrail")
    except importlib.metadata.PackageNotFoundError:
        advice = "pip install vitrail, or `pip install -e .` in the repository"
        yield Row(name="vitrail", value="not installed", status="warn", advice=advice)
        return
    yield Row(name="vitrail", value=distribution.version)
    required = [Requirement(text) for text in distribution.requires or ()]
    plain = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    yield package_row("dependencies", plain, "pip install --upgrade vitrail", missing="fail")
    for extra in distribution.metadata.get_all("Provides-Extra") or ():
        own = [r for r in required if r not in plain and _belongs(r, extra)]
        yield package_row(f"extra {extra}", own, f"pip install 'vitrail[{extra}]'", missing="ok")


def _belongs(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def package_row(
    name: str, required: Iterable[Requirement], install: str, *, missing: Status
) -> Row:
    """Whether packages are installed in the versions asked for.

    Args:
        name: Of the row.
        required: The packages.
        install: The command that installs them.
        missing: Status if one is not installed; one of a wrong version is never `ok`.
    """
    absent: list[str] = []
    wrong: list[str] = []
    for requirement in required:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    if wrong:
        status: Status = "fail" if missing == "fail" else "warn"
        return Row(name=name, value=", ".join(wrong), status=status, advice=install)
    if absent:
        value = f"not installed: {', '.join(absent)}"
        return Row(name=name, value=value, status=missing, advice=install)
    return Row(name=name, value="installed")


def _torch() -> Iterable[Row]:
    import torch

    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    old = (major, minor) < (2, 11)
    yield Row(
        name="torch",
        value=torch.__version__,
        status="fail" if old else "ok",
        advice="pip install --upgrade 'torch>=2.11'" if old else "",
    )


def _devices() -> Iterable[Row]:
    import torch

    for number in range(torch.cuda.device_count()):
        card = cast("Any", torch.cuda).get_device_properties(number)
        value = f"{card.name}, {card.total_memory / GIB:.0f} GiB"
        yield Row(name=f"device cuda:{number}", value=value)
    if torch.backends.mps.is_available():
        yield Row(name="device mps", value="Apple GPU")
    driver = Path("/proc/driver/nvidia/version").exists()
    if driver and not torch.cuda.is_available():
        yield Row(
            name="device cuda",
            value=f"an NVIDIA driver is there, but torch {torch.__version__} does not use it",
            status="warn",
            advice="install a CUDA build of torch that fits the driver: https://pytorch.org",
        )
    yield Row(name="device cpu", value=_cpuinfo("model name") or platform.machine())


def _cpuinfo(key: str) -> str:
    """The value of a key for the first processor; empty where the system does not say."""
    lines = (line.partition(":") for line in read_text(_CPUINFO).splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _cores() -> Iterable[Row]:
    import torch

    usable = usable_cores()
    yield Row(name="cores", value=f"{usable:g} usable of {os.cpu_count() or 1}")
    yield thread_row(torch.get_num_threads(), usable)


def thread_row(threads: int, usable: float) -> Row:
    """Whether torch's threads fit the cores that may be used."""
    fits = max(1, math.ceil(usable))
    if threads <= fits:
        return Row(name="torch threads", value=str(threads))
    return Row(
        name="torch threads",
        value=f"{threads}, more than the {usable:g} usable cores",
        status="warn",
        advice=f"export OMP_NUM_THREADS={fits}",
    )


def _instructions() -> Iterable[Row]:
    import torch

    best = torch.backends.cpu.get_cpu_capability()
    flags = _cpuinfo("flags").split()
    extras = [name for name in ("avx512_vnni", "avx512_bf16", "amx_tile") if name in flags]
    slow = best == "DEFAULT" and platform.machine().lower() in {"x86_64", "amd64"}
    yield Row(
        name="instructions",
        value=", ".join([best, *extras]),
        status="warn" if slow else "ok",
        advice="without AVX2 training is several times slower: use another machine" if slow else "",
    )


def _memory() -> Iterable[Row]:
    total, free = usable_memory()
    if not total:
        yield Row(name="memory", value="unknown on this system")
        return
    yield space_row(
        "memory",
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
        free,
        "close other programs, or train with a smaller batch",
    )


def _disk() -> Iterable[Row]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    yield space_row("disk", f"{free / GIB:.1f} GiB free at {here}", free, "make room for runs")
    if not os.access(here, os.W_OK):
        advice = "give a folder for the results: --out FOLDER"
        yield Row(name="folder", value=f"{here} is read-only", status="warn", advice=advice)


def _shared_memory() -> Iterable[Row]:
    place = Path("/dev/shm")  # noqa: S108 looked at, not written to
    if place.is_dir():
        free = shutil.disk_usage(place).free
        yield space_row(
            "shared memory",
            f"{free / GIB:.1f} GiB free at {place}",
            free,
            "loader processes hand batches over there: docker run --shm-size=2g",
        )


def space_row(name: str, value: str, free: int, advice: str) -> Row:
    """Whether at least 1 GiB is free."""
    tight = free < GIB
    return Row(
        name=name, value=value, status="warn" if tight else "ok", advice=advice if tight else ""
    )


def _temporary() -> Iterable[Row]:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"vitrail")
            file.flush()
    except OSError as error:
        advice = "free space there, or name a folder that can be written: export TMPDIR=FOLDER"
        yield Row(name="temporary folder", value=str(error), status="fail", advice=advice)
        return
    yield Row(name="temporary folder", value=f"{tempfile.gettempdir()} can be written")


def _data() -> Iterable[Row]:
    given = os.environ.get("VITRAIL_DATA")
    if not given:
        advice = "optional: export VITRAIL_DATA=FOLDER, where named data sets are looked for"
        yield Row(name="VITRAIL_DATA", value="not set", advice=advice)
    elif Path(given).is_dir():
        yield Row(name="VITRAIL_DATA", value=given)
    else:
        advice = "create the folder, or unset VITRAIL_DATA"
        yield Row(name="VITRAIL_DATA", value=f"{given} is no folder", status="warn", advice=advice)


def _jpeg() -> Iterable[Row]:
    import numpy as np
    import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
    from PIL import Image

    ramp = np.linspace(0, 255, 32 * 32 * 3).astype(np.uint8).reshape(32, 32, 3)
    with io.BytesIO() as file:
        Image.fromarray(ramp).save(file, "JPEG")
        fast = np.asarray(cast("Any", simplejpeg).decode_jpeg(file.getvalue(), "RGB"))
        slow = np.asarray(Image.open(file).convert("RGB"))
    worst = int(np.abs(fast.astype(int) - slow.astype(int)).max())
    bad = worst > _JPEG_TOLERANCE
    yield Row(
        name="jpeg",
        value=f"fast decoder and Pillow differ by at most {worst} of 255",
        status="fail" if bad else "ok",
        advice="pip install --upgrade simplejpeg pillow" if bad else "",
    )


def _attention() -> Iterable[Row]:
    import torch

    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    for device in devices:
        difference = attention_difference(device)
        bad = not difference <= _ATTENTION_TOLERANCE
        yield Row(
            name=f"attention on {device}",
            value=f"fused and plain differ by at most {difference:.1e}",
            status="fail" if bad else "ok",
            advice="this build of torch computes wrongly here: install another" if bad else "",
        )


def attention_difference(device: torch.device) -> float:
    """Largest difference between fused attention and softmax(q kᵀ / √d) v, in float32."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 3, 197, 64, generator=generator).to(device).unbind(0)
    plain = (q @ k.transpose(-2, -1) / 64**0.5).softmax(-1) @ v
    return float((scaled_dot_product_attention(q, k, v) - plain).abs().max())
