"""Hugging Face yolos folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitrail.errors import CheckpointError
from vitrail.weights.convert import write_loaded
from vitrail.weights.formats.hf_yolos import QueriesLast
from vitrail.weights.load import load_checkpoint
from weights.formats.detr_files import same, tiny_detr, tiny_yolos


@pytest.mark.parametrize("changes", [{}, {"positions_in": "stem"}, {"qkv_bias": False}])
def test_there_and_back(changes: dict[str, Any], tmp_path: Path) -> None:
    loaded = tiny_yolos(**changes)
    write_loaded(loaded, "hf", tmp_path / "out")
    assert same(load_checkpoint(tmp_path / "out"), loaded)


def renamed(name: str) -> str:
    """As in the memory of transformers 5.x."""
    return name.replace("encoder.mid_", "encoder.interpolation.mid_")


def test_names_of_transformers_5(tmp_path: Path) -> None:
    write_loaded(tiny_yolos(), "hf", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["vit.encoder.mid_position_embeddings"].shape == (2, 1, 1 + 6 + 5, 16)
    save_file({renamed(n): t for n, t in tensors.items()}, tmp_path / "out" / "model.safetensors")
    assert same(load_checkpoint(tmp_path / "out"), tiny_yolos())


def test_rows_of_detection_tokens_come_last() -> None:
    ours = torch.arange(6.0)[None, :, None].expand(1, 6, 2)
    (theirs,) = QueriesLast(2).write(ours)
    assert theirs[0, :, 0].tolist() == [0, 3, 4, 5, 1, 2]
    assert torch.equal(QueriesLast(2).read([theirs]), ours)
    (stacked,) = QueriesLast(2, at=1, tables=3).write(ours)
    assert stacked.shape == (3, 1, 6, 2)
    assert not stacked[0].any()
    assert torch.equal(QueriesLast(2, at=1, tables=3).read([stacked]), ours)


def test_others_are_not_written(tmp_path: Path) -> None:
    wrong = {
        "tables of its own": tiny_yolos(positions_in="layers_shared"),
        "no others": tiny_yolos(registers=2),
        "no LayerScale|LayerScale in vit": tiny_yolos(layer_scale=0.1),
    }
    for reason, loaded in wrong.items():
        with pytest.raises(CheckpointError, match=reason):
            write_loaded(loaded, "hf", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no tokens that find objects"):
        write_loaded(tiny_detr(root={"kind": "small"}), "hf", tmp_path / "out")
