"""google-research's npz files; their numbers are compared in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.resnet import SmallRootConfig
from vitrail.backbones.swin import SwinConfig
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.weights.formats.bigvision import BigVision
from vitrail.weights.formats.google import Google, GoogleWriter

TABLE = "Transformer/posembed_input/pos_embedding"
PLACES = Learned1dConfig(resampling="bilinear_aligned")


def vit(**changes: Any) -> ViTConfig:
    table: dict[str, Any] = {
        "image_size": (24, 24),
        "stem": PatchStemConfig(patch_size=8),
        "positions": PLACES,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "mlp_ratio": 1.5,
        "activation": "gelu_tanh",
    }
    return ViTConfig(**(table | changes))


def gap() -> ViTConfig:
    positions = PLACES.model_copy(update={"prefix": False})
    return vit(class_token=False, pool="mean", positions=positions)


def hybrid(**changes: Any) -> HybridConfig:
    table: dict[str, Any] = {
        "image_size": (32, 32),
        "resnet_depths": (2, 1),
        "resnet_width": 32,
        "patch_size": 2,
        "positions": PLACES,
        "width": 24,
        "depth": 1,
        "heads": 3,
        "mlp_ratio": 2.0,
        "activation": "gelu_tanh",
    }
    return HybridConfig(**(table | changes))


def written(config: ViTConfig | HybridConfig, out: Path, **task: Any) -> tuple[Weights, Weights]:
    """Their weights, from the file, and ours."""
    described, state = model_of(config, half=True, **task)
    assert GoogleWriter.refuses(described) == ""
    assert list(GoogleWriter.write(described, state, str(out / "m.npz"))) == [str(out / "m.npz")]
    with np.load(out / "m.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}, state


CONFIGS = {
    "vit": vit(),
    "gap": gap(),
    "hybrid": hybrid(),
    "root": hybrid(resnet_depths=(), patch_size=4),
}


@pytest.mark.parametrize("hidden", [None, 7])
@pytest.mark.parametrize("name", CONFIGS)
def test_written_and_read_is_the_same(name: str, hidden: int | None, tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS[name], tmp_path, hidden=hidden)
    described, state = read(Google, held(theirs, "npz"))
    assert described.backbone == CONFIGS[name]
    assert described.task is not None
    assert described.task.hidden == hidden
    assert same(state, ours)
    assert not BigVision.recognises(held(theirs, "npz"))


def test_layouts_are_those_of_flax(tmp_path: Path) -> None:
    theirs, ours = written(vit(), tmp_path)
    block = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    key, out = theirs[f"{block}/key/kernel"], theirs[f"{block}/out/kernel"]
    tokens = torch.randn(4, 24)
    expected = (tokens @ ours["backbone.blocks.1.attn.qkv.weight"].T)[:, 24:48].unflatten(1, (3, 8))
    torch.testing.assert_close(torch.einsum("nd,dhe->nhe", tokens, key), expected)
    joined = tokens @ ours["backbone.blocks.1.attn.proj.weight"].T
    mixed = torch.einsum("nhe,hed->nd", tokens.unflatten(1, (3, 8)), out)
    torch.testing.assert_close(mixed, joined)
    assert theirs["embedding/kernel"].shape == (8, 8, 3, 24)


def linen(name: str) -> str:
    for old, new in (("Attention_1/", "Attention_0/"), ("Norm_2/", "Norm_1/"), ("k_3/", "k_0/")):
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/"])
@pytest.mark.parametrize("numbering", [str, linen])
@pytest.mark.parametrize("config", ["vit", "hybrid"])
def test_every_way_of_naming(config: str, prefix: str, numbering: Any, tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS[config], tmp_path)
    checkpoint = held({prefix + numbering(name): t for name, t in theirs.items()}, "npz")
    assert not BigVision.recognises(checkpoint)
    assert same(read(Google, checkpoint)[1], ours)


def test_the_state_of_an_optimiser_is_not_read(tmp_path: Path) -> None:
    theirs, ours = written(vit(), tmp_path)
    state = {"opt/state/step": torch.tensor(7), "opt/state/param_states/cls/mu": torch.zeros(3)}
    dump = {f"opt/target/{name}": t for name, t in theirs.items()} | state
    assert same(read(Google, held(dump, "npz"))[1], ours)
    assert "opt/state/step" in refusal(Google, held(theirs | state, "npz"))


def test_old_group_norms(tmp_path: Path) -> None:
    theirs, ours = written(hybrid(), tmp_path)
    old = {
        n: t[None, None, None] if "gn" in n.split("/")[-2] else t
        for n, t in theirs.items()
        if "/" in n
    }
    old["cls"] = theirs["cls"]
    assert same(read(Google, held(old, "npz"))[1], ours)


def test_a_file_without_a_head(tmp_path: Path) -> None:
    theirs, ours = written(vit(), tmp_path)
    rest = {name: t for name, t in theirs.items() if not name.startswith("head/")}
    described, state = read(Google, held(rest, "npz"))
    assert described.task is None
    assert same(state, {name: t for name, t in ours.items() if name.startswith("backbone.")})


def test_evaluation_is_that_of_the_original(tmp_path: Path) -> None:
    described, _ = read(Google, held(written(vit(), tmp_path)[0], "npz"))
    preprocess = described.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (preprocess.resize.kind, preprocess.interpolation) == ("squash", "bilinear")
    assert not preprocess.antialias


def test_published_variants_are_told(tmp_path: Path) -> None:
    tiny = vit(image_size=(224, 224), stem=PatchStemConfig(), width=192, depth=12, mlp_ratio=4.0)
    theirs, _ = written(tiny, tmp_path)
    assert read(Google, held(theirs, "npz"))[0].variant == "vit_tiny_patch16_224"


def test_a_grid_that_is_no_square(tmp_path: Path) -> None:
    theirs, ours = written(vit(image_size=(16, 40)), tmp_path)
    assert "image_size" in refusal(Google, held(theirs, "npz"))
    described, state = read(Google, held(theirs, "npz"), image_size=[16, 40])
    assert described.backbone.image_size == (16, 40)
    assert same(state, ours)
    assert "24 x 24" in refusal(Google, held(theirs, "npz"), image_size=(24, 24))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_fault_is_named(name: str, tmp_path: Path) -> None:
    theirs, _ = written(CONFIGS[name], tmp_path, hidden=7 if name == "vit" else None)
    insist_every_fault_is_named(Google, held(theirs, "npz"))


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    checkpoint = held(written(vit(), tmp_path)[0], "npz")
    assert "registers" in refusal(Google, checkpoint, registers=4)
    assert "positions" in refusal(Google, checkpoint, positions={"kind": "none"})
    assert "heads" in refusal(Google, checkpoint, heads=6)
    assert (
        read(Google, checkpoint, activation="gelu")[0].backbone.model_dump()["activation"] == "gelu"
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embedding/kernel", (0, 0, 3, 24)),
        ("embedding/kernel", (8, 4, 3, 24)),
        (TABLE, (1, 0, 24)),
        (TABLE, ()),
        ("head/bias", (0,)),
        ("cls", (2,)),
    ],
)
def test_hostile_shapes(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    theirs, _ = written(vit(), tmp_path)
    assert name in refusal(Google, held(theirs | {name: torch.zeros(shape)}, "npz"))


def test_hostile_names(tmp_path: Path) -> None:
    theirs, _ = written(hybrid(), tmp_path)
    stages = {f"block{i}/unit1/x": torch.zeros(1) for i in range(3, 40)}
    assert "block" in refusal(Google, held(theirs | stages, "npz"))
    nothing = {"Transformer/encoderblock_9/x": torch.zeros(1)}
    assert "encoderblock_0" in refusal(Google, held(nothing, "npz"))
    empty = {n: torch.zeros(0) for n in theirs}
    assert "empty" in refusal(Google, held(empty, "npz"))
    scalars = {n: torch.zeros(()) for n in theirs}
    assert "missing" in refusal(Google, held(scalars, "npz"))


FAULTS: list[tuple[Any, str]] = [
    (vit(activation="gelu"), "gelu_tanh"),
    (vit(eps=1e-12), "eps"),
    (vit(registers=2), "registers"),
    (vit(layer_scale=1.0), "layer_scale"),
    (vit(pool="attention"), "attention"),
    (vit(pool="mean"), "class token"),
    (vit(positions=Learned1dConfig(prefix=False)), "no position"),
    (vit(positions={"kind": "sincos_2d"}), "sincos_2d"),
    (vit(stem={"kind": "conv", "widths": (8,), "strides": (8,)}), "conv"),
    (hybrid(standardisation="variance"), "standardisation"),
    (hybrid(group_norm_eps=1e-5), "group_norm_eps"),
    (hybrid(root=SmallRootConfig()), "root"),
    (SwinConfig(), "swin"),
]


@pytest.mark.parametrize(("config", "why"), FAULTS)
def test_what_the_format_cannot_express(config: Any, why: str) -> None:
    with torch.device("meta"):
        described, _ = model_of(config, half=True)
    assert why in GoogleWriter.refuses(described)


def test_other_colours_are_refused() -> None:
    assert "mean" in GoogleWriter.refuses(model_of(vit())[0])
