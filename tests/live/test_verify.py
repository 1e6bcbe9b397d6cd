"""`vitrail verify --against`: installed peers as the reference, at several image sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from parity.cases import FOLDER, NAMES
from vitrail.verify import verify

pytestmark = pytest.mark.campaign
SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"

TIMM = (
    "timm_vit",
    "timm_vit_gap",
    "timm_vit_registers",
    "timm_deit3",
    "timm_deit_distilled",
    "timm_swin",
    "timm_swinv2",
    "deit_distilled",
    "torchvision_swin",
)
TRANSFORMERS = (
    "hf_vit",
    "hf_vit_bin",
    "hf_deit_teacher",
    "hf_dinov2",
    "hf_dinov2_registers",
    "hf_swin",
    "hf_swinv2",
    "google_vit_finetuned",
)


@pytest.fixture(scope="module", autouse=True)
def shim() -> ModuleType:
    """What a torchvision beside a CPU torch needs, before a peer imports it."""
    if not NAMES:
        pytest.skip("golden files not found")
    spec = importlib.util.spec_from_file_location("timm_shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(name: str) -> Path:
    folder = FOLDER / name
    weights = [path for path in folder.glob("model.*") if path.suffix != ".json"]
    return folder if (folder / "config.json").is_file() else weights[0]


@pytest.mark.parametrize("name", TIMM)
def test_beside_timm(shim: ModuleType, name: str) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    shim.timm()
    given = given_of(name)
    sizes = [(32, 48)] if name in ("timm_vit", "timm_deit3") else []
    found = verify(source(name), given, against="timm", sizes=sizes)
    assert found.verdict == "equal", found.comparisons
    assert {c.output for c in found.comparisons} == {"logits", "last_hidden_state"}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_beside_transformers(shim: ModuleType, name: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    shim.timm()
    sizes = [(48, 32), (32, 32)] if name == "hf_vit" else []
    given = given_of(name).model_copy(update={"preprocess": {"antialias": True}})
    found = verify(source(name), given, against="transformers", sizes=sizes)
    assert found.verdict == "equal", found.comparisons
    assert any(c.output.startswith("attn_") for c in found.comparisons)


def given_of(name: str):
    from vitrail.golden import read_case

    return read_case(FOLDER / name).given
