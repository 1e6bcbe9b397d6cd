"""The hybrid against outputs of google-research's own code, stored beside random weights.

Reading that format is the package's own affair: the names of the ResNet are mapped here, so that
what is tested is the arithmetic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from parity.test_vit import Weights, read_google
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.explain.capture import capture
from vitrail.nn import convolutions
from vitrail.nn.blocks import Mlp
from vitrail.nn.convolutions import StandardisedConv2d

PARTS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def resnet_name(key: str) -> str | None:
    """`block1/unit2/gn3/scale` is `resnet.stages.0.1.norm3.weight`; None if not of the ResNet."""
    *places, part = key.split("/")
    match places:
        case ["conv_root" | "gn_root" as layer]:
            return f"resnet.root.{'conv' if layer == 'conv_root' else 'norm'}.{PARTS[part]}"
        case [stage, unit, layer] if stage.startswith("block"):
            at = f"resnet.stages.{int(stage[5:]) - 1}.{int(unit[4:]) - 1}"
            layer = {"conv_proj": "downsample.0", "gn_proj": "downsample.1"}.get(layer, layer)
            return f"{at}.{layer.replace('gn', 'norm')}.{PARTS[part]}"
        case _:
            return None


def read(folder: Path) -> tuple[dict[str, Any], Weights]:
    """The case, and its weights under our names."""
    case = json.loads((folder / "case.json").read_text())
    weights = read_google(folder, case)
    weights["prefix_token"] = weights.pop("cls_token")
    weights["pos_embed.weight"] = weights.pop("pos_embed")
    for key, value in np.load(folder / case["checkpoint"]).items():
        if (name := resnet_name(key)) is not None:
            array = torch.from_numpy(value.astype(np.float32))
            weights[name] = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.flatten()
    return case, weights


def build(case: dict[str, Any], weights: Weights) -> Hybrid:
    given = case["config"]
    config = HybridConfig(
        image_size=given["image_size"],
        resnet_depths=given["resnet_layers"],
        resnet_width=given["resnet_width"],
        groups=given["groupnorm_groups"],
        patch_size=given["patch_size"],
        width=given["dim"],
        depth=given["depth"],
        heads=given["heads"],
        mlp_ratio=given["mlp_dim"] / given["dim"],
        activation="gelu_tanh",
        eps=given["layernorm_eps"],
    )
    backbone = Hybrid(config).eval()
    backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head.")})
    return backbone


@pytest.mark.parametrize("name", ["google_hybrid", "google_hybrid_stem"])
def test_outputs_are_those_of_the_original(golden: Path, name: str) -> None:
    case, weights = read(golden / name)
    backbone = build(case, weights)
    io = load_file(golden / name / "io.safetensors")
    with torch.no_grad(), capture(backbone) as record:
        features = backbone(io["input"])
    logits = features.pooled @ weights["head.weight"].T + weights["head.bias"]

    atol, rtol = case["tolerance"]["suggested_atol"], case["tolerance"]["suggested_rtol"]
    torch.testing.assert_close(logits, io["logits"], rtol=rtol, atol=atol)
    for found, key in ((features.tokens, "last_hidden_state"), (features.pooled, "pre_logits")):
        torch.testing.assert_close(found, io[key], rtol=rtol, atol=3 * atol)
    assert len(record.layers) == case["config"]["depth"]
    for i, layer in enumerate(record.layers):
        assert (layer.weights - io[f"attn_{i}"]).abs().max() < 1e-5


def other_kernels(conv: StandardisedConv2d) -> torch.Tensor:
    var, mean = torch.var_mean(conv.weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (conv.weight - mean) / (var + 1e-4).sqrt()


@pytest.mark.parametrize("rule", ["kernels", "padding", "gelu"])
def test_another_rule_does_not_pass(
    golden: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    case, weights = read(golden / "google_hybrid")
    backbone = build(case, weights)
    if rule == "kernels":  # standardised by another epsilon
        monkeypatch.setattr(StandardisedConv2d, "standardised", other_kernels)
    elif rule == "padding":  # the greater half in front
        same = convolutions.same_padding
        monkeypatch.setattr(convolutions, "same_padding", lambda *size: same(*size)[::-1])
    else:  # the exact GELU
        for part in backbone.modules():
            if isinstance(part, Mlp):
                part.act = nn.GELU()
    io = load_file(golden / "google_hybrid" / "io.safetensors")
    with torch.no_grad():
        error = (backbone(io["input"]).pooled - io["pre_logits"]).abs().max()
    assert error > 3 * case["tolerance"]["suggested_atol"]
