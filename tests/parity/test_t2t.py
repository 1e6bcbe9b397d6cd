"""T2T-ViT against outputs of the owners' code, stored beside random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vitrail.backbones.t2t import T2T, T2TConfig
from vitrail.explain.capture import capture
from vitrail.nn.soft_split import SoftmaxTokenAttention

Weights = dict[str, torch.Tensor]

CASES = ("t2t_performer", "t2t_transformer")

RENAMED = {
    "cls_token": "prefix_token",
    "pos_embed": "pos_embed.weight",
    "tokens_to_token.attention1.": "patch_embed.blocks.0.",
    "tokens_to_token.attention2.": "patch_embed.blocks.1.",
    "tokens_to_token.project.": "patch_embed.project.",
}
PERFORMER = {
    ".kqv.": ".attn.kqv.",
    ".proj.": ".attn.proj.",
    ".w": ".attn.w",
    ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
}


def read(folder: Path, case: dict[str, Any]) -> Weights:
    """The moving average of the weights, which the owners evaluate."""
    table = torch.load(folder / case["checkpoint"], weights_only=True)
    weights = table["state_dict_ema"] if "state_dict_ema" in table else table["state_dict"]
    return {ours(name.removeprefix("module.")): value for name, value in weights.items()}


def ours(name: str) -> str:
    for old, new in RENAMED.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    if name.startswith("patch_embed.blocks.") and ".attn." not in name:
        head, digit, rest = name[:18], name[19], name[20:]
        for old, new in PERFORMER.items():
            if rest.startswith(old) and (old != ".w" or rest == ".w"):
                return f"{head}.{digit}{new}{rest.removeprefix(old)}"
    return name


def config_of(case: dict[str, Any], weights: Weights) -> T2TConfig:
    given = case["config"]
    token_block: dict[str, Any] = {"kind": given["tokens_type"]}
    if given["tokens_type"] == "performer":
        token_block["features"] = weights["patch_embed.blocks.0.attn.w"].shape[0]
    return T2TConfig(
        image_size=tuple(given["image_size"]),
        token_block=token_block,
        token_width=given["token_dim"],
        width=given["dim"],
        depth=given["depth"],
        heads=given["heads"],
        mlp_ratio=given["mlp_ratio"],
    )


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(golden: Path, name: str) -> None:
    folder = golden / name
    case = json.loads((folder / "case.json").read_text())
    weights = read(folder, case)
    backbone = T2T(config_of(case, weights)).eval()
    backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head.")})
    io = load_file(folder / "io.safetensors")
    with torch.no_grad(), capture(backbone) as record:
        features = backbone(io["input"])
    seen = watch(backbone)
    with torch.no_grad():
        tokens = backbone.patch_embed(io["input"]).flatten(2).transpose(1, 2)
    logits = features.pooled @ weights["head.weight"].T + weights["head.bias"]

    atol = case["tolerance"]["suggested_atol"]
    rtol = case["tolerance"]["suggested_rtol"]
    torch.testing.assert_close(logits, io["logits"], rtol=rtol, atol=atol)
    torch.testing.assert_close(features.pooled, io["pre_logits"], rtol=rtol, atol=3 * atol)
    torch.testing.assert_close(tokens, io["tokens"], rtol=rtol, atol=3 * atol)
    blocks = [layer.weights for layer in record.layers][-backbone.config.depth :]
    for i, attention in enumerate(blocks):
        assert (attention - io[f"attn_{i}"]).abs().max() < 1e-5
    splits = [key for key in sorted(io) if key.startswith("attn_t2t_")]
    assert bool(splits) == (case["config"]["tokens_type"] == "transformer")
    for key, attention in zip(splits, seen, strict=True):
        assert (attention - io[key]).abs().max() < 1e-5
    assert record.max_error < 1e-5


def watch(backbone: T2T) -> list[torch.Tensor]:
    """Attention matrices of the soft splits, in the order in which they run."""
    seen: list[torch.Tensor] = []

    def probe(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        out: torch.Tensor,
    ) -> None:
        del v, bias, out
        seen.append((q @ k.transpose(-2, -1) * scale).softmax(dim=-1))

    for module in backbone.modules():
        if isinstance(module, SoftmaxTokenAttention):
            module.probe = probe
    return seen
