"""T2T-ViT's own files; those of the golden cases are compared in tests/parity."""

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
from vitrail.backbones.t2t import T2TConfig, TokenPerformerConfig, TokenTransformerConfig
from vitrail.backbones.vit import ViTConfig
from vitrail.weights.formats.deit import DeiT
from vitrail.weights.formats.t2t import T2T, T2TWriter

EMA = "state_dict_ema"


def t2t(**changes: Any) -> T2TConfig:
    table: dict[str, Any] = {
        "image_size": (48, 48),
        "token_width": 16,
        "token_block": TokenPerformerConfig(features=8),
        "width": 24,
        "depth": 2,
        "heads": 3,
        "mlp_ratio": 1.5,
    }
    return T2TConfig(**(table | changes))


CONFIGS = {
    "performer": t2t(),
    "transformer": t2t(token_block=TokenTransformerConfig()),
}


def written(config: T2TConfig, out: Path) -> tuple[Weights, Weights]:
    """Their weights, from the file, and ours."""
    described, state = model_of(config)
    assert T2TWriter.refuses(described) == ""
    (path,) = T2TWriter.write(described, state, str(out / "t2t.pth.tar"))
    return torch.load(path, weights_only=True)[EMA], state


@pytest.mark.parametrize("module", ["", "module."])
@pytest.mark.parametrize("part", [EMA, "state_dict", "net", ""])
@pytest.mark.parametrize("name", CONFIGS)
def test_written_and_read_is_the_same(name: str, part: str, module: str, tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS[name], tmp_path)
    checkpoint = held({module + key: tensor for key, tensor in theirs.items()}, part=part)
    assert not DeiT.recognises(checkpoint)
    described, state = read(T2T, checkpoint, heads=3)
    assert described.backbone == CONFIGS[name]
    assert same(state, ours)


def test_names_are_those_of_the_owners(tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS["performer"], tmp_path)
    attention = "tokens_to_token.attention2"
    block = "backbone.patch_embed.blocks.1"
    assert torch.equal(theirs[f"{attention}.w"], ours[f"{block}.attn.w"])
    assert torch.equal(theirs[f"{attention}.mlp.2.weight"], ours[f"{block}.mlp.fc2.weight"])
    assert theirs[f"{attention}.kqv.weight"].shape == (48, 9 * 16)
    assert "blocks.0.attn.qkv.bias" not in theirs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("module", ["", "module."])
def test_every_fault_is_named(name: str, module: str, tmp_path: Path) -> None:
    theirs, _ = written(CONFIGS[name], tmp_path)
    weights = {module + key: tensor for key, tensor in theirs.items()}
    insist_every_fault_is_named(T2T, held(weights, part=EMA), heads=3)


def test_heads_come_from_the_published_variant(tmp_path: Path) -> None:
    config = T2TConfig(width=256, depth=7, heads=4, mlp_ratio=2.0)
    theirs, _ = written(config, tmp_path)
    described, _ = read(T2T, held(theirs, part=EMA))
    assert described.variant == "t2t_vit_7"
    assert described.backbone == config
    theirs, _ = written(CONFIGS["performer"], tmp_path)
    assert "--set heads=" in refusal(T2T, held(theirs, part=EMA))


def test_evaluation_is_that_of_the_original(tmp_path: Path) -> None:
    theirs, _ = written(CONFIGS["performer"], tmp_path)
    described, _ = read(T2T, held(theirs, part=EMA), heads=3)
    assert described.preprocess.std == (0.229, 0.224, 0.225)
    assert described.preprocess.interpolation == "bicubic"
    assert described.preprocess.resize.model_dump()["crop_pct"] == 0.9


def test_a_file_without_a_head(tmp_path: Path) -> None:
    theirs, ours = written(CONFIGS["transformer"], tmp_path)
    rest = {name: t for name, t in theirs.items() if not name.startswith("head.")}
    described, state = read(T2T, held(rest, part=EMA), heads=3)
    assert described.task is None
    assert same(state, {name: t for name, t in ours.items() if name.startswith("backbone.")})


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    checkpoint = held(written(CONFIGS["performer"], tmp_path)[0], part=EMA)
    block = {"kind": "transformer"}
    assert "token_block" in refusal(T2T, checkpoint, heads=3, token_block=block)
    splits = [{"kernel": 7, "stride": 4}]
    assert "splits" in refusal(T2T, checkpoint, heads=3, splits=splits)
    assert "pos_embed" in refusal(T2T, checkpoint, heads=3, image_size=(32, 32))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tokens_to_token.attention1.w", (8,)),
        ("tokens_to_token.attention2.w", (0, 16)),
        ("pos_embed", (1, 1, 24)),
        ("cls_token", ()),
        ("head.weight", (0, 24)),
    ],
)
def test_hostile_shapes(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    theirs, _ = written(CONFIGS["performer"], tmp_path)
    spoiled = held(theirs | {name: torch.zeros(shape)}, part=EMA)
    assert name in refusal(T2T, spoiled, heads=3)


def test_hostile_names() -> None:
    nothing = {"tokens_to_token.": torch.zeros(1)}
    assert "blocks.0" in refusal(T2T, held(nothing, part=EMA))
    empty = {"tokens_to_token.attention1.": torch.zeros(1), "blocks.0.": torch.zeros(1)}
    assert "missing" in refusal(T2T, held(empty, part=EMA))


def test_what_the_format_cannot_express() -> None:
    three = {"kernel": 3, "stride": 2}
    faults: list[tuple[Any, str]] = [
        (t2t(splits=(three, three)), "splits"),
        (t2t(image_size=(48, 32)), "square"),
        (ViTConfig(), "vit"),
    ]
    for config, why in faults:
        assert why in T2TWriter.refuses(model_of(config)[0])
    assert "mean" in T2TWriter.refuses(model_of(t2t(), half=True)[0])
    assert "hidden" in T2TWriter.refuses(model_of(t2t(), hidden=3)[0])
