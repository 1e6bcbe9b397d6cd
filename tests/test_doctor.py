"""`doctor`: this machine passes, and each thing that can be wrong is noticed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from vitrail import doctor as module
from vitrail.doctor import (
    GIB,
    Diagnosis,
    Row,
    attention_difference,
    doctor,
    examine,
    package_row,
    space_row,
    thread_row,
)


def row(name: str) -> Row:
    return next(row for row in doctor().rows if row.name == name)


def test_this_machine_is_fit() -> None:
    diagnosis = doctor()
    assert diagnosis.fit, [row for row in diagnosis.rows if row.status == "fail"]
    names = [row.name for row in diagnosis.rows]
    assert len(names) == len(set(names))
    assert {"python", "vitrail", "torch", "device cpu", "torch threads", "jpeg"} <= set(names)
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_all_that_is_not_ok_says_what_to_do() -> None:
    assert all(row.advice for row in doctor().rows if row.status != "ok")


def test_extras_are_those_of_the_package() -> None:
    extras = importlib.metadata.metadata("vitrail").get_all("Provides-Extra")
    assert extras
    names = [row.name for row in doctor().rows if row.name.startswith("extra ")]
    assert names == [f"extra {extra}" for extra in extras]


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, vitrail.doctor; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_failed_row_makes_it_unfit() -> None:
    assert Diagnosis(rows=(Row(name="a", value=""), Row(name="b", value="", status="warn"))).fit
    assert not Diagnosis(rows=(Row(name="a", value="", status="fail"),)).fit


def test_a_part_that_breaks_is_a_failed_row() -> None:
    def broken() -> list[Row]:
        raise OSError("libjpeg.so: not\nfound")

    (bad,) = examine("jpeg", broken)
    assert (bad.name, bad.status) == ("jpeg", "fail")
    assert bad.value == "OSError: libjpeg.so: not found"
    assert bad.advice


@pytest.mark.parametrize(
    ("wanted", "missing", "status", "value"),
    [
        ("pytest", "fail", "ok", "installed"),
        ("no-such-package-here", "fail", "fail", "not installed: no-such-package-here"),
        ("no-such-package-here", "ok", "ok", "not installed: no-such-package-here"),
        ("pytest<1", "fail", "fail", f"pytest {pytest.__version__} (needs <1)"),
        ("pytest<1", "ok", "warn", f"pytest {pytest.__version__} (needs <1)"),
    ],
)
def test_packages(wanted: str, missing, status: str, value: str) -> None:
    result = package_row("x", [Requirement(wanted)], "pip install x", missing=missing)
    assert (result.status, result.value) == (status, value)
    assert (result.advice == "pip install x") is (value != "installed")


@pytest.mark.parametrize(
    ("threads", "cores", "status", "advice"),
    [
        (2, 2.0, "ok", ""),
        (2, 1.5, "ok", ""),
        (1, 0.5, "ok", ""),
        (16, 2.0, "warn", "export OMP_NUM_THREADS=2"),
    ],
)
def test_threads(threads: int, cores: float, status: str, advice: str) -> None:
    result = thread_row(threads, cores)
    assert (result.status, result.advice) == (status, advice)


def test_space() -> None:
    assert space_row("disk", "", GIB, "make room") == Row(name="disk", value="")
    assert space_row("disk", "", GIB - 1, "make room").status == "warn"


def test_an_old_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu126")
    assert row("torch").status == "fail"
    assert "torch>=2.11" in row("torch").advice


def test_slow_instructions_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert row("instructions").status == "warn"


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    assert (row("VITRAIL_DATA").value, row("VITRAIL_DATA").status) == ("not set", "ok")
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    assert row("VITRAIL_DATA") == Row(name="VITRAIL_DATA", value=str(tmp_path))
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "absent"))
    assert row("VITRAIL_DATA").status == "warn"


def test_a_temporary_folder_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert row("temporary folder").status == "fail"
    assert "TMPDIR" in row("temporary folder").advice


def test_a_wrong_attention_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_difference(torch.device("cpu")) < 1e-5
    assert row("attention on cpu").status == "ok"
    for wrong in (0.1, float("nan")):
        monkeypatch.setattr(module, "attention_difference", lambda _, wrong=wrong: wrong)
        assert row("attention on cpu").status == "fail"


def test_a_wrong_jpeg_decoder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import simplejpeg

    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: np.zeros((32, 32, 3), dtype=np.uint8))
    assert row("jpeg").status == "fail"
