"""State dicts of `torch.nn.Transformer` between `src_embed`, `tgt_embed` and `generator`.

What they do not tell (heads, activation, where the norms stand) has to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitrail.config import build
from vitrail.errors import CheckpointError, ConfigError
from vitrail.transformer import Transformer, TransformerConfig
from vitrail.weights.build import assign
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.mapping import Entry, Match, Rows, match, pair, read_all

TELLING = (
    "src_embed.weight",
    "tgt_embed.weight",
    "transformer.encoder.layers.0.linear1.weight",
)
"""Tensors whose shapes tell the sizes."""

NEEDED = ("heads", "activation", "norm")
"""Fields that no tensor tells."""


def recognises_transformer(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of an encoder-decoder around `torch.nn.Transformer`."""
    names = checkpoint.tensors
    return any(name.startswith("transformer.decoder.layers.") for name in names) and any(
        name.startswith(("src_embed.", "tgt_embed.", "generator.")) for name in names
    )


def transformer_config(checkpoint: Checkpoint, given: Mapping[str, Any]) -> TransformerConfig:
    """The configuration: sizes from the tensors, the rest as given.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or something was not given.
    """
    missing = [field for field in NEEDED if field not in given]
    if missing:
        raise CheckpointError(
            f"{checkpoint.path}: the file does not tell {', '.join(missing)}; give them"
        )
    (source, dim), (target, _), (ffn, _) = (_shape(checkpoint, name) for name in TELLING)
    depths = {part: _depth(checkpoint, part) for part in ("encoder", "decoder")}
    norms = any(name.startswith("transformer.encoder.norm.") for name in checkpoint.tensors)
    table = {
        "source_vocabulary": source,
        "target_vocabulary": target,
        "dim": dim,
        "ffn": ffn,
        "encoder_layers": depths["encoder"],
        "decoder_layers": depths["decoder"],
        "final_norms": norms,
        "eps": 1e-5,
    }
    try:
        return build(TransformerConfig, table | dict(given), source=str(checkpoint.path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; sizes are told by {', '.join(TELLING)}") from error


def transformer_entries(config: TransformerConfig) -> list[Entry]:
    """The whole table. A packed projection of theirs holds q, k and v one above the other."""
    entries = [
        Entry("source_embedding.weight", ("src_embed.weight",)),
        Entry("decoder.embedding.weight", ("tgt_embed.weight",)),
        *pair("decoder.generator", "generator."),
    ]
    for part, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        if config.final_norms:
            entries += pair(f"{part}.norm", f"transformer.{part}.norm.")
        for i in range(depth):
            entries += _block(f"{part}.blocks.{i}", f"transformer.{part}.layers.{i}", config.dim)
    return entries


def _block(ours: str, theirs: str, dim: int) -> list[Entry]:
    decoder = ours.startswith("decoder")
    entries = [
        Entry(f"{ours}.attn.qkv.weight", (f"{theirs}.self_attn.in_proj_weight",)),
        Entry(f"{ours}.attn.qkv.bias", (f"{theirs}.self_attn.in_proj_bias",)),
        *pair(f"{ours}.attn.proj", f"{theirs}.self_attn.out_proj."),
        *pair(f"{ours}.mlp.fc1", f"{theirs}.linear1."),
        *pair(f"{ours}.mlp.fc2", f"{theirs}.linear2."),
    ]
    for norm in (1, 2, 3) if decoder else (1, 2):
        entries += pair(f"{ours}.norm{norm}", f"{theirs}.norm{norm}.")
    if decoder:
        entries += pair(f"{ours}.cross.proj", f"{theirs}.multihead_attn.out_proj.")
        for kind in ("weight", "bias"):
            packed = (f"{theirs}.multihead_attn.in_proj_{kind}",)
            entries.append(Entry(f"{ours}.cross.q.{kind}", packed, Rows(0, dim, 3 * dim)))
            entries.append(Entry(f"{ours}.cross.kv.{kind}", packed, Rows(dim, 2 * dim, 3 * dim)))
    return entries


def match_transformer(checkpoint: Checkpoint, config: TransformerConfig) -> Match:
    """Hold the file against the model."""
    return match(transformer_entries(config), [], _wanted(config), checkpoint.tensors)


def load_transformer(checkpoint: Checkpoint, config: TransformerConfig) -> Transformer:
    """The model in evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape or damaged, by name.
    """
    found = match_transformer(checkpoint, config)
    if not found.whole:
        raise CheckpointError(f"{checkpoint.path}: {found.describe()}")
    model = Transformer(config)
    return assign(model, read_all(transformer_entries(config), checkpoint.tensors)).eval()


def _wanted(config: TransformerConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return Transformer(config).state_dict()


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    if name not in checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: tensor '{name}' is missing")
    shape = checkpoint.tensors[name].shape
    if len(shape) != 2:
        raise CheckpointError(f"{checkpoint.path}: tensor '{name}' has shape {list(shape)}")
    return shape[0], shape[1]


def _depth(checkpoint: Checkpoint, part: str) -> int:
    count = 0
    while any(n.startswith(f"transformer.{part}.layers.{count}.") for n in checkpoint.tensors):
        count += 1
    return count
