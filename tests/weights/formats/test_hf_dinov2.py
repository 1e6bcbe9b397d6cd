"""Hugging Face dinov2 and dinov2_with_registers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.backbones.vit import Learned1dConfig, ViTConfig
from vitrail.data.preprocess import CenterCrop
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.hf_dinov2 import HfDinov2Reader, HfDinov2Writer, gated_hidden
from weights.reading import Read, assert_golden, case, read, with_config

CASES = ("hf_dinov2", "hf_dinov2_registers")


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(name: str) -> None:
    found = assert_golden(HfDinov2Reader, name)
    assert found.described.preprocess.resize == CenterCrop(size=(42, 42), crop_pct=1.0)
    assert [key.rpartition(".")[2] for key in found.match.derived] == ["mask_token"]


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    back(assert_golden(HfDinov2Reader, name), tmp_path)


def back(found: Read, folder: Path) -> Read:
    assert HfDinov2Writer.refuses(found.described) == ""
    HfDinov2Writer.write(found.described, found.state, str(folder / "out"))
    again = read(HfDinov2Reader, folder / "out")
    assert again.described.backbone == found.described.backbone
    assert all(torch.equal(again.state[key], found.state[key]) for key in found.state)
    return again


def test_registers_have_no_place() -> None:
    found = assert_golden(HfDinov2Reader, "hf_dinov2_registers")
    places = found.state["backbone.pos_embed.weight"]
    assert places.shape[1] == 1 + 4 + 9
    assert not places[:, 1:5].any()
    assert places[:, 0].any()


def test_places_of_registers_become_part_of_them(tmp_path: Path) -> None:
    """A model that was trained on has some, and the format has no room for them."""
    found = assert_golden(HfDinov2Reader, "hf_dinov2_registers")
    found.state["backbone.pos_embed.weight"][:, 1:5] = torch.randn(1, 4, 32)
    HfDinov2Writer.write(found.described, found.state, str(tmp_path / "out"))
    images = torch.randn(1, 3, 42, 42)
    a, b = (
        part.run(images)[1]["logits"] for part in (found, read(HfDinov2Reader, tmp_path / "out"))
    )
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def resampling(found: Read) -> str:
    config = found.described.backbone
    assert isinstance(config, ViTConfig)
    assert isinstance(config.positions, Learned1dConfig)
    return config.positions.resampling


def test_the_two_families_resample_differently() -> None:
    found = [read(HfDinov2Reader, case(name)[0]) for name in CASES]
    assert [resampling(part) for part in found] == ["bicubic", "bicubic_antialias"]


def gated(checkpoint: Checkpoint, *, renamed: bool = False) -> Checkpoint:
    """The giant's MLP in the place of the plain one."""
    width = checkpoint.config["hidden_size"]
    hidden = gated_hidden(4 * width)
    torch.manual_seed(0)
    tensors = {n: t for n, t in checkpoint.tensors.items() if ".mlp." not in n}
    for layer in range(2):
        name = f"dinov2.encoder.layer.{layer}.mlp."
        both, bias = torch.randn(2 * hidden, width), torch.randn(2 * hidden)
        tensors |= {
            f"{name}weights_out.weight": Held(torch.randn(width, hidden)),
            f"{name}weights_out.bias": Held(torch.randn(width)),
            f"{name}weights_in.weight": Held(both),
            f"{name}weights_in.bias": Held(bias),
        }
        if not renamed:
            continue
        for kind, tensor in (("weight", both), ("bias", bias)):
            del tensors[f"{name}weights_in.{kind}"]
            tensors[f"{name}down_proj.{kind}"] = tensors.pop(f"{name}weights_out.{kind}")
            tensors[f"{name}gate_proj.{kind}"] = Held(tensor[:hidden])
            tensors[f"{name}up_proj.{kind}"] = Held(tensor[hidden:])
    if renamed:
        names = {
            "attention.attention.query": "attention.q_proj",
            "attention.attention.key": "attention.k_proj",
            "attention.attention.value": "attention.v_proj",
            "attention.output.dense": "attention.o_proj",
        }
        for old, new in names.items():
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return with_config(replace(checkpoint, tensors=tensors), use_swiglu_ffn=True)


def test_a_gated_mlp(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(case("hf_dinov2")[0])
    found = read(HfDinov2Reader, gated(checkpoint))
    config = found.described.backbone
    assert isinstance(config, ViTConfig)
    assert config.activation == "swiglu"
    assert round(config.width * config.mlp_ratio) == 88
    back(found, tmp_path)
    renamed = read(HfDinov2Reader, gated(checkpoint, renamed=True))
    assert all(torch.equal(renamed.state[key], found.state[key]) for key in found.state)


@pytest.mark.parametrize(("plain", "wanted"), [(1536 * 4, 4096), (128, 88), (12, 8)])
def test_width_of_a_gated_mlp(plain: int, wanted: int) -> None:
    assert gated_hidden(plain) == wanted


def test_without_a_classifier(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(case("hf_dinov2")[0])
    tensors = {
        name.removeprefix("dinov2."): tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith("classifier.")
    }
    found = read(HfDinov2Reader, replace(checkpoint, tensors=tensors))
    config = found.described.backbone
    assert isinstance(config, ViTConfig)
    assert (config.pool, found.described.task) == ("class", None)
    back(found, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_register_tokens", -1), ("layerscale_value", 0), ("mlp_ratio", 1e9), ("mlp_ratio", "4")],
)
def test_a_field_that_makes_no_sense_is_named(field: str, value: object) -> None:
    checkpoint = open_checkpoint(case("hf_dinov2_registers")[0])
    with pytest.raises(CheckpointError, match=field):
        read(HfDinov2Reader, with_config(checkpoint, **{field: value}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pool": "class"}, "pool 'class'"),
        ({"layer_scale": None}, "LayerScale"),
        ({"mlp_ratio": 2.5}, "whole numbers"),
        ({"activation": "swiglu", "mlp_ratio": 1 / 32}, "whole numbers"),
        ({"qk_norm": True}, "norm"),
    ],
)
def test_what_cannot_be_written(changes: dict[str, object], reason: str) -> None:
    described = read(HfDinov2Reader, case("hf_dinov2")[0]).described
    backbone = ViTConfig.model_validate(described.backbone.model_dump() | changes)
    assert reason in HfDinov2Writer.refuses(described.model_copy(update={"backbone": backbone}))
