"""The parts against outputs of the original implementations, stored beside random weights.

Each case brings a checkpoint in its own format. Reading such formats is no part of the package yet:
the names are mapped here, so that what is tested is the arithmetic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitrail.backbones import build_backbone
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.explain.capture import capture
from vitrail.tasks.classify import Classify, ClassifyConfig

Weights = dict[str, torch.Tensor]

TIMM = ("timm_vit", "timm_vit_gap", "timm_vit_registers", "timm_deit3")
DEIT = ("deit_plain", "deit_plain_resized")
GOOGLE = ("google_vit_finetuned", "google_vit_finetuned_resized", "google_vit_linen")
BIG_VISION = ("bigvision_gap", "bigvision_map")

POSITIONS = "Transformer/posembed_input/pos_embedding"
POOLS = {"cls": "class", "token": "class", "avg": "mean", "gap": "mean", "map": "attention"}


def read_timm(folder: Path, case: dict[str, Any]) -> Weights:
    return load_file(folder / case["checkpoint"])


def read_deit(folder: Path, case: dict[str, Any]) -> Weights:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(folder / case["checkpoint"], weights_only=True)["model"]


def read_google(folder: Path, case: dict[str, Any]) -> Weights:
    """Names and layouts of google-research to those of timm."""
    arrays = {
        key.removeprefix(case["config"]["key_prefix"]): torch.from_numpy(value.astype(np.float32))
        for key, value in np.load(folder / case["checkpoint"]).items()
    }
    published = case["config"]["numbering"] == "published"
    attention, norm, mlp = (1, 2, 3) if published else (0, 1, 0)
    width = arrays["embedding/kernel"].shape[-1]
    new = {
        "patch_embed.proj.weight": arrays["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
        "pos_embed": arrays[POSITIONS if POSITIONS in arrays else "pos_embedding"],
        "norm.weight": arrays["Transformer/encoder_norm/scale"],
        "norm.bias": arrays["Transformer/encoder_norm/bias"],
        "head.weight": arrays["head/kernel"].T,
        "head.bias": arrays["head/bias"],
    }
    if "cls" in arrays:
        new["cls_token"] = arrays["cls"]
    if "MAPHead_0/probe" in arrays:
        new |= attention_pool(arrays, width)
    for i in range(case["config"]["depth"]):
        old = f"Transformer/encoderblock_{i}"
        mha = f"{old}/MultiHeadDotProductAttention_{attention}"
        qkv = [
            (arrays[f"{mha}/{n}/kernel"], arrays[f"{mha}/{n}/bias"])
            for n in ("query", "key", "value")
        ]
        new |= {
            f"blocks.{i}.attn.qkv.weight": torch.cat([k.reshape(width, -1).T for k, _ in qkv]),
            f"blocks.{i}.attn.qkv.bias": torch.cat([b.reshape(-1) for _, b in qkv]),
            f"blocks.{i}.attn.proj.weight": arrays[f"{mha}/out/kernel"].reshape(-1, width).T,
            f"blocks.{i}.attn.proj.bias": arrays[f"{mha}/out/bias"],
        }
        for name, place in (("LayerNorm_0", "norm1"), (f"LayerNorm_{norm}", "norm2")):
            new[f"blocks.{i}.{place}.weight"] = arrays[f"{old}/{name}/scale"]
            new[f"blocks.{i}.{place}.bias"] = arrays[f"{old}/{name}/bias"]
        for dense, place in ((0, "fc1"), (1, "fc2")):
            key = f"{old}/MlpBlock_{mlp}/Dense_{dense}"
            new[f"blocks.{i}.mlp.{place}.weight"] = arrays[f"{key}/kernel"].T
            new[f"blocks.{i}.mlp.{place}.bias"] = arrays[f"{key}/bias"]
    return new


def attention_pool(arrays: Weights, width: int) -> Weights:
    mha = "MAPHead_0/MultiHeadDotProductAttention_0"
    q, k, v = (arrays[f"{mha}/{n}/kernel"].reshape(width, -1).T for n in ("query", "key", "value"))
    bq, bk, bv = (arrays[f"{mha}/{n}/bias"].reshape(-1) for n in ("query", "key", "value"))
    new = {
        "pool.latent": arrays["MAPHead_0/probe"],
        "pool.q.weight": q,
        "pool.q.bias": bq,
        "pool.kv.weight": torch.cat([k, v]),
        "pool.kv.bias": torch.cat([bk, bv]),
        "pool.proj.weight": arrays[f"{mha}/out/kernel"].reshape(-1, width).T,
        "pool.proj.bias": arrays[f"{mha}/out/bias"],
        "pool.norm.weight": arrays["MAPHead_0/LayerNorm_0/scale"],
        "pool.norm.bias": arrays["MAPHead_0/LayerNorm_0/bias"],
    }
    for dense, place in ((0, "fc1"), (1, "fc2")):
        new[f"pool.mlp.{place}.weight"] = arrays[f"MAPHead_0/MlpBlock_0/Dense_{dense}/kernel"].T
        new[f"pool.mlp.{place}.bias"] = arrays[f"MAPHead_0/MlpBlock_0/Dense_{dense}/bias"]
    return new


READERS = {**dict.fromkeys(TIMM, read_timm), **dict.fromkeys(DEIT, read_deit)} | dict.fromkeys(
    GOOGLE + BIG_VISION, read_google
)


def config_of(case: dict[str, Any], weights: Weights) -> ViTConfig:
    """Shapes from the weights; what weights do not tell from the case."""
    given = case["config"]
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    class_token = "cls_token" in weights
    distilled = "dist_token" in weights
    prefix = class_token + distilled + registers
    kwargs = given.get("timm_kwargs", {})
    rows, columns = given.get("file_position_grid") or [
        n // patch for n in given.get("image_size", given.get("input_size"))
    ]
    scale = weights.get("blocks.0.ls1.gamma")
    resampling = {"google-npz": "bilinear_aligned", "deit-pth": "bicubic"}.get(
        case["format"], "bicubic_antialias"
    )
    return ViTConfig(
        image_size=(rows * patch, columns * patch),
        stem=PatchStemConfig(patch_size=patch),
        positions=Learned1dConfig(
            prefix=prefix > 0 and weights["pos_embed"].shape[1] == prefix + rows * columns,
            resampling=resampling,
        ),
        width=width,
        depth=given.get("depth") or kwargs["depth"],
        heads=given.get("heads") or kwargs["num_heads"],
        mlp_ratio=weights["blocks.0.mlp.fc1.bias"].numel() / width,
        activation="gelu_tanh" if given["gelu"] == "tanh" else "gelu",
        eps=given["layernorm_eps"],
        layer_scale=None if scale is None else 1.0,
        class_token=class_token,
        distillation_token=distilled,
        registers=registers,
        pool=POOLS[given.get("pooling", given.get("global_pool"))],
    )


def ours(weights: Weights, config: ViTConfig) -> Weights:
    """The few names in which timm differs from us."""
    prefix = ("cls_token", "dist_token", "reg_token")
    new = {k: v for k, v in weights.items() if k not in (*prefix, "pos_embed")}
    tokens = [weights[name] for name in prefix if name in weights]
    new["prefix_token"] = torch.cat([*tokens, torch.empty(1, 0, config.width)], dim=1)
    new["pos_embed.weight"] = weights["pos_embed"]
    return new


@pytest.mark.parametrize("name", READERS)
def test_outputs_are_those_of_the_original(golden: Path, name: str) -> None:
    folder = golden / name
    case = json.loads((folder / "case.json").read_text())
    weights = READERS[name](folder, case)
    config = config_of(case, weights)
    table = ours(weights, config)
    backbone = build_backbone(config).eval()
    backbone.load_state_dict({k: v for k, v in table.items() if not k.startswith("head.")})
    io = load_file(folder / "io.safetensors")
    with torch.no_grad(), capture(backbone) as record:
        features = backbone(io["input"])
    logits = features.pooled @ table["head.weight"].T + table["head.bias"]

    atol = case["tolerance"]["suggested_atol"]
    compare = {"rtol": case["tolerance"]["suggested_rtol"], "atol": 3 * atol}
    torch.testing.assert_close(logits, io["logits"], rtol=compare["rtol"], atol=atol)
    torch.testing.assert_close(features.tokens, io["last_hidden_state"], **compare)
    torch.testing.assert_close(features.pooled, io["pre_logits"], **compare)
    assert len(record.layers) == config.depth
    for i, layer in enumerate(record.layers):
        assert (layer.weights - io[f"attn_{i}"]).abs().max() < 1e-5
    assert record.max_error < 1e-5


@pytest.mark.parametrize("name", ["deit_plain_resized", "google_vit_finetuned_resized"])
@pytest.mark.parametrize("convention", ["bicubic_antialias", "bicubic", "bilinear_aligned"])
def test_only_the_right_resampling_passes(golden: Path, name: str, convention: str) -> None:
    folder = golden / name
    case = json.loads((folder / "case.json").read_text())
    weights = READERS[name](folder, case)
    right = config_of(case, weights)
    positions = right.positions.model_copy(update={"resampling": convention})
    config = right.model_copy(update={"positions": positions})
    backbone = build_backbone(config).eval()
    table = ours(weights, config)
    backbone.load_state_dict({k: v for k, v in table.items() if not k.startswith("head.")})
    io = load_file(folder / "io.safetensors")
    with torch.no_grad():
        error = (backbone(io["input"]).pooled - io["pre_logits"]).abs().max()
    is_right = positions == right.positions
    assert (error < 3 * case["tolerance"]["suggested_atol"]) == is_right


@pytest.mark.parametrize(
    ("name", "reader"), [("deit_distilled", read_deit), ("timm_deit_distilled", read_timm)]
)
def test_a_distilled_deit_answers_with_both_heads(golden: Path, name: str, reader: Any) -> None:
    folder = golden / name
    case = json.loads((folder / "case.json").read_text())
    weights = reader(folder, case)
    config = config_of(case, weights)
    table = ours(weights, config)
    heads = {k: table.pop(k) for k in list(table) if k.startswith("head")}
    backbone = build_backbone(config).eval()
    backbone.load_state_dict(table)
    classes = tuple(str(i) for i in range(len(heads["head.bias"])))
    task = Classify(ClassifyConfig(classes=classes), config.width, distilled=True)
    task.load_state_dict(heads)
    io = load_file(folder / "io.safetensors")
    with torch.no_grad():
        features = backbone(io["input"])
        own, distilled = task.heads(features)
        found = {"logits": task(features), "logits_cls": own, "logits_dist": distilled}
    for key, tensor in found.items():
        if key in io:
            atol = case["tolerance"]["suggested_atol"]
            torch.testing.assert_close(tensor, io[key], rtol=1e-5, atol=atol)
    assert "logits" in io
