"""Hugging Face detr folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.weights.convert import write_loaded
from vitrail.weights.formats.resnet_names import torchvision_entries
from vitrail.weights.load import Loaded, load_checkpoint
from vitrail.weights.mapping import write_all
from weights.formats.detr_files import same, tiny_detr, tiny_yolos


def written(folder: Path, loaded: Loaded | None = None) -> Path:
    write_loaded(loaded or tiny_detr(), "hf", folder / "out")
    return folder / "out"


def retold(folder: Path, **changes: Any) -> Path:
    """With other fields in `config.json`."""
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | changes))
    return folder


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_there_and_back(block: str, tmp_path: Path) -> None:
    loaded = tiny_detr(block=block)
    assert same(load_checkpoint(written(tmp_path, loaded)), loaded)


def renamed(name: str) -> str:
    """As in the memory of transformers 5.x."""
    name = name.replace("backbone.conv_encoder.", "backbone.").replace("out_proj", "o_proj")
    return name.replace(".fc1.", ".mlp.fc1.").replace(".fc2.", ".mlp.fc2.")


def test_names_of_transformers_5(tmp_path: Path) -> None:
    folder = written(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({renamed(n): t for n, t in tensors.items()}, folder / "model.safetensors")
    assert same(load_checkpoint(folder), tiny_detr())


@pytest.mark.parametrize("dilated", [False, True])
def test_a_resnet_of_timm_tells_its_sizes_by_shapes(tmp_path: Path, *, dilated: bool) -> None:
    loaded = tiny_detr(depths=(1, 1, 1, 2), widths=(4, 8, 12, 16))
    folder = written(tmp_path, loaded)
    tensors = load_file(folder / "model.safetensors")
    rest = {n: t for n, t in tensors.items() if "conv_encoder" not in n}
    config: Any = loaded.described.backbone
    stem = "model.backbone.conv_encoder.model."
    trunk = write_all(torchvision_entries(config, stem, counted=False), loaded.state)
    save_file(rest | trunk, folder / "model.safetensors")
    changes = {"backbone": "resnet50", "backbone_config": None, "dilation": dilated}
    found = load_checkpoint(retold(folder, **changes))
    assert found.described.backbone == config.model_copy(update={"dilated": dilated})
    with pytest.raises(CheckpointError, match="backbone = 'resnet50d' is not supported"):
        load_checkpoint(retold(folder, backbone="resnet50d"))


def test_names_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    folder = retold(written(tmp_path), id2label={"0": "N/A", "1": "person", "2": "N/A"})
    task = load_checkpoint(folder).described.task
    assert isinstance(task, DetectConfig)
    assert task.classes == ("N/A (0)", "person", "N/A (2)")
    assert task.category_ids == (0, 1, 2)
    assert task.outputs == 4


def test_what_our_model_does_not_do_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    wrong = {
        "auxiliary_loss": True,
        "position_embedding_type": "learned",
        "activation_function": "gelu",
        "encoder_layers": 3,
    }
    before = (folder / "config.json").read_text()
    for field, value in wrong.items():
        with pytest.raises(CheckpointError, match=field):
            load_checkpoint(retold(folder, **{field: value}))
        (folder / "config.json").write_text(before)


def test_others_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="own ResNet is not dilated"):
        written(tmp_path, tiny_detr(dilated=True))
    with pytest.raises(CheckpointError, match="DETR reads a ResNet, this is a 'vit'"):
        write_loaded(tiny_yolos(), "official", tmp_path / "x.pth")


def test_it_runs_and_hidden_pixels_change_nothing(tmp_path: Path) -> None:
    model = load_checkpoint(written(tmp_path)).model()
    images = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    mask = torch.zeros(1, 32, 64, dtype=torch.bool)
    mask[:, :, :40] = True
    with torch.no_grad():
        found = model(images, mask)
        images[:, :, :, 40:] = 7
        again = model(images, mask)
    assert found.logits.shape == (1, 5, 4)
    torch.testing.assert_close(found.boxes, again.boxes, rtol=0, atol=0)
