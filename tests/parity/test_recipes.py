"""Cases without weights: a recipe says how every tensor is drawn, and the file is built first."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from parity import cases
from parity.cases import classifier, draw
from vitrail.explain.outputs import outputs_of
from vitrail.tasks.classify import Classify
from vitrail.verify import verify
from vitrail.weights.load import inspect_checkpoint, read_inspected


def spec(name: str, shape: tuple[int, ...], std: float) -> dict[str, Any]:
    """As a recipe says it."""
    noise = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    values = (0.1 + std * noise.standard_normal(shape)).astype(np.float32)
    crc = zlib.crc32(values.tobytes())
    return {"name": name, "shape": list(shape), "mean": 0.1, "std": std, "crc32": crc}


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", ["google_vit_linen", "deit_plain", "timm_vit", "hf_vit"])
def test_a_recipe_becomes_a_native_file_with_the_outputs_of_its_case(
    name: str, listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, _, inspected = classifier(name, tmp_path)
    folder, scratch = tmp_path / "golden" / "drawn", tmp_path / "scratch"
    folder.mkdir(parents=True)
    scratch.mkdir()
    specs = [spec(key, t.shape, 0.2) for key, t in inspected.checkpoint.tensors.items()]
    images = spec("input", tuple(case.inputs["input"].shape), 1.0)
    rows: Any = [*specs, images] if listed else {row["name"]: row for row in [*specs, images]}
    for beside in case.folder.glob("*config.json"):
        (folder / beside.name).write_bytes(beside.read_bytes())
    table = dict(case.table) | {"checkpoint": None, "recipe": rows, "outputs": ["logits"]}
    (folder / "case.json").write_text(json.dumps(table))
    save_file({"logits": torch.zeros(1)}, folder / "io.safetensors")
    monkeypatch.setattr(cases, "FOLDER", folder.parent)

    drawn, path = cases.opened("drawn", scratch)
    assert drawn.inputs["input"].shape == case.inputs["input"].shape
    model = read_inspected(inspect_checkpoint(path, drawn.given)).model()
    assert isinstance(model.task, Classify)
    found = outputs_of(model, drawn.inputs["input"])
    io = {"logits": found["logits"], "input": drawn.inputs["input"]}
    save_file(io, folder / "io.safetensors")
    assert verify(path, golden=folder).verdict == "equal"


def test_another_draw_is_noticed() -> None:
    right = spec("a.weight", (3, 4), 0.5)
    assert draw("a.weight", right).shape == (3, 4)
    with pytest.raises(AssertionError, match="another checksum"):
        draw("b.weight", right)
