"""The original Transformer against torch's own, with stored random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from parity.cases import opened
from vitrail.errors import CheckpointError
from vitrail.explain.outputs import sequence_outputs_of
from vitrail.golden import Case
from vitrail.transformer import Transformer
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.torch_transformer import (
    load_transformer,
    match_transformer,
    transformer_config,
)


@pytest.fixture
def case(tmp_path: Path) -> tuple[Case, Checkpoint]:
    found, path = opened("transformer", tmp_path)
    return found, open_checkpoint(path)


def load(case: tuple[Case, Checkpoint], **changes: Any) -> Transformer:
    table = {**case[0].given.backbone, **changes}
    return load_transformer(case[1], transformer_config(case[1], table))


def test_outputs_are_those_of_the_original(case: tuple[Case, Checkpoint]) -> None:
    inputs, expected = case[0].inputs, case[0].expected
    found = sequence_outputs_of(load(case), inputs["src"], inputs["tgt"])
    for name, tensor in expected.items():
        atol = 1e-6 if name.startswith("attn") else case[0].limit(name)
        torch.testing.assert_close(found[name], tensor, rtol=case[0].rtol, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("wrong", [{"activation": "gelu"}, {"eps": 1e-3}, {"positions": "rotary"}])
def test_another_rule_does_not_pass(case: tuple[Case, Checkpoint], wrong: dict[str, Any]) -> None:
    model = load(case, **wrong)
    error = (model(case[0].inputs["src"], case[0].inputs["tgt"]) - case[0].expected["logits"]).abs()
    assert error.max() > 10 * case[0].atol


def test_what_the_file_does_not_tell_has_to_be_given(case: tuple[Case, Checkpoint]) -> None:
    with pytest.raises(CheckpointError, match="does not tell heads, activation, norm; give them"):
        transformer_config(case[1], {})


def test_every_tensor_is_accounted_for(case: tuple[Case, Checkpoint]) -> None:
    whole = dict(case[1].tensors)
    given = case[0].given.backbone
    for key, stored in whole.items():
        rest = {name: tensor for name, tensor in whole.items() if name != key}
        assert key in said(case[1], rest, given), key
        assert f"{key}_extra" in said(case[1], whole | {f"{key}_extra": stored}, given)
        turned = stored.read().mT.contiguous() if len(stored.shape) == 2 else stored.read()
        if turned.shape != stored.shape:
            assert key in said(case[1], whole | {key: Held(turned)}, given), key


def said(checkpoint: Checkpoint, tensors: dict[str, Any], given: Any) -> str:
    changed = Checkpoint(path=checkpoint.path, container="torch", tensors=tensors)
    try:
        found = match_transformer(changed, transformer_config(changed, given))
    except CheckpointError as error:
        return str(error)
    return " ".join([*found.missing, *found.unused, *found.wrong])
