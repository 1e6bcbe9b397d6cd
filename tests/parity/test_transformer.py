"""The original Transformer against torch's own, with stored random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitrail.nn.sequence_attention import SequenceAttention
from vitrail.transformer import Transformer, TransformerConfig

Weights = dict[str, Tensor]


@pytest.fixture(scope="session")
def case_folder(golden: Path) -> Path:
    return golden / "transformer"


def config_of(given: dict[str, Any], **changes: Any) -> TransformerConfig:
    table: dict[str, Any] = {
        "source_vocabulary": given["src_vocab"],
        "target_vocabulary": given["tgt_vocab"],
        "dim": given["dim"],
        "heads": given["heads"],
        "encoder_layers": given["encoder_layers"],
        "decoder_layers": given["decoder_layers"],
        "ffn": given["ffn"],
        "activation": given["activation"],
        "eps": given["layernorm_eps"],
        "norm": "pre" if given["norm_first"] else "post",
        "final_norms": True,
        "padding_id": given["padding_id"],
    }
    return TransformerConfig(**(table | changes))


def ours(theirs: Weights, config: TransformerConfig) -> Weights:
    """Names of `torch.nn.Transformer` to ours; rows of a packed projection are q, k, v."""
    new = {
        "source_embedding.weight": theirs["src_embed.weight"],
        "decoder.embedding.weight": theirs["tgt_embed.weight"],
        "decoder.generator.weight": theirs["generator.weight"],
        "decoder.generator.bias": theirs["generator.bias"],
    }
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "multihead_attn.out_proj.": "cross.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
        "norm3.": "norm3.",
    }
    for part, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for kind in ("weight", "bias"):
            new[f"{part}.norm.{kind}"] = theirs[f"transformer.{part}.norm.{kind}"]
            for i in range(depth):
                old = f"transformer.{part}.layers.{i}."
                for theirs_name, name in names.items():
                    if f"{old}{theirs_name}{kind}" in theirs:
                        new[f"{part}.blocks.{i}.{name}{kind}"] = theirs[f"{old}{theirs_name}{kind}"]
                if part == "decoder":
                    q, k, v = theirs[f"{old}multihead_attn.in_proj_{kind}"].chunk(3)
                    new[f"decoder.blocks.{i}.cross.q.{kind}"] = q
                    new[f"decoder.blocks.{i}.cross.kv.{kind}"] = torch.cat([k, v])
    return new


def load(folder: Path, **changes: Any) -> tuple[Transformer, dict[str, Any], Weights]:
    case = json.loads((folder / "case.json").read_text())
    model = Transformer(config_of(case["config"], **changes)).eval()
    theirs = torch.load(folder / case["checkpoint"], weights_only=True)
    model.load_state_dict(ours(theirs, model.config))
    return model, case, load_file(folder / "io.safetensors")


def attention_maps(model: Transformer, source: Tensor, target: Tensor) -> Weights:
    """softmax(q kᵀ · scale + bias) of every layer, which must give what the fused kernel gave."""
    maps: Weights = {}

    def probe_of(name: str) -> Any:
        def probe(q: Any, k: Any, v: Any, bias: Any, scale: float, joined: Any) -> None:
            scores = q @ k.transpose(-2, -1) * scale
            maps[name] = (scores if bias is None else scores + bias).softmax(dim=-1)
            torch.testing.assert_close(maps[name] @ v, joined, rtol=1e-5, atol=1e-5)

        return probe

    for name, module in model.named_modules():
        if isinstance(module, SequenceAttention):
            part, _, i, place = name.split(".")
            module.probe = probe_of(f"attn_{part}_{i}_{'cross' if place == 'cross' else 'self'}")
    model(source, target)
    return maps


@torch.no_grad()
def test_outputs_are_those_of_the_original(case_folder: Path) -> None:
    model, case, io = load(case_folder)
    source, target = io["src"], io["tgt"]
    memory = model.encode(source)
    hidden = model.decoder.hidden(target, memory)
    tolerance = case["tolerance"]
    atol, rtol = tolerance["suggested_atol"], tolerance["suggested_rtol"]
    torch.testing.assert_close(model(source, target), io["logits"], rtol=rtol, atol=atol)
    torch.testing.assert_close(memory, io["memory"], rtol=rtol, atol=3 * atol)
    torch.testing.assert_close(hidden, io["decoder_hidden"], rtol=rtol, atol=3 * atol)
    maps = attention_maps(model, source, target)
    assert {f for f in case["outputs"] if f.startswith("attn")} == set(maps)
    for name, weights in maps.items():
        torch.testing.assert_close(weights, io[name], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("wrong", [{"activation": "gelu"}, {"eps": 1e-3}, {"positions": "rotary"}])
def test_another_rule_does_not_pass(case_folder: Path, wrong: dict[str, Any]) -> None:
    model, case, io = load(case_folder, **wrong)
    error = (model(io["src"], io["tgt"]) - io["logits"]).abs().max()
    assert error > 10 * case["tolerance"]["suggested_atol"]
