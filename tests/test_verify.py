from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tiny import randomise, tiny_config, tiny_model
from vitrail.backbones.vit import PatchStemConfig
from vitrail.comparison import Comparison, compare, compare_case
from vitrail.errors import CheckpointError
from vitrail.explain.outputs import outputs_of
from vitrail.golden import Case, read_case
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.verification import seal_certificate
from vitrail.verify import verify
from vitrail.weights.convert import loaded_from, write_loaded
from vitrail.weights.modelfile import Provenance, load_model, read_header, save_model
from vitrail.weights.reader import Given

CONFIG = tiny_config(image_size=(16, 16), stem=PatchStemConfig(patch_size=4))


@pytest.fixture
def model() -> Model:
    return randomise(tiny_model(backbone=CONFIG), std=0.2).eval()


@pytest.fixture
def checkpoint(model: Model, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    write_loaded(loaded_from(model, "tiny", "MIT"), "timm", folder)
    return folder


def golden(model: Model, folder: Path, *, off: float = 0.0) -> Path:
    """A case whose outputs are those of the model itself, wrong by so much."""
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert isinstance(model.task, Classify)
    found = outputs_of(model, images)
    names = ("logits", "last_hidden_state", "attn_0", "attn_1")
    folder.mkdir()
    outputs = {name: (found[name] + off).contiguous() for name in names}
    save_file({"input": images, **outputs}, folder / "io.safetensors")
    table = {
        "family": "vit",
        "format": "timm",
        "source": "ourselves",
        "config": {},
        "inputs": ["input"],
        "outputs": list(names),
        "tolerance": {"suggested_atol": 1e-5, "suggested_rtol": 0.0},
        "parameters_without_influence": [],
    }
    (folder / "case.json").write_text(json.dumps(table))
    return folder


def test_without_a_reference_every_tensor_is_accounted_for(checkpoint: Path) -> None:
    found = verify(checkpoint)
    assert (found.verdict, found.passed, found.format) == ("whole", True, "timm")
    assert found.max_abs is None
    assert len(found.match.used) == len(found.shapes)
    assert found.parameters == sum(p.numel() for p in load_parameters(checkpoint))


def load_parameters(folder: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


def test_equal_outputs(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    found = verify(checkpoint, golden=golden(model, tmp_path / "case"))
    assert found.verdict == "equal"
    assert found.max_abs is not None
    assert found.max_abs < 1e-5
    assert {c.size for c in found.comparisons} == {"16x16"}
    assert json.loads(json.dumps(found.table()))["missing"] == []


def test_other_outputs(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    found = verify(checkpoint, golden=golden(model, tmp_path / "case", off=1e-3))
    assert (found.verdict, found.passed) == ("differs", False)
    assert not any(c.within for c in found.comparisons)
    assert found.max_abs == pytest.approx(1e-3, rel=0.1)


def test_a_transposed_square_is_found_by_its_outputs(
    checkpoint: Path, model: Model, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    case = golden(model, tmp_path / "case")
    tensors = load_file(checkpoint / "model.safetensors")
    key = "blocks.1.attn.proj.weight"
    save_file(tensors | {key: tensors[key].T.contiguous()}, checkpoint / "model.safetensors")
    found = verify(checkpoint, golden=case)
    assert found.verdict == "differs"
    assert found.suspects == (key,)


def test_an_incomplete_file_is_not_run(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["blocks.1.surprise"] = tensors.pop("blocks.1.norm2.weight")
    save_file(tensors, checkpoint / "model.safetensors")
    found = verify(checkpoint, golden=golden(model, tmp_path / "case"))
    assert (found.verdict, found.passed) == ("incomplete", False)
    assert found.match.missing == ("blocks.1.norm2.weight",)
    assert found.match.unused == ("blocks.1.surprise",)
    assert found.comparisons == ()


def test_a_model_file_of_ours_and_its_certificate(model: Model, tmp_path: Path) -> None:
    path = save_model(model, tmp_path / "m.safetensors", Provenance(licence="MIT"))
    found = verify(path, golden=golden(model, tmp_path / "case"))
    assert (found.format, found.verdict, found.licence) == ("vitrail", "equal", "MIT")
    seal_certificate(path, found)
    certificate = read_header(path).provenance.certificate
    assert certificate is not None
    assert certificate.verdict == "equal"
    assert "ourselves" in certificate.reference
    assert certificate.max_abs.keys() == {"logits", "last_hidden_state", "attn_0", "attn_1"}
    again, provenance = load_model(path)
    assert provenance.licence == "MIT"
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )


def test_only_a_model_file_can_be_sealed(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"convert .* --to vitrail"):
        seal_certificate(checkpoint, verify(checkpoint))


def test_what_is_given_wins_over_the_case(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    case = golden(model, tmp_path / "case")
    assert verify(checkpoint, Given(backbone={"eps": 1e-2}), golden=case).verdict == "differs"


@pytest.mark.parametrize("damage", ["absent", "no json", "no key", "no outputs"])
def test_a_damaged_case_is_an_error(model: Model, tmp_path: Path, damage: str) -> None:
    folder = golden(model, tmp_path / "case")
    if damage == "absent":
        (folder / "case.json").unlink()
    elif damage == "no json":
        (folder / "case.json").write_text("{")
    elif damage == "no key":
        (folder / "case.json").write_text("{}")
    else:
        (folder / "io.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"case\.json"):
        read_case(folder)


def case_of(expected: dict[str, torch.Tensor]) -> Case:
    inputs = {"input": torch.zeros(1, 3, 8, 6)}
    return Case(Path("case"), "timm", {}, inputs, expected, 1e-3, 0.0, {})


def test_intermediate_outputs_have_three_times_the_tolerance() -> None:
    expected = {"logits": torch.zeros(2), "attn_0": torch.zeros(2), "masks_of_mars": torch.ones(1)}
    rows, rest = compare_case(
        {name: torch.full((2,), 2e-3) for name in ("logits", "attn_0")}, case_of(expected)
    )
    assert [(row.output, row.within, row.size) for row in rows] == [
        ("logits", False, "8x6"),
        ("attn_0", True, "8x6"),
    ]
    assert rest == ("masks_of_mars",)


def test_nan_and_other_sizes_are_within_nothing() -> None:
    nan = torch.tensor([1.0, float("nan")])
    assert not compare("", "x", nan, torch.ones(2), atol=10.0).within
    assert not compare("", "x", torch.ones(3), torch.ones(2), atol=10.0).within


def test_maps_and_tokens_are_the_same_values() -> None:
    tokens = torch.randn(2, 12, 5)
    assert compare("", "x", tokens, tokens.reshape(2, 3, 4, 5), atol=0.0).within


def only(folder: Path, *names: str) -> Path:
    """The same case with these outputs alone."""
    table = json.loads((folder / "case.json").read_text()) | {"outputs": list(names)}
    (folder / "case.json").write_text(json.dumps(table))
    return folder


def test_a_head_that_nobody_compared_is_not_equal(
    checkpoint: Path, model: Model, tmp_path: Path
) -> None:
    found = verify(checkpoint, golden=only(golden(model, tmp_path / "case"), "attn_0"))
    assert (found.verdict, found.passed) == ("partly", False)


def test_a_case_without_outputs_of_this_model_is_an_error(
    checkpoint: Path, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="nothing to compare; the case has no outputs"):
        verify(checkpoint, golden=only(golden(model, tmp_path / "case")))


def test_a_case_of_another_kind_is_an_error(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    case = golden(model, tmp_path / "case")
    table = json.loads((case / "case.json").read_text())
    (case / "case.json").write_text(json.dumps(table | {"inputs": []}))
    with pytest.raises(CheckpointError, match="another kind of model; its inputs are none"):
        verify(checkpoint, golden=case)
    table |= {"format": "swin-pth", "config": {"heads": [2, 4]}}
    (case / "case.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="golden case case says: is it a case of this model"):
        verify(checkpoint, golden=case)


def test_one_reference_at_a_time(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    case = golden(model, tmp_path / "case")
    with pytest.raises(CheckpointError, match="one reference at a time"):
        verify(checkpoint, golden=case, against="timm")
    with pytest.raises(CheckpointError, match="--size: is for --against"):
        verify(checkpoint, golden=case, sizes=[(16, 16)])


def test_a_run_folder_is_verified_and_sealed(model: Model, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = save_model(model, run / "model.safetensors", Provenance())
    (run / "run.json").write_text("{}")
    found = verify(run)
    assert (found.format, found.verdict) == ("vitrail", "whole")
    rows = tuple(
        Comparison(s, "logits", g, g, 1.0, within=True) for s, g in (("8", 0.5), ("9", 0.0))
    )
    seal_certificate(run, replace(found, comparisons=rows))
    certificate = read_header(path).provenance.certificate
    assert certificate is not None
    assert certificate.max_abs == {"logits": 0.5}, "the largest of all sizes"
    with pytest.raises(CheckpointError, match=r"says itself what it is; .* its variant"):
        verify(run, Given(variant="vit_tiny_patch16_224"))


def test_json_knows_no_infinity(checkpoint: Path) -> None:
    row = Comparison("8x8", "logits", float("inf"), float("nan"), 1.0, within=False)
    table = replace(verify(checkpoint), comparisons=(row,)).table()
    json.dumps(table, allow_nan=False)
    assert table["max_abs"] is None
    assert table["comparisons"][0]["max_rel"] is None
