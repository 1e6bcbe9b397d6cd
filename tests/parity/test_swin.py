"""Swin against outputs of the original code, stored beside random weights (see `test_vit`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from parity.test_vit import Weights
from vitrail.backbones.swin import Swin, SwinConfig, SwinV2Config
from vitrail.nn.windows import WindowAttention

CASES = ("swin_v1", "swin_v1_resized", "swin_v2")

RENAMED = {
    "patch_embed.norm.": "patch_norm.",
    "layers.": "stages.",
    "relative_position_bias_table": "positions.table",
    "cpb_mlp": "positions.mlp",
}
DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")


def config_of(case: dict[str, Any]) -> SwinConfig | SwinV2Config:
    given = case["config"]
    shared = {
        "image_size": tuple(given["image_size"]),
        "patch_size": given["patch_size"],
        "width": given["dim"],
        "depths": tuple(given["depths"]),
        "heads": tuple(given["num_heads"]),
        "window": given["window_size"],
        "mlp_ratio": given["mlp_ratio"],
        "eps": given["layernorm_eps"],
    }
    if case["family"] == "swinv2":
        return SwinV2Config(**shared, pretrained_windows=tuple(given["pretrained_window_sizes"]))
    return SwinConfig(**shared)


def ours(weights: Weights, config: SwinConfig | SwinV2Config) -> Weights:
    """Names and places; tables of another window are stretched as the original does."""
    new: Weights = {}
    for name, value in weights.items():
        if name.endswith(DERIVED):
            continue
        if name.endswith("relative_position_bias_table"):
            size = 2 * config.windows[int(name.split(".")[1])].size - 1
            new[our_name(name)] = stretch(value, size)
        else:
            new[our_name(name)] = value.flatten() if name.endswith("logit_scale") else value
    return new


def our_name(name: str) -> str:
    if ".downsample." in name:  # the original merges at the end of a stage, we at the start
        _, stage, rest = name.split(".", 2)
        name = f"layers.{int(stage) + 1}.{rest}"
    for old, replacement in RENAMED.items():
        name = name.replace(old, replacement)
    return name


def stretch(table: torch.Tensor, size: int) -> torch.Tensor:
    side = round(table.shape[0] ** 0.5)
    image = table.T.reshape(1, -1, side, side)
    return F.interpolate(image, size=(size, size), mode="bicubic")[0].flatten(1).T


def load(folder: Path) -> tuple[Swin, dict[str, Any], Weights, Weights]:
    case = json.loads((folder / "case.json").read_text())
    weights = torch.load(folder / case["checkpoint"], weights_only=True)["model"]
    config = config_of(case)
    table = ours(weights, config)
    backbone = Swin(config).eval()
    backbone.load_state_dict({k: v for k, v in table.items() if not k.startswith("head.")})
    return backbone, case, table, load_file(folder / "io.safetensors")


@pytest.mark.parametrize("way", ["quick", "fused", "probed"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(golden: Path, name: str, way: str) -> None:
    backbone, case, table, io = load(golden / name)
    seen: list[torch.Tensor] = []

    def probe(q, k, v, bias, scale, out) -> None:
        weights = (q @ k.mT * scale + bias).softmax(dim=-1)
        torch.testing.assert_close(weights @ v, out, rtol=1e-5, atol=1e-5)
        seen.append(weights.detach())

    if way == "probed":
        for module in backbone.modules():
            if isinstance(module, WindowAttention):
                module.probe = probe
    with torch.set_grad_enabled(way == "fused"):
        pooled = backbone(io["input"]).pooled.detach()
    logits = pooled @ table["head.weight"].T + table["head.bias"]

    tolerance = case["tolerance"]
    rtol, atol = tolerance["suggested_rtol"], tolerance["suggested_atol"]
    torch.testing.assert_close(logits, io["logits"], rtol=rtol, atol=atol)
    torch.testing.assert_close(pooled, io["pre_logits"], rtol=rtol, atol=3 * atol)
    if way == "probed":
        assert len(seen) == 4
        expected = [io[key] for key in sorted(io) if key.startswith("attn_")]
        for weights, original in zip(seen, expected, strict=bool(expected)):
            assert weights.shape == original.shape
            assert (weights - original).abs().max() < 2e-5


def test_pretrained_windows_matter_to_the_continuous_bias(golden: Path) -> None:
    backbone, case, _, io = load(golden / "swin_v2")
    config = backbone.config.model_copy(update={"pretrained_windows": (8, 8)})
    other = Swin(config).eval()
    other.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        gap = (other(io["input"]).pooled - io["pre_logits"]).abs().max()
    assert gap > 30 * case["tolerance"]["suggested_atol"]
