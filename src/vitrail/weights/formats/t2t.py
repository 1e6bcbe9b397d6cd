"""yitu-opensource/T2T-ViT: `.pth.tar` files, with Performer or softmax attention between splits.

The owners evaluate the moving average of the weights (`state_dict_ema`). Names may begin with
`module.`. The sinusoid of the positions and the random features are stored, and are used as stored.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.backbones.t2t import (
    T2TConfig,
    TokenBlockConfig,
    TokenPerformerConfig,
    TokenTransformerConfig,
)
from vitrail.config import build
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.shapes import agreed, insist, insist_told, outputs, position_grid
from vitrail.weights.mapping import PAIR, Entry, pair, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

_SPLITS = T2TConfig().splits
_MODULE = "module."
_TOKENS = "tokens_to_token."
_ATTENTIONS = (f"{_TOKENS}attention1.", f"{_TOKENS}attention2.")


class T2T(Reader):
    """Heads are nowhere in the file: from the published variant of these sizes, or given."""

    name = "t2t"
    publisher_licence = "BSD-3-Clause-Clear"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """The token module's names."""
        beginnings = (_TOKENS, f"{_MODULE}{_TOKENS}")
        return checkpoint.container == "torch" and any(
            name.startswith(beginnings) for name in checkpoint.tensors
        )

    def describe(self, given: Given) -> Described:
        """Sizes from the shapes; the scale of the encoder is that of the head (0.125)."""
        found, at = self.checkpoint, self.prefix()
        depth = self.count(f"{at}blocks.")
        if depth < 1:
            raise CheckpointError(f"{found.path}: tensors of '{at}blocks.0' are missing")
        blocks = [f"{at}blocks.{i}" for i in range(depth)]
        width = agreed(
            found, [f"{b}.norm{j}.{part}" for b in blocks for j in (1, 2) for part in PAIR]
        )
        hidden = agreed(found, [f"{b}.mlp.fc1.bias" for b in blocks])
        norms = [f"{at}{a}norm2.{part}" for a in _ATTENTIONS for part in PAIR]
        token_width = agreed(found, norms)
        known: dict[str, Any] = {
            "splits": tuple(split.model_dump() for split in _SPLITS),
            "token_block": self._token_block(at, token_width).model_dump(),
            "token_width": token_width,
            "width": width,
            "depth": depth,
            "mlp_ratio": hidden / width,
        }
        stride = T2TConfig().stride
        table, token = f"{at}pos_embed", f"{at}cls_token"
        for name in (table, token):
            insist(found, name, (1, None, width), f"the width is {width}")
        grid, _ = position_grid(found, given, stride, table, [1], [token])
        known["image_size"] = (grid[0] * stride, grid[1] * stride)
        config, variant, notes = settle(T2TConfig, known, {"heads": "6"}, given, found)
        insist_told(found, config, known, ("heads",))
        return Described(
            backbone=config,
            task=self._task(at, given),
            preprocess=Preprocess(
                resize=CenterCrop(size=config.image_size, crop_pct=0.9),
                interpolation="bicubic",
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
            ),
            variant=variant,
            notes=(*notes, "scale of attention and preprocessing as T2T-ViT's evaluation has"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        return _entries(self.prefix(), described)

    def prefix(self) -> str:
        """`module.` where most names begin with it."""
        names = self.checkpoint.tensors
        wrapped = sum(name.startswith(_MODULE) for name in names)
        return _MODULE if wrapped > len(names) / 2 else ""

    def _token_block(self, at: str, width: int) -> TokenBlockConfig:
        """Told by the names of most tensors; random features also by their shape."""
        found = self.checkpoint
        attentions = tuple(f"{at}{a}" for a in _ATTENTIONS)
        inside = [n.rsplit(".", 2) for n in found.tensors if n.startswith(attentions)]
        softmax = sum(parts[-2] in ("qkv", "fc1", "fc2") for parts in inside)
        performer = sum(parts[-2] in ("kqv", "0", "2") or parts[-1] == "w" for parts in inside)
        if softmax >= performer:
            return TokenTransformerConfig()
        for a in attentions:
            insist(found, f"{a}w", (None, width), f"tokens are {width} wide")
        table = {"features": found.tensors[f"{attentions[0]}w"].shape[0]}
        return build(TokenPerformerConfig, table, source=str(found.path))

    def _task(self, at: str, given: Given) -> ClassifyConfig | None:
        if not self.any(f"{at}head."):
            return None
        count = outputs(self.checkpoint, [f"{at}head.{part}" for part in PAIR])
        classes = self.class_names(count, given, {})
        return build(ClassifyConfig, {"classes": classes}, source=str(self.checkpoint.path))


class T2TWriter(Writer):
    """`.pth.tar` with a table `state_dict_ema`, which the owners' evaluation loads."""

    name = "official"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the owners' models have no switch for."""
        config, task = described.backbone, described.classifier
        if not isinstance(config, T2TConfig):
            return f"T2T-ViT's code has no {config.kind}"
        faults = {
            "splits are not 7/4, 3/2, 3/2": config.splits != _SPLITS,
            "hidden is set": task is not None and task.hidden is not None,
            "the image is not square": config.image_size[0] != config.image_size[1],
            "mean and std are not those of ImageNet": (
                (described.preprocess.mean, described.preprocess.std)
                != (IMAGENET_MEAN, IMAGENET_STD)
            ),
        }
        return "; ".join(fault for fault, there in faults.items() if there)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write the file."""
        file = io.BytesIO()
        torch.save({"state_dict_ema": write_all(_entries("", described), state)}, file)
        write_atomically(Path(out), file.getvalue())
        return [out]


def _entries(at: str, described: Described) -> list[Entry]:
    config = described.backbone
    assert isinstance(config, T2TConfig)
    table = [
        Entry("backbone.prefix_token", (f"{at}cls_token",)),
        Entry("backbone.pos_embed.weight", (f"{at}pos_embed",)),
        *pair("backbone.patch_embed.project", f"{at}{_TOKENS}project."),
        *pair("backbone.norm", f"{at}norm."),
    ]
    for i, attention in enumerate(_ATTENTIONS):
        ours, theirs = f"backbone.patch_embed.blocks.{i}", f"{at}{attention}"
        table += _token_entries(config.token_block, ours, theirs)
    for i in range(config.depth):
        ours, theirs = f"backbone.blocks.{i}", f"{at}blocks.{i}"
        table.append(Entry(f"{ours}.attn.qkv.weight", (f"{theirs}.attn.qkv.weight",)))
        for layer in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            table += pair(f"{ours}.{layer}", f"{theirs}.{layer}.")
    if described.classifier is not None:
        table += pair("task.head", f"{at}head.")
    return table


def _token_entries(config: TokenBlockConfig, ours: str, theirs: str) -> list[Entry]:
    table = [*pair(f"{ours}.norm1", f"{theirs}norm1."), *pair(f"{ours}.norm2", f"{theirs}norm2.")]
    match config:
        case TokenTransformerConfig():
            table.append(Entry(f"{ours}.attn.qkv.weight", (f"{theirs}attn.qkv.weight",)))
            layers = (("attn.proj", "attn.proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"))
        case TokenPerformerConfig():
            table.append(Entry(f"{ours}.attn.w", (f"{theirs}w",)))
            layers = (
                ("attn.kqv", "kqv"),
                ("attn.proj", "proj"),
                ("mlp.fc1", "mlp.0"),
                ("mlp.fc2", "mlp.2"),
            )
    for own, other in layers:
        table += pair(f"{ours}.{own}", f"{theirs}{other}.")
    return table
