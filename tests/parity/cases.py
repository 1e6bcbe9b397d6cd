"""Every golden case below a folder, by its `case.json` alone."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitrail.golden import Case, read_case
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats import recognise
from vitrail.weights.formats.torch_transformer import recognises_transformer
from vitrail.weights.load import Inspected, inspect_checkpoint

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"
FOLDER = Path(os.environ.get("VITRAIL_GOLDEN") or BESIDE)
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/case.json"))
ABSENT = "golden files not found: set VITRAIL_GOLDEN or put them in ../shared/golden"

every_case = pytest.mark.parametrize(
    "name", NAMES or [pytest.param("", marks=pytest.mark.skip(reason=ABSENT))]
)


def opened(name: str, scratch: Path) -> tuple[Case, Path]:
    """A case and its native checkpoint, which is built first where the case has a recipe only."""
    folder = FOLDER / name
    case = with_drawn_inputs(read_case(folder))
    checkpoint = case.table["checkpoint"]
    path = build_native(case, scratch) if checkpoint is None else folder / checkpoint
    found = open_checkpoint(path)
    if not recognises_transformer(found):
        recognise(found)
    return case, path


def classifier(name: str, scratch: Path) -> tuple[Case, Path, Inspected]:
    """The same for cases of backbones; the encoder-decoder over symbols has tests of its own."""
    case, path = opened(name, scratch)
    if case.table["family"] == "transformer":
        pytest.skip("no backbone: see test_transformer.py")
    return case, path, inspect_checkpoint(path, case.given)


def draw(name: str, spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """A tensor of a recipe: drawn by its name, and of the ways to round the one with its checksum.

    value = mean + std * standard_normal of Philox, keyed by the CRC-32 of the name.
    """
    shape, mean, std = tuple(spec["shape"]), spec.get("mean", 0.0), spec.get("std", 1.0)

    def noise(dtype: Any) -> np.ndarray[Any, Any]:
        key = zlib.crc32(name.encode())
        return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=dtype)

    single = np.float32(mean) + np.float32(std) * noise(np.float32)
    wide = np.float32(mean) + np.float32(std) * noise(np.float64).astype(np.float32)
    found = [(mean + std * noise(np.float64)).astype(np.float32), wide, single]
    wanted = next((spec[key] for key in ("crc32", "crc", "crc32_float32") if key in spec), None)
    if wanted is None:
        return found[0]
    crc = (
        int(wanted, 0 if str(wanted).startswith("0x") else 16)
        if isinstance(wanted, str)
        else wanted
    )
    right = [values for values in found if zlib.crc32(values.tobytes()) == crc]
    assert right, f"{name}: drawn values have another checksum than the recipe says"
    return right[0]


def specs(recipe: Any) -> dict[str, Mapping[str, Any]]:
    """A recipe as a table by name, whether it was written as a list or as a table."""
    rows = recipe.get("tensors", recipe) if isinstance(recipe, dict) else recipe
    table = {row["name"]: row for row in rows} if isinstance(rows, list) else dict(rows)
    if isinstance(recipe, dict) and "tensors" in recipe:
        inputs = recipe.get("inputs", {})
        table |= {n: s for n, s in [*inputs.items(), ("input", recipe.get("input"))] if s}
    return table


def with_drawn_inputs(case: Case) -> Case:
    """Inputs that a recipe has drawn like its tensors, where the file does not hold them."""
    missing = [name for name in case.table["inputs"] if name not in case.inputs]
    if not missing:
        return case
    table = specs(case.table["recipe"])
    drawn = {name: torch.from_numpy(draw(name, table[name])) for name in missing}
    return replace(case, inputs={**case.inputs, **drawn})


def build_native(case: Case, scratch: Path) -> Path:
    """The checkpoint of a recipe, in its own format."""
    table = specs(case.table["recipe"])
    arrays = {
        name: draw(name, spec) for name, spec in table.items() if name not in case.table["inputs"]
    }
    if case.format.endswith("npz"):
        path = scratch / "model.npz"
        np.savez(path, **arrays)
        return path
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    if case.format in ("hf", "timm"):
        for beside in case.folder.glob("*.json"):
            (scratch / beside.name).write_bytes(beside.read_bytes())
        if not (scratch / "config.json").exists():
            config = case.table.get("config_json", case.config)
            (scratch / "config.json").write_text(json.dumps(config))
        save_file(tensors, scratch / "model.safetensors")
        return scratch
    content: Any = tensors
    for key in reversed(case.config.get("wrapper", [])):
        content = {key: content}
    path = scratch / "model.pth"
    torch.save(content, path)
    return path
