"""facebookresearch/deit: `.pth` files of DeiT, of distilled DeiT and of DeiT-III.

Names are those of timm, but for LayerScale; a table `model` (or `model_ema`) tells them apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.backbones.deit_sizes import DEIT
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.config import build
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.shapes import agreed, insist, insist_told, outputs, position_grid
from vitrail.weights.mapping import PAIR, Entry, Joined, pair, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

_EPS = 1e-6
_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_GAMMAS = ("gamma_1", "gamma_2")
_DISTILLED = ("dist_token", "head_dist.weight", "head_dist.bias")


class DeiT(Reader):
    """Heads are nowhere in the file: from the published variant of these sizes, or given."""

    name = "deit"
    publisher_licence = "Apache-2.0"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """A training dump whose weights have timm's names."""
        names = checkpoint.tensors
        return (
            checkpoint.container == "torch"
            and checkpoint.part in ("model", "model_ema")
            and any(n.startswith("blocks.0.") for n in names)
            and any(n == "cls_token" or n.startswith("patch_embed.proj.") for n in names)
            and not any(n.startswith("tokens_to_token.") for n in names)
        )

    def describe(self, given: Given) -> Described:
        """Sizes from the shapes."""
        found, depth = self.checkpoint, self.count("blocks.")
        norms = [
            f"blocks.{i}.norm{j}.{part}" for i in range(depth) for j in (1, 2) for part in PAIR
        ]
        width = agreed(found, norms)
        hidden = agreed(found, [f"blocks.{i}.mlp.fc1.bias" for i in range(depth)])
        patch = self._patch(width)
        distilled = sum(name in found.tensors for name in _DISTILLED) > 1
        scaled = any(f"blocks.{i}.{g}" in found.tensors for i in range(depth) for g in _GAMMAS)
        tokens = ["cls_token", "dist_token"] if distilled else ["cls_token"]
        for name in (*tokens, "pos_embed"):
            insist(found, name, (1, None, width), f"the width is {width}")
        own = [len(tokens), 0]
        grid, prefix = position_grid(found, given, patch, "pos_embed", own, tokens)
        positions = Learned1dConfig(prefix=prefix > 0, resampling="bicubic")
        known: dict[str, Any] = {
            "image_size": (grid[0] * patch, grid[1] * patch),
            "stem": PatchStemConfig(patch_size=patch).model_dump(),
            "positions": positions.model_dump(),
            "width": width,
            "depth": depth,
            "mlp_ratio": hidden / width,
            "eps": _EPS,
            "layer_scale": 1e-6 if scaled else None,
            "distillation_token": distilled,
        }
        config, variant, notes = settle(ViTConfig, known, {"heads": "6"}, given, found)
        insist_told(found, config, known, ("heads",))
        return Described(
            backbone=config,
            task=self._task(given),
            preprocess=_preprocess(config.image_size),
            variant=given.variant or _variant(config) or variant,
            notes=(*notes, "exact GELU, LayerNorm eps 1e-6 and preprocessing as DeiT's code has"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        return entries(described)

    def _patch(self, width: int) -> int:
        name = "patch_embed.proj.weight"
        shape = insist(self.checkpoint, name, (width, 3, None, None), f"the width is {width}")
        if shape[2] != shape[3]:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor '{name}' has the shape {list(shape)}: "
                "no square patches"
            )
        return shape[2]

    def _task(self, given: Given) -> ClassifyConfig | None:
        names = [f"head.{part}" for part in PAIR]
        if not self.any("head.", "head_dist."):
            return None
        classes = self.class_names(outputs(self.checkpoint, names), given, {})
        path = str(self.checkpoint.path)
        return build(ClassifyConfig, {"classes": classes}, source=path)


class DeiTWriter(Writer):
    """`.pth` with a table `model`, which the owners' code loads."""

    name = "official"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the owners' models have no switch for."""
        config, task = described.backbone, described.classifier
        if not isinstance(config, ViTConfig):
            return f"DeiT's code has no {config.kind}"
        if config.stem.kind != "patch":
            return f"stem is {config.stem.kind}"
        third = config.layer_scale is not None
        wanted = ViTConfig(
            image_size=config.image_size,
            stem=config.stem,
            positions=Learned1dConfig(prefix=not third),
            layer_scale=config.layer_scale,
            distillation_token=config.distillation_token and not third,
            **config.model_dump(include={"width", "depth", "heads", "mlp_ratio", "drop_path"}),
        ).model_dump()
        own = config.model_dump()
        for positions in (own["positions"], wanted["positions"]):
            # At the model's own size the table is taken as it is.
            positions.pop("start", None)
            positions.pop("resampling", None)
        faults = [f"{key} is {own[key]}" for key in wanted if own[key] != wanted[key]]
        if task is not None and task.hidden is not None:
            faults.append(f"hidden is {task.hidden}")
        colours = (described.preprocess.mean, described.preprocess.std)
        if colours != (IMAGENET_MEAN, IMAGENET_STD):
            faults.append("mean and std are not those of ImageNet")
        return "; ".join(faults)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write the file."""
        file = io.BytesIO()
        torch.save({"model": write_all(entries(described), state)}, file)
        write_atomically(Path(out), file.getvalue())
        return [out]


def entries(described: Described) -> list[Entry]:
    """The table; it follows from the description alone."""
    config = described.backbone
    assert isinstance(config, ViTConfig)
    leading = ("cls_token", "dist_token") if config.distillation_token else ("cls_token",)
    table = [
        Entry("backbone.prefix_token", leading, Joined((1,) * len(leading), axis=1)),
        Entry("backbone.pos_embed.weight", ("pos_embed",)),
        *pair("backbone.patch_embed.proj", "patch_embed.proj."),
        *pair("backbone.norm", "norm."),
    ]
    for i in range(config.depth):
        for layer in _LAYERS:
            table += pair(f"backbone.blocks.{i}.{layer}", f"blocks.{i}.{layer}.")
        if config.layer_scale is not None:
            ours = (f"backbone.blocks.{i}.ls{j}.gamma" for j in (1, 2))
            theirs = (f"blocks.{i}.{gamma}" for gamma in _GAMMAS)
            table += [Entry(o, (t,)) for o, t in zip(ours, theirs, strict=True)]
    if described.classifier is not None:
        table += pair("task.head", "head.")
        if config.distillation_token:
            table += pair("task.head_dist", "head_dist.")
    return table


def _variant(config: ViTConfig) -> str:
    """The owners' own name: ViTs of the same sizes have others."""
    sizes = ("image_size", "stem", "width", "depth", "heads", "distillation_token")
    for name, known in DEIT.items():
        alike = known.config.model_dump(include={*sizes}) == config.model_dump(include={*sizes})
        scaled = known.config.layer_scale is not None
        if known.published and alike and scaled == (config.layer_scale is not None):
            return name
    return ""


def _preprocess(size: Grid) -> Preprocess:
    return Preprocess(
        resize=CenterCrop(size=size, crop_pct=0.875),
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
