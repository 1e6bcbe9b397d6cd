"""Hugging Face eomt folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import randomise
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.data.preprocess import Fit, Letterbox, Preprocess, Squash
from vitrail.data.tiles import Windows
from vitrail.errors import CheckpointError
from vitrail.explain.layers import attention_layers
from vitrail.model import Model, ModelConfig
from vitrail.tasks.joint_segmenters import EomtReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.weights.convert import loaded_from, write_loaded
from vitrail.weights.load import Loaded, load_checkpoint
from vitrail.weights.reader import Given

SQUARE = Letterbox(side=16)
BLOCKS: dict[str, Any] = {"heads": 2, "mlp_ratio": 2.0, "layer_scale": 1.0}


def tiny_eomt(resize: Any = SQUARE, task: dict[str, Any] | None = None, **changes: Any) -> Loaded:
    """Two blocks before the queries and one with them; changes are of the backbone."""
    table: dict[str, Any] = {
        "image_size": (16, 16),
        "stem": PatchStemConfig(patch_size=8),
        "positions": Learned1dConfig(prefix=False),
        "width": 16,
        "depth": 2,
        "registers": 1,
        "final_norm": False,
        **BLOCKS,
    }
    readout = {"queries": 3, "depth": 1, "upscale": 1, "mask_probs": (1.0,), **BLOCKS}
    fields: dict[str, Any] = {"classes": ("cat", "dog"), "answer": "instance"}
    if task and "readout" in task:
        readout |= task.pop("readout")
    config = ModelConfig(
        backbone=ViTConfig(**(table | changes)),
        task=SegmentConfig(readout=EomtReadout(**readout), **(fields | (task or {}))),
        preprocess=Preprocess(resize=resize, interpolation="bilinear"),
    )
    model = Model(config)
    randomise(model)
    return loaded_from(model.eval(), "tiny", "MIT")


def same(a: Loaded, b: Loaded) -> bool:
    return a.state.keys() == b.state.keys() and all(
        torch.equal(a.state[name], b.state[name]) for name in a.state
    )


GATED: dict[str, Any] = {"activation": "swiglu", "mlp_ratio": 1.5}


@pytest.mark.parametrize(
    ("changes", "readout"),
    [
        ({}, {}),
        ({"registers": 0}, {"upscale": 0}),
        (GATED, GATED),
        ({"activation": "gelu_tanh"}, {"activation": "gelu_tanh", "head_activation": "gelu_tanh"}),
        ({}, {"depth": 3, "mask_probs": (0.0, 1.0, 0.25)}),
    ],
)
def test_there_and_back(changes: dict[str, Any], readout: dict[str, Any], tmp_path: Path) -> None:
    loaded = tiny_eomt(task={"readout": readout}, **changes)
    write_loaded(loaded, "hf", tmp_path / "out")
    again = load_checkpoint(tmp_path / "out")
    assert same(again, loaded)
    before, after = loaded.described, again.described
    assert after.backbone == before.backbone
    assert after.preprocess == before.preprocess
    assert isinstance(before.task, SegmentConfig)
    assert isinstance(after.task, SegmentConfig)
    assert after.task.readout == before.task.readout
    assert after.task.classes == before.task.classes


def test_gates_of_transformers_4_are_one_matrix(tmp_path: Path) -> None:
    loaded = tiny_eomt(task={"readout": GATED}, **GATED)
    write_loaded(loaded, "hf", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    old = {name.replace("down_proj", "weights_out"): t for name, t in tensors.items()}
    for name in [name for name in old if "gate_proj" in name]:
        parts = [old.pop(name), old.pop(name.replace("gate_proj", "up_proj"))]
        old[name.replace("gate_proj", "weights_in")] = torch.cat(parts)
    save_file(old, tmp_path / "out" / "model.safetensors")
    assert same(load_checkpoint(tmp_path / "out"), loaded)


@pytest.mark.parametrize(
    ("processor", "count", "answer", "rule"),
    [
        ({"do_pad": True}, 2, "instance", Letterbox(side=640)),
        ({"do_pad": True}, 80, "instance", Letterbox(side=640)),
        ({"do_pad": True}, 133, "panoptic", Letterbox(side=640)),
        (
            {"do_split_image": True, "size": {"shortest_edge": 512, "longest_edge": None}},
            150,
            "semantic",
            Windows(side=512),
        ),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, 2, "instance", None),
    ],
)
def test_the_processor_tells_what_is_answered(
    processor: dict[str, Any],
    count: int,
    answer: str,
    rule: Fit | Letterbox | Windows | None,
    tmp_path: Path,
) -> None:
    classes = tuple(f"class {i}" for i in range(count))
    write_loaded(tiny_eomt(task={"classes": classes}), "hf", tmp_path / "out")
    (tmp_path / "out" / "preprocessor_config.json").write_text(json.dumps(processor))
    described = load_checkpoint(tmp_path / "out").described
    assert isinstance(described.task, SegmentConfig)
    assert described.task.answer == answer
    assert described.task.background == (answer != "semantic")
    assert described.preprocess.resize == (rule or Fit(short=32, long=64, multiple=8))
    if answer == "panoptic":
        assert described.task.things is not None
        assert sum(described.task.things) == 80
    given = Given(task={"answer": "semantic", "background": False})
    task = load_checkpoint(tmp_path / "out", given).described.task
    assert isinstance(task, SegmentConfig)
    assert task.answer == "semantic"


def test_windows_there_and_back(tmp_path: Path) -> None:
    rule = Windows(side=16)
    write_loaded(tiny_eomt(rule), "hf", tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").described.preprocess.resize == rule


def test_without_a_processor_images_have_the_size_of_the_model(tmp_path: Path) -> None:
    write_loaded(tiny_eomt(), "hf", tmp_path / "out")
    (tmp_path / "out" / "preprocessor_config.json").unlink()
    assert load_checkpoint(tmp_path / "out").described.preprocess.resize == SQUARE


def test_every_attention_is_seen() -> None:
    layers = attention_layers(tiny_eomt().model())
    assert [layer.key for layer in layers] == ["attn_0", "attn_1", "attn_2"]
    assert layers[-1].name == "block 3, with queries"
    layout = layers[-1].place.at((16, 16))
    assert [layout.row(name) for name in ("query 1", "class", "register 1")] == [0, 3, 4]
    assert layout.row((8, 0)) == 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_blocks": 3}, "fewer than num_hidden_layers"),
        ({"num_hidden_layers": 4}, "tensors of 'layers.3' are missing"),
        ({"num_queries": 4}, "query.weight"),
        ({"no_object_weight": 0.3}, "criterion.empty_weight"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"image_size": 24}, "position_embeddings"),
    ],
)
def test_what_contradicts_the_weights_is_named(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write_loaded(tiny_eomt(), "hf", tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    ("chances", "said"),
    [([1.0, 0.0], "2 values for num_blocks = 1"), ([1.5], "no prob"), ([float("nan")], "no prob")],
)
def test_chances_must_be_some(chances: list[float], said: str, tmp_path: Path) -> None:
    write_loaded(tiny_eomt(), "hf", tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    save_file(load_file(path) | {"attn_mask_probs": torch.tensor(chances)}, path)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "out")


def test_others_are_not_written(tmp_path: Path) -> None:
    wrong = {
        "norm between the blocks": tiny_eomt(final_norm=True),
        "lack of LayerScale": tiny_eomt(layer_scale=None),
        "positions 'none'": tiny_eomt(positions={"kind": "none"}),
        "differ from one another": tiny_eomt(eps=1e-5),
        "other activation": tiny_eomt(task={"readout": {"head_activation": "gelu_tanh"}}),
        "mlp_ratio 2.25": tiny_eomt(task={"readout": {"mlp_ratio": 2.25}}, mlp_ratio=2.25),
        "images of 16 x 24": tiny_eomt(image_size=(16, 24)),
        "no resize rule 'squash'": tiny_eomt(Squash(size=(16, 16))),
        "masks nothing that is filled up": tiny_eomt(Fit(short=16, long=32, multiple=32)),
    }
    for reason, loaded in wrong.items():
        with pytest.raises(CheckpointError, match=reason):
            write_loaded(loaded, "hf", tmp_path / "out")
