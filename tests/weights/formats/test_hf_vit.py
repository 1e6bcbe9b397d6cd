"""Hugging Face vit and deit; what the three Hugging Face families share is tested here too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.backbones.vit import ViTConfig
from vitrail.data.preprocess import CenterCrop, Squash
from vitrail.errors import CheckpointError, ConfigError
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.hf import ACTIVATIONS
from vitrail.weights.formats.hf_settings import Settings
from vitrail.weights.formats.hf_vit import HfViTReader, HfViTWriter
from vitrail.weights.reader import Given
from weights.reading import Read, assert_golden, case, read, told, with_config

CASES = ("hf_vit", "hf_vit_bin", "hf_deit_teacher")


@pytest.fixture
def vit() -> Checkpoint:
    return open_checkpoint(case("hf_vit")[0])


@pytest.fixture
def deit() -> Checkpoint:
    return open_checkpoint(case("hf_deit_teacher")[0])


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(name: str) -> None:
    assert_golden(HfViTReader, name)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    found = assert_golden(HfViTReader, name)
    assert HfViTWriter.refuses(found.described) == ""
    HfViTWriter.write(found.described, found.state, str(tmp_path / "out"))
    again = read(HfViTReader, tmp_path / "out")
    assert again.described.backbone == found.described.backbone
    assert again.described.task == found.described.task
    assert again.described.preprocess == found.described.preprocess
    assert all(torch.equal(again.state[key], found.state[key]) for key in found.state)


@pytest.mark.parametrize("key", ["classifier.bias", "vit.encoder.layer.1.output.dense.weight"])
def test_what_is_missing_or_cut_is_named(vit: Checkpoint, key: str) -> None:
    rest = {name: tensor for name, tensor in vit.tensors.items() if name != key}
    assert key in told(HfViTReader, replace(vit, tensors=rest))
    shorter = Held(vit.tensors[key].read()[:-1])
    wrong = told(HfViTReader, replace(vit, tensors={**vit.tensors, key: shorter}))
    assert key.rpartition(".")[0] in wrong


def test_a_plain_deit_keeps_its_distillation_token(deit: Checkpoint, tmp_path: Path) -> None:
    teacher = ("cls_classifier.", "distillation_classifier.")
    tensors = {
        name.replace("cls_classifier.", "classifier."): tensor
        for name, tensor in deit.tensors.items()
        if not name.startswith(teacher[1])
    }
    found = read(HfViTReader, replace(deit, tensors=tensors))
    config = found.described.backbone
    assert isinstance(config, ViTConfig)
    assert (config.registers, config.distillation_token, config.prefix) == (1, False, 2)
    io = case("hf_deit_teacher")[2]
    outputs = found.run(io["input"])[1]
    torch.testing.assert_close(outputs["logits"], io["logits_cls"], rtol=1e-5, atol=1e-5)
    assert any("register" in note for note in found.described.notes)
    HfViTWriter.write(found.described, found.state, str(tmp_path / "out"))
    assert read(HfViTReader, tmp_path / "out").described.backbone == config


def base(checkpoint: Checkpoint, *, pooler: bool) -> Checkpoint:
    """The file of a model without a head: no prefix."""
    tensors = {
        name.removeprefix("vit."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("vit.")
    }
    if pooler:
        width = checkpoint.config["hidden_size"]
        tensors["pooler.dense.weight"] = Held(torch.randn(width, width))
        tensors["pooler.dense.bias"] = Held(torch.randn(width))
    return replace(checkpoint, tensors=tensors)


@pytest.mark.parametrize("pooler", [True, False])
def test_a_file_without_a_head(vit: Checkpoint, tmp_path: Path, *, pooler: bool) -> None:
    found = read(HfViTReader, base(vit, pooler=pooler))
    assert found.described.task is None
    io = case("hf_vit")[2]
    tokens = found.run(io["input"])[1]["last_hidden_state"]
    torch.testing.assert_close(tokens, io["last_hidden_state"], rtol=1e-5, atol=3e-5)
    assert ("pooler.dense.weight" in found.match.derived) == pooler
    assert any("pooler" in note for note in found.described.notes) == pooler
    HfViTWriter.write(found.described, found.state, str(tmp_path / "out"))
    assert read(HfViTReader, tmp_path / "out").state.keys() == found.state.keys()


def test_names_of_version_5_in_memory(vit: Checkpoint) -> None:
    renamed = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    tensors = dict(vit.tensors)
    for old, new in renamed.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    found = read(HfViTReader, replace(vit, tensors=tensors))
    expected = read(HfViTReader, vit)
    assert all(torch.equal(found.state[key], expected.state[key]) for key in expected.state)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(vit: Checkpoint, activation: str) -> None:
    config = read(HfViTReader, with_config(vit, hidden_act=activation)).described.backbone
    assert isinstance(config, ViTConfig)
    assert (config.activation == "gelu") == (activation in ("gelu", "gelu_python"))


def test_defaults_of_the_class(vit: Checkpoint) -> None:
    """`config.json` need not say what is the default."""
    config = with_config(vit, layer_norm_eps=None, hidden_act=None, qkv_bias=None)
    assert read(HfViTReader, config).described.backbone == read(HfViTReader, vit).described.backbone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "quick_gelu"),
        ("hidden_act", 3),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", "small"),
        ("num_channels", 1),
        ("use_mean_pooling", True),
        ("hidden_size", 0),
        ("hidden_size", 10**30),
        ("hidden_size", 32.0),
        ("num_attention_heads", 5),
        ("num_attention_heads", True),
        ("num_hidden_layers", 1000),
        ("num_hidden_layers", 10**9),
        ("intermediate_size", []),
        ("image_size", [32]),
        ("image_size", 4),
        ("patch_size", [8, 4]),
        ("qkv_bias", "yes"),
        ("id2label", []),
        ("id2label", {"first": "cat"}),
        ("problem_type", {}),
        ("model_type", "vit_mae"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(vit: Checkpoint, field: str, value: object) -> None:
    checkpoint = with_config(vit, **{field: value})
    if field == "model_type":
        assert not HfViTReader.recognises(checkpoint)
        return
    words = {"num_attention_heads": "heads"}
    with pytest.raises((CheckpointError, ConfigError), match=words.get(field, field)):
        read(HfViTReader, checkpoint)


def test_class_names(vit: Checkpoint) -> None:
    twice = {"0": "crane", "1": "crane", "2": "dog"}
    found = read(HfViTReader, with_config(vit, id2label=twice))
    assert found.described.task is not None
    assert found.described.task.classes == ("crane (0)", "crane (1)", "dog", "3", "4")
    own = tuple("abcde")
    task = read(HfViTReader, vit, Given(classes=own)).described.task
    assert task is not None
    assert task.classes == own
    several = with_config(vit, problem_type="multi_label_classification")
    task = read(HfViTReader, several).described.task
    assert task is not None
    assert task.multilabel


def processed(vit: Checkpoint, **table: object) -> Read:
    return read(HfViTReader, replace(vit, preprocessor=table))


def test_preprocessing_of_a_vit(vit: Checkpoint) -> None:
    found = processed(vit, feature_extractor_type="ViTFeatureExtractor", size=224)
    preprocess = found.described.preprocess
    assert preprocess.resize == Squash(size=(224, 224))
    assert (preprocess.interpolation, preprocess.mean) == ("bilinear", (0.5, 0.5, 0.5))


@pytest.mark.parametrize(("short", "crop"), [(256, 224), (40, 32), (235, 224), (49, 43)])
def test_preprocessing_with_a_crop(vit: Checkpoint, short: int, crop: int) -> None:
    found = processed(
        vit,
        image_processor_type="BitImageProcessor",
        size={"shortest_edge": short},
        crop_size={"height": crop, "width": crop},
        do_center_crop=True,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    resize = found.described.preprocess.resize
    assert isinstance(resize, CenterCrop)
    assert resize.resized(short * 2, short * 3)[0] == short
    assert resize.size == (crop, crop)


def test_preprocessing_of_a_deit_keeps_the_ratio(vit: Checkpoint) -> None:
    found = processed(vit, feature_extractor_type="DeiTFeatureExtractor", size=256, crop_size=224)
    assert found.described.preprocess.resize == CenterCrop(size=(224, 224), crop_pct=0.875)
    assert any("squash" in note for note in found.described.notes)


def test_rescaling_is_part_of_the_colours(vit: Checkpoint) -> None:
    found = processed(vit, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3)
    assert found.described.preprocess.mean == pytest.approx((0.5, 0.5, 0.5))
    found = processed(vit, do_normalize=False, rescale_factor=2 / 255)
    assert found.described.preprocess.std == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resample", 1),
        ("size", {"height": 0, "width": 1}),
        ("size", "large"),
        ("image_mean", [0.5]),
        ("image_std", [0, 1, 1]),
        ("rescale_factor", 0),
        ("do_resize", "no"),
    ],
)
def test_a_processor_that_makes_no_sense(vit: Checkpoint, field: str, value: object) -> None:
    name = {"image_std": "std", "size": "size|height"}.get(field, field)
    with pytest.raises((CheckpointError, ConfigError), match=name):
        processed(vit, **{field: value})


def test_without_a_file_the_class_decides(vit: Checkpoint, deit: Checkpoint) -> None:
    found = read(HfViTReader, replace(vit, preprocessor={}))
    assert found.described.preprocess.resize == Squash(size=(32, 32))
    assert any("ViTImageProcessor" in note for note in found.described.notes)
    found = read(HfViTReader, replace(deit, preprocessor={}))
    assert found.described.preprocess.resize == CenterCrop(size=(32, 32), crop_pct=0.875)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pool": "mean"}, "pool 'mean'"),
        ({"layer_scale": 1.0}, "LayerScale"),
        ({"norm": "post"}, "norm"),
        ({"registers": 2}, "no others"),
        ({"positions": {"kind": "learned_1d", "prefix": False}}, "position for the class token"),
        ({"positions": {"kind": "rotary_2d"}}, "rotary_2d"),
        ({"stem": {"kind": "conv", "widths": [8], "strides": [8]}}, "stem 'conv'"),
    ],
)
def test_what_cannot_be_written(vit: Checkpoint, changes: dict[str, object], reason: str) -> None:
    described = read(HfViTReader, vit).described
    backbone = ViTConfig.model_validate(described.backbone.model_dump() | changes)
    assert reason in HfViTWriter.refuses(described.model_copy(update={"backbone": backbone}))


def test_another_resampling_is_written_only_where_it_does_not_show(vit: Checkpoint) -> None:
    described = read(
        HfViTReader, vit, Given(backbone={"positions": {"resampling": "bilinear_aligned"}})
    ).described
    assert HfViTWriter.refuses(described) == ""
    larger = described.preprocess.model_copy(update={"resize": Squash(size=(64, 64))})
    assert "resampl" in HfViTWriter.refuses(described.model_copy(update={"preprocess": larger}))


def test_a_tanh_layer_before_the_head_cannot_be_written(vit: Checkpoint) -> None:
    described = read(HfViTReader, vit).described
    assert described.task is not None
    task = described.task.model_copy(update={"hidden": 8})
    assert "tanh" in HfViTWriter.refuses(described.model_copy(update={"task": task}))


def test_settings_say_what_is_wanted() -> None:
    settings = Settings("config.json", {"depths": [1, 2], "x": None})
    assert settings.wholes("depths", ()) == (1, 2)
    assert settings.whole("x", 7) == 7
    with pytest.raises(CheckpointError, match=r"config.json: depths = \[1, 2\]: a whole number"):
        settings.whole("depths", 1)
