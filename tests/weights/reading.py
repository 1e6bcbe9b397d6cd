"""What the tests of foreign formats share: read a checkpoint by one reader and run it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.errors import CheckpointError
from vitrail.model import ModelConfig
from vitrail.tasks.classify import Classify
from vitrail.types import Features
from vitrail.weights.build import assign, empty_backbone, empty_model
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.load import backbone_state, meta_state
from vitrail.weights.mapping import Match, match, read_all
from vitrail.weights.reader import Described, Given, Reader

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"
GOLDEN = Path(os.environ.get("VITRAIL_GOLDEN") or BESIDE)


@dataclass(frozen=True)
class Read:
    """A checkpoint that was read."""

    described: Described
    match: Match
    state: dict[str, Tensor]

    def run(self, images: Tensor) -> tuple[Features, dict[str, Tensor]]:
        """Features, and outputs by the names of golden cases; images are normalised already."""
        backbone: Backbone
        with torch.no_grad():
            if self.described.task is None:
                backbone = assign(
                    empty_backbone(self.described.backbone), backbone_state(self.state)
                ).eval()
                features = backbone(images)
                return features, {"last_hidden_state": features.tokens, "pooled": features.pooled}
            model = assign(empty_model(self.config()), self.state).eval()
            features = model.backbone(images)
            assert isinstance(model.task, Classify)
            own, distilled = model.task.heads(features)
            return features, {
                "logits": model.task(features),
                "logits_cls": own,
                "logits_dist": distilled,
                "last_hidden_state": features.tokens,
                "pooled": features.pooled,
                "pre_logits": features.pooled,
            }

    def config(self) -> ModelConfig:
        assert self.described.task is not None
        return ModelConfig(
            backbone=self.described.backbone,
            task=self.described.task,
            preprocess=self.described.preprocess,
        )


def read(
    kind: type[Reader], source: Path | Checkpoint, given: Given | None = None, *, whole: bool = True
) -> Read:
    """By this reader, which must recognise it."""
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    assert kind.recognises(checkpoint)
    reader = kind(checkpoint)
    described = reader.describe(given or Given())
    entries, derived = reader.entries(described), reader.derived(described)
    found = match(entries, derived, meta_state(described), checkpoint.tensors)
    assert found.whole or not whole, found.describe()
    return Read(described, found, read_all(entries, checkpoint.tensors) if found.whole else {})


def case(name: str) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Checkpoint, `case.json` and tensors of a golden case."""
    folder = GOLDEN / name
    if not folder.is_dir():
        pytest.skip("golden files not found: set VITRAIL_GOLDEN or put them in ../shared/golden")
    table = json.loads((folder / "case.json").read_text())
    return folder / table["checkpoint"], table, load_file(folder / "io.safetensors")


def assert_golden(kind: type[Reader], name: str, given: Given | None = None) -> Read:
    """Outputs are those of the original."""
    path, table, io = case(name)
    found = read(kind, path, given)
    outputs = found.run(io["input"])[1]
    tolerance = table["tolerance"]
    compared = outputs.keys() & io.keys()
    assert "logits" in compared
    for key in compared:
        atol = tolerance["suggested_atol"] * (1 if key.startswith("logits") else 3)
        rtol = tolerance["suggested_rtol"]
        torch.testing.assert_close(outputs[key], io[key], rtol=rtol, atol=atol)
    return found


def told(kind: type[Reader], checkpoint: Checkpoint, given: Given | None = None) -> str:
    """All that is said of a checkpoint."""
    try:
        found = read(kind, checkpoint, given, whole=False).match
    except CheckpointError as error:
        return str(error)
    return " ".join([*found.missing, *found.unused, *found.wrong, *found.absent])


def with_config(checkpoint: Checkpoint, **changes: object) -> Checkpoint:
    """Other fields in `config.json`; None takes one away."""
    table = {**checkpoint.config, **changes}
    return replace(checkpoint, config={k: v for k, v in table.items() if v is not None})
