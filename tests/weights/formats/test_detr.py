"""The authors' DETR files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.backbones.resnet import ResNetConfig
from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import QueryReadout
from vitrail.weights.convert import write_loaded
from vitrail.weights.load import load_checkpoint
from vitrail.weights.reader import Given
from weights.formats.detr_files import tiny_detr

HEADS = Given(task={"readout": {"heads": 4}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_loaded(tiny_detr(), "official", tmp_path / "detr.pth")
    return tmp_path / "detr.pth"


def dumped(file: Path, **arguments: Any) -> Path:
    """As a training dump has it, with its arguments."""
    content = torch.load(file, weights_only=True)
    torch.save({**content, "args": argparse.Namespace(**arguments), "epoch": 3}, file)
    return file


def test_there_and_back(file: Path) -> None:
    before, found = tiny_detr(), load_checkpoint(file, HEADS)
    assert found.format == "official"
    assert all(torch.equal(found.state[key], before.state[key]) for key in before.state)
    task, expected = found.described.task, before.described.task
    assert isinstance(task, DetectConfig)
    assert isinstance(expected, DetectConfig)
    assert task.readout == expected.readout
    config = before.described.backbone.model_copy(update={"image_size": (800, 1333)})
    assert found.described.backbone == config


def test_classes_are_numbers_unless_named(file: Path) -> None:
    task = load_checkpoint(file, HEADS).described.task
    assert isinstance(task, DetectConfig)
    assert task.classes == ("0", "1", "2")
    named = HEADS.model_copy(update={"classes": ("a", "b", "c")})
    task = load_checkpoint(file, named).described.task
    assert isinstance(task, DetectConfig)
    assert task.classes == ("a", "b", "c")
    with pytest.raises(CheckpointError, match="3 outputs, 2 class names"):
        load_checkpoint(file, HEADS.model_copy(update={"classes": ("a", "b")}))


def test_heads_are_told_by_nobody_but_the_user_or_a_dump(file: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"does not tell heads; give --set task\.readout\.heads"
    ):
        load_checkpoint(file)
    described = load_checkpoint(dumped(file, nheads=2, dilation=True)).described
    assert isinstance(described.task, DetectConfig)
    readout = described.task.readout
    assert isinstance(readout, QueryReadout)
    assert readout.encoder is not None
    assert (readout.heads, readout.attention.heads, readout.encoder.heads) == (2, 2, 2)
    assert isinstance(described.backbone, ResNetConfig)
    assert described.backbone.dilated


def test_norms_before_the_branches_are_not_read(file: Path) -> None:
    """`--pre_norm` has a norm behind the encoder, which is reported by its name."""
    content = torch.load(file, weights_only=True)
    content["model"]["transformer.encoder.norm.weight"] = torch.ones(16)
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"unknown: transformer\.encoder\.norm\.weight"):
        load_checkpoint(file, HEADS)
