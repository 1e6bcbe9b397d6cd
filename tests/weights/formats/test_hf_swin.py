"""Hugging Face swin and swinv2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.hf_swin import HfSwinReader, HfSwinWriter
from vitrail.weights.formats.swin_windows import relative_coordinates, relative_index
from weights.reading import assert_golden, case, read, told, with_config

CASES = ("hf_swin", "hf_swinv2")


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(name: str) -> None:
    assert_golden(HfSwinReader, name)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    found = assert_golden(HfSwinReader, name)
    assert HfSwinWriter.refuses(found.described) == ""
    HfSwinWriter.write(found.described, found.state, str(tmp_path / "out"))
    again = read(HfSwinReader, tmp_path / "out")
    assert again.described.backbone == found.described.backbone
    assert again.described.task == found.described.task
    assert all(torch.equal(again.state[key], found.state[key]) for key in found.state)


def older(checkpoint: Checkpoint) -> Checkpoint:
    """A file of an older version, which kept buffers."""
    tensors = dict(checkpoint.tensors)
    for name in checkpoint.tensors:
        if name.endswith("self.query.weight"):
            inside = name.removesuffix("query.weight")
            tensors[f"{inside}relative_position_index"] = Held(relative_index(4))
            if "swinv2" in name:
                tensors[f"{inside}relative_coords_table"] = Held(relative_coordinates(4, 4))
    return replace(checkpoint, tensors=tensors)


@pytest.mark.parametrize("name", CASES)
def test_buffers_of_older_files(name: str) -> None:
    checkpoint = older(open_checkpoint(case(name)[0]))
    found = read(HfSwinReader, checkpoint)
    assert len(found.match.derived) == (4 if name == "hf_swin" else 8)
    for key in found.match.derived[:2]:
        damaged = Held(checkpoint.tensors[key].read() + 1)
        tensors = {**checkpoint.tensors, key: damaged}
        assert key in told(HfSwinReader, replace(checkpoint, tensors=tensors))


def test_names_of_version_5_in_memory() -> None:
    checkpoint = open_checkpoint(case("hf_swin")[0])
    renamed = {
        "attention.self.query": "attention.q_proj",
        "attention.self.key": "attention.k_proj",
        "attention.self.value": "attention.v_proj",
        "attention.self.": "attention.relative_position_bias.",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    tensors = dict(checkpoint.tensors)
    for old, new in renamed.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    for name in [name for name in tensors if name.endswith("bias_table")]:
        tensors[name.replace("bias_table", "index")] = Held(relative_index(4).flatten())
    found = read(HfSwinReader, replace(checkpoint, tensors=tensors))
    assert len(found.match.derived) == 4
    expected = read(HfSwinReader, checkpoint)
    assert all(torch.equal(found.state[key], expected.state[key]) for key in expected.state)


def test_absolute_positions() -> None:
    checkpoint = open_checkpoint(case("hf_swin")[0])
    name = "swin.embeddings.position_embeddings"
    tensors = {**checkpoint.tensors, name: Held(torch.randn(1, 256, 16))}
    checkpoint = replace(checkpoint, tensors=tensors)
    assert name in told(HfSwinReader, checkpoint)
    found = read(HfSwinReader, with_config(checkpoint, use_absolute_embeddings=True))
    assert isinstance(found.described.backbone, SwinConfig)
    assert found.described.backbone.positions == "absolute_and_relative"


def test_pretrained_windows() -> None:
    checkpoint = open_checkpoint(case("hf_swinv2")[0])
    for given, wanted in (([0, 0, 0, 0], ()), ([12, 6, 0, 0], (12, 6)), ([0, 3], (0, 3))):
        found = read(HfSwinReader, with_config(checkpoint, pretrained_window_sizes=given))
        assert isinstance(found.described.backbone, SwinV2Config)
        assert found.described.backbone.pretrained_windows == wanted


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("hf_swin", "layer_norm_eps", 1e-6),
        ("hf_swin", "hidden_act", "gelu_new"),
        ("hf_swin", "depths", 2),
        ("hf_swin", "depths", [2, 2, 2]),
        ("hf_swin", "depths", [1] * 100_000),
        ("hf_swin", "depths", [2, 900]),
        ("hf_swin", "num_heads", [3, 6]),
        ("hf_swin", "window_size", 0),
        ("hf_swinv2", "qkv_bias", False),
        ("hf_swinv2", "use_absolute_embeddings", True),
        ("hf_swinv2", "pretrained_window_sizes", [4]),
        ("hf_swinv2", "image_size", [16, 64]),
    ],
)
def test_a_field_that_cannot_be_is_named(name: str, field: str, value: object) -> None:
    checkpoint = with_config(open_checkpoint(case(name)[0]), **{field: value})
    if field == "image_size":
        checkpoint = with_config(checkpoint, window_size=8)
    match = {"num_heads": "heads"}.get(field, field)
    with pytest.raises(CheckpointError, match=match):
        read(HfSwinReader, checkpoint)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"eps": 1e-6}, "eps"),
        ({"shift": False}, "never shift"),
        ({"positions": "none"}, "positions 'none'"),
        ({"image_size": (33, 33)}, "no multiple"),
        ({"image_size": (12, 12)}, "another window"),
    ],
)
def test_what_cannot_be_written(changes: dict[str, object], reason: str) -> None:
    described = read(HfSwinReader, case("hf_swin")[0]).described
    backbone = SwinConfig.model_validate(described.backbone.model_dump() | changes)
    assert reason in HfSwinWriter.refuses(described.model_copy(update={"backbone": backbone}))
