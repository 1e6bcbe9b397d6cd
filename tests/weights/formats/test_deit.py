"""DeiT's own files; those of the golden cases are compared in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foreign import (
    Weights,
    held,
    insist_every_fault_is_named,
    model_of,
    read,
    refusal,
    same,
)
from vitrail.backbones import VARIANTS
from vitrail.backbones.swin import SwinConfig
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.errors import CheckpointError
from vitrail.weights.formats.deit import DeiT, DeiTWriter, entries
from vitrail.weights.mapping import write_all
from vitrail.weights.reader import Given

PLACES = Learned1dConfig(resampling="bicubic")


def vit(**changes: Any) -> ViTConfig:
    table: dict[str, Any] = {
        "image_size": (24, 24),
        "stem": PatchStemConfig(patch_size=8),
        "positions": PLACES,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "mlp_ratio": 1.5,
    }
    return ViTConfig(**(table | changes))


CONFIGS = {
    "plain": vit(),
    "distilled": vit(distillation_token=True),
    "third": vit(layer_scale=1e-6, positions=PLACES.model_copy(update={"prefix": False})),
}


def written(config: ViTConfig, out: Path) -> tuple[Weights, Weights]:
    """Their weights, from the file, and ours."""
    described, state = model_of(config)
    assert DeiTWriter.refuses(described) == ""
    (path,) = DeiTWriter.write(described, state, str(out / "deit.pth"))
    return torch.load(path, weights_only=True)["model"], state


@pytest.mark.parametrize("part", ["model", "model_ema"])
@pytest.mark.parametrize("name", CONFIGS)
def test_written_and_read_is_the_same(name: str, part: str, tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS[name], tmp_path)
    described, state = read(DeiT, held(theirs, part=part), heads=3)
    assert described.backbone == CONFIGS[name]
    assert same(state, ours)


def test_names_are_those_of_the_owners(tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS["third"], tmp_path)
    assert torch.equal(theirs["blocks.1.gamma_2"], ours["backbone.blocks.1.ls2.gamma"])
    assert theirs["pos_embed"].shape == (1, 9, 24)
    theirs, ours = written(CONFIGS["distilled"], tmp_path)
    assert torch.equal(theirs["dist_token"], ours["backbone.prefix_token"][:, 1:])
    assert torch.equal(theirs["cls_token"], ours["backbone.prefix_token"][:, :1])
    assert torch.equal(theirs["head_dist.bias"], ours["task.head_dist.bias"])
    assert theirs["pos_embed"].shape == (1, 11, 24)


def test_what_is_no_training_dump_is_not_deit(tmp_path: Path) -> None:
    theirs, _ = written(vit(), tmp_path)
    assert not DeiT.recognises(held(theirs))
    assert not DeiT.recognises(held(theirs, "safetensors", "model"))
    swin = {f"layers.0.{name}": tensor for name, tensor in theirs.items()}
    assert not DeiT.recognises(held(swin, part="model"))
    t2t = theirs | {"tokens_to_token.project.bias": torch.zeros(3)}
    assert not DeiT.recognises(held(t2t, part="model"))


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"]
)
def test_heads_come_from_the_published_variant(name: str) -> None:
    known = VARIANTS[name].config
    described, state = model_of(known)
    theirs, heads = write_all(entries(described), state), known.model_dump()["heads"]
    described, found = read(DeiT, held(theirs, part="model"))
    assert described.variant == name
    assert any(f"heads = {heads}" in note for note in described.notes)
    assert same(found, state)


def test_heads_that_nobody_knows(tmp_path: Path) -> None:
    theirs, _ = written(vit(), tmp_path)
    with pytest.raises(CheckpointError, match=r"does not tell heads.*--set heads="):
        DeiT(held(theirs, part="model")).describe(Given())


def test_a_file_without_heads(tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS["distilled"], tmp_path)
    rest = {name: t for name, t in theirs.items() if not name.startswith("head.")}
    assert "head.bias" in refusal(DeiT, held(rest, part="model"), heads=3)
    theirs, ours = written(vit(), tmp_path)
    rest = {name: t for name, t in theirs.items() if not name.startswith("head.")}
    described, state = read(DeiT, held(rest, part="model"), heads=3)
    assert described.task is None
    assert same(state, {name: t for name, t in ours.items() if name.startswith("backbone.")})


def test_evaluation_is_that_of_the_original(tmp_path: Path) -> None:
    theirs, _ = written(vit(), tmp_path)
    described, _ = read(DeiT, held(theirs, part="model"), heads=3)
    assert described.preprocess.mean == (0.485, 0.456, 0.406)
    assert described.preprocess.interpolation == "bicubic"
    assert described.preprocess.resize.model_dump() == {
        "kind": "center_crop",
        "size": (24, 24),
        "crop_pct": 0.875,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_grid_that_is_no_square(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name].model_copy(update={"image_size": (16, 24)})
    theirs, ours = written(config, tmp_path)
    assert "pos_embed" in refusal(DeiT, held(theirs, part="model"), heads=3)
    described, state = read(DeiT, held(theirs, part="model"), heads=3, image_size=(16, 24))
    assert described.backbone == config
    assert same(state, ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_fault_is_named(name: str, tmp_path: Path) -> None:
    theirs, _ = written(CONFIGS[name], tmp_path)
    insist_every_fault_is_named(DeiT, held(theirs, part="model"), heads=3)


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    checkpoint = held(written(vit(), tmp_path)[0], part="model")
    for field, value in {"registers": 1, "pool": "mean", "depth": 3, "qk_norm": True}.items():
        assert field in refusal(DeiT, checkpoint, heads=3, **{field: value})
    assert "multiple" in refusal(DeiT, checkpoint, heads=5)
    assert "positions" in refusal(DeiT, checkpoint, heads=3, positions={"kind": "rotary_2d"})
    other = {"resampling": "bicubic_antialias"}
    described, _ = read(DeiT, checkpoint, heads=3, positions=other)
    assert described.backbone.model_dump()["positions"]["resampling"] == "bicubic_antialias"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.proj.weight", (24, 3, 8, 4)),
        ("patch_embed.proj.weight", (24, 3, 0, 0)),
        ("pos_embed", (1, 0, 24)),
        ("cls_token", ()),
        ("head.bias", (0,)),
    ],
)
def test_hostile_shapes(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    theirs, _ = written(vit(), tmp_path)
    spoiled = held(theirs | {name: torch.zeros(shape)}, part="model")
    assert name in refusal(DeiT, spoiled, heads=3)


FAULTS: list[tuple[Any, str]] = [
    (vit(activation="gelu_tanh"), "activation"),
    (vit(eps=1e-5), "eps"),
    (vit(registers=2), "registers"),
    (vit(pool="mean"), "pool"),
    (vit(layer_scale=1e-6), "positions"),
    (vit(positions={"kind": "none"}), "positions"),
    (vit(stem={"kind": "conv", "widths": (8,), "strides": (8,)}), "conv"),
    (SwinConfig(), "swin"),
]


@pytest.mark.parametrize(("config", "why"), FAULTS)
def test_what_the_format_cannot_express(config: Any, why: str) -> None:
    with torch.device("meta"):
        described, _ = model_of(config)
    assert why in DeiTWriter.refuses(described)


def test_other_colours_and_heads_are_refused() -> None:
    assert "mean" in DeiTWriter.refuses(model_of(vit(), half=True)[0])
    assert "hidden" in DeiTWriter.refuses(model_of(vit(), hidden=3)[0])
