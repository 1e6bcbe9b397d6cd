"""Every case: the original's outputs from its own file, by its `case.json` alone.

Read `case.json`, load the checkpoint in its format, run the input, compare every output. A case
that is added to the folder is under these tests at once.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from parity.cases import FOLDER, classifier, every_case, opened
from vitrail.errors import CheckpointError
from vitrail.explain.outputs import outputs_of
from vitrail.golden import Case
from vitrail.model import Model
from vitrail.verify import Verification, verify
from vitrail.weights.load import load_checkpoint, read_inspected
from vitrail.weights.mapping import Entry
from vitrail.weights.reader import Given

CONTRADICTED = {
    "google_vit_finetuned": {"heads"},
    "google_hybrid": {"standardisation"},
}
"""Fields that the file itself tells: another value is an error, not another model."""


@every_case
def test_outputs_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    case, path = opened(name, tmp_path)
    found = verify(path, golden=FOLDER / name)
    assert found.not_compared == (), "an output that we do not give is not compared"
    assert {row.output for row in found.comparisons} == set(case.expected)
    assert found.verdict == "equal", worst(found)
    assert found.match.unused == found.match.missing == ()


def worst(found: Verification) -> str:
    rows = [f"{c.output}: {c.max_abs:.2e} > {c.limit:.2e}" for c in found.comparisons]
    return "; ".join(rows) + f" {found.match.describe()}"


@every_case
def test_every_parameter_counts(name: str, tmp_path: Path) -> None:
    """A tensor that is changed by 1 % moves an output, or is known to move none."""
    case, _, inspected = classifier(name, tmp_path)
    loaded = read_inspected(inspected)
    model = loaded.model()
    before = run(model, case)
    state, idle, counting = model.state_dict(), set[str](), set[str]()
    for entry in inspected.entries:
        if not state[entry.ours].is_floating_point():
            continue  # how many batches a norm has seen
        for place, theirs in enumerate(entry.theirs):
            kept = state[entry.ours].clone()
            with torch.no_grad():
                state[entry.ours].copy_(changed(entry, kept, place))
            after = run(model, case)
            counts = any(moved(before[key], after[key]) for key in before)
            (counting if counts else idle).add(theirs)
            state[entry.ours].copy_(kept)
    known = {essence(key) for key in case.table["parameters_without_influence"]}
    # A packed matrix counts if a part of it does: the key's bias never does.
    assert {essence(key) for key in idle - counting} <= known
    present = set(inspected.match.derived)
    unused = {d.theirs for d in inspected.derived if d.value is None and d.theirs in present}
    assert {essence(key) for key in unused} <= known


def run(model: Model, case: Case) -> dict[str, torch.Tensor]:
    mask = case.inputs.get("pixel_mask")
    return outputs_of(model, case.inputs["input"], None if mask is None else mask > 0)


def changed(entry: Entry, tensor: torch.Tensor, place: int) -> torch.Tensor:
    """Ours, with the values of one of theirs changed by 1 %, up or down."""
    parts = [part.clone() for part in entry.layout.write(tensor)]
    noise = torch.randn(parts[place].shape, generator=torch.Generator().manual_seed(0))
    parts[place] *= 1 + 0.01 * noise.sign()
    return entry.layout.read(parts)


def moved(before: torch.Tensor, after: torch.Tensor) -> bool:
    return bool((before - after).abs().max() > 3e-6)


def essence(key: str) -> frozenset[str]:
    """A name without what differs between file and memory of the same library."""
    key = re.sub(r"(MultiHeadDotProductAttention)_\d", r"\1", key.replace("/", "."))
    words = key.replace("k_proj", "key").replace("backbone.0.", "backbone.").split(".")
    idle = {"attention", "self", "encoder", "layer", "layers", "model", "params", "img"}
    return frozenset(words) - idle - {"transformer"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("timm_vit", {"eps": 1e-5}),
        ("timm_vit", {"activation": "gelu_tanh"}),
        ("hf_vit", {"eps": 1e-6}),
        ("google_vit_finetuned", {"activation": "gelu"}),
        ("google_vit_finetuned", {"heads": 4}),
        ("google_hybrid", {"standardisation": "variance"}),
        ("google_hybrid", {"activation": "gelu"}),
        ("deit_plain_resized", {"positions": {"resampling": "bicubic_antialias"}}),
        ("deit_plain_resized", {"positions": {"resampling": "bilinear_aligned"}}),
        ("google_vit_finetuned_resized", {"positions": {"resampling": "bicubic"}}),
        ("google_vit_finetuned_resized", {"positions": {"resampling": "bicubic_antialias"}}),
        ("swin_v2", {"pretrained_windows": [8, 8]}),
        ("swin_v1", {"shift": False}),
        ("t2t_performer", {"heads": 8}),
    ],
)
def test_another_rule_does_not_pass(name: str, wrong: dict[str, object], tmp_path: Path) -> None:
    _, path = opened(name, tmp_path)
    if name in CONTRADICTED and wrong.keys() & CONTRADICTED[name]:
        with pytest.raises(CheckpointError, match="was given"):
            verify(path, Given(backbone=wrong), golden=FOLDER / name)
        return
    found = verify(path, Given(backbone=wrong), golden=FOLDER / name)
    assert (found.verdict, found.passed) == ("differs", False)


def test_a_licence_is_always_said(tmp_path: Path) -> None:
    assert load_checkpoint(FOLDER / "timm_vit").licence == "apache-2.0 (stated with the weights)"
    assert "not stated" in load_checkpoint(FOLDER / "hf_vit").licence
