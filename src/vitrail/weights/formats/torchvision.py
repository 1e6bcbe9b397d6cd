"""State dicts of torchvision's Vision Transformers and ResNets, and the writer of all of its.

torchvision stores nothing beside the weights: what they do not tell comes from the published
variant of their shapes, or from the user.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.config import build
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.timm_config import hidden_ratio
from vitrail.weights.formats.timm_resnet import (
    ResNetReader,
    has_resnet_names,
    refuses_resnet,
    resnet_entries,
)
from vitrail.weights.formats.torchvision_swin import (
    TorchvisionSwinReader,
    crop,
    refuses_torchvision_swin,
    torchvision_swin_entries,
)
from vitrail.weights.mapping import Entry, pair, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

LAYER = "encoder.layers.encoder_layer_"
OLD_MLP = ("linear_1", "linear_2")
"""What the layers of an MLP were called before torchvision 0.13."""


class TorchvisionViTReader(Reader):
    """`vit_b_16` and its sisters."""

    name = "torchvision"
    publisher_licence = "BSD-3-Clause"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Layers that repeat their own name."""
        return any(n.startswith(LAYER) for n in checkpoint.tensors)

    def describe(self, given: Given) -> Described:
        """The model from shapes; heads from the published variant that has them."""
        backbone, variant, notes = self._backbone(given)
        # What the head's layers are called says whether there is one between.
        hidden = (
            self.shape("heads.pre_logits.bias", 1)[0] if self.any("heads.pre_logits.") else None
        )
        task = None
        if self.any("heads."):
            names = self.class_names(self.shape("heads.head.bias", 1)[0], given, {})
            table = {"classes": names, "hidden": hidden}
            task = build(ClassifyConfig, table, source=str(self.checkpoint.path))
        return Described(
            backbone=backbone,
            task=task,
            preprocess=_vit_preprocess(backbone),
            variant=variant,
            notes=(*notes, "preprocessing as torchvision evaluates such a model"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table; names of the MLP as this file has them."""
        assert isinstance(described.backbone, ViTConfig)
        return torchvision_vit_entries(described.backbone, described.classifier, mlp=self._mlp())

    def _backbone(self, given: Given) -> tuple[ViTConfig, str, tuple[str, ...]]:
        width, patch = self.shape("conv_proj.bias", 1)[0], self.shape("conv_proj.weight", 4)[2]
        count = self.shape("encoder.pos_embedding", 3)[1]
        side = math.isqrt(max(count - 1, 0))
        image = given.backbone.get("image_size") or (side * patch, side * patch)
        match image:
            case [int(high), int(wide)] if patch and 1 + high // patch * (wide // patch) == count:
                pass
            case _:
                raise CheckpointError(
                    f"{self.checkpoint.path}: tensor 'encoder.pos_embedding' has {count} "
                    f"positions, which are not those of a class token and an image of size "
                    f"{image} in patches of {patch} x {patch}"
                )
        known: dict[str, Any] = {
            "kind": "vit",
            "image_size": image,
            "stem": {"kind": "patch", "patch_size": patch},
            "width": width,
            "depth": self.count(LAYER),
            "mlp_ratio": hidden_ratio(self._hidden(), width),
            "registers": 0,
            "distillation_token": False,
        }
        return settle(ViTConfig, known, {"heads": "12"}, given, self.checkpoint)

    def _hidden(self) -> int:
        return self.shape(f"{LAYER}0.mlp.{self._mlp()[0]}.bias", 1)[0]

    def _mlp(self) -> tuple[str, str]:
        old = any(f".mlp.{n}." in name for name in self.checkpoint.tensors for n in OLD_MLP)
        return OLD_MLP if old else ("0", "3")


class TorchvisionResNetReader(ResNetReader):
    """`resnet18` and `resnet50`."""

    name = "torchvision"
    publisher_licence = "BSD-3-Clause"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Names of a ResNet, in a file of torch without a config."""
        bare = not checkpoint.config and checkpoint.container == "torch"
        return bare and has_resnet_names(checkpoint)

    def describe(self, given: Given) -> Described:
        """The model from shapes; images of 224 pixels, as all published ones."""
        backbone, variant = self.backbone(given, {})
        task = None
        if self.any("fc."):
            names = self.class_names(self.shape("fc.bias", 1)[0], given, {})
            task = build(ClassifyConfig, {"classes": names}, source=str(self.checkpoint.path))
        return Described(
            backbone=backbone,
            task=task,
            preprocess=_preprocess(backbone.image_size, 0.875),
            variant=variant,
            notes=("preprocessing as torchvision evaluates such a model",),
        )


TORCHVISION_READERS: tuple[type[Reader], ...] = (
    TorchvisionViTReader,
    TorchvisionSwinReader,
    TorchvisionResNetReader,
)


def torchvision_vit_entries(
    backbone: ViTConfig, task: ClassifyConfig | None, *, mlp: tuple[str, str] = ("0", "3")
) -> list[Entry]:
    """Which tensor is which of ours."""
    entries = [
        *pair("backbone.patch_embed.proj", "conv_proj."),
        Entry("backbone.prefix_token", ("class_token",)),
        Entry("backbone.pos_embed.weight", ("encoder.pos_embedding",)),
        *pair("backbone.norm", "encoder.ln."),
    ]
    for i in range(backbone.depth):
        ours, theirs = f"backbone.blocks.{i}.", f"{LAYER}{i}."
        entries += [
            *pair(f"{ours}norm1", f"{theirs}ln_1."),
            *pair(f"{ours}attn.qkv", f"{theirs}self_attention.in_proj_"),
            *pair(f"{ours}attn.proj", f"{theirs}self_attention.out_proj."),
            *pair(f"{ours}norm2", f"{theirs}ln_2."),
            *pair(f"{ours}mlp.fc1", f"{theirs}mlp.{mlp[0]}."),
            *pair(f"{ours}mlp.fc2", f"{theirs}mlp.{mlp[1]}."),
        ]
    if task is not None:
        entries += pair("task.head", "heads.head.")
        if task.hidden is not None:
            entries += pair("task.pre_logits", "heads.pre_logits.")
    return entries


class TorchvisionWriter(Writer):
    """A `.pth` with the bare state dict of torchvision's class."""

    name = "torchvision"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """Why torchvision has no such model, or an empty string."""
        if described.classifier is None:
            return "torchvision's models have a head"
        match described.backbone:
            case ViTConfig() as backbone:
                return _refuses_vit(backbone)
            case SwinConfig() | SwinV2Config() as backbone:
                return refuses_torchvision_swin(backbone, described.classifier)
            case ResNetConfig():
                return refuses_resnet(described)
            case backbone:
                return f"torchvision has no '{backbone.kind}' models"

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """The file."""
        task = described.classifier
        match described.backbone:
            case ViTConfig() as backbone:
                entries = torchvision_vit_entries(backbone, task)
            case SwinConfig() | SwinV2Config() as backbone:
                entries = torchvision_swin_entries(backbone, task)
            case ResNetConfig() as backbone:
                entries = resnet_entries(backbone, task)
            case _:
                raise AssertionError("refused")
        tensors = write_all(entries, state)
        if isinstance(described.backbone, SwinConfig | SwinV2Config):
            tensors |= TorchvisionSwinReader.buffers(described.backbone)
        file = io.BytesIO()
        torch.save(tensors, file)
        write_atomically(Path(out), file.getvalue())
        return [out]


def _refuses_vit(backbone: ViTConfig) -> str:
    plain = ViTConfig(
        image_size=backbone.image_size,
        stem=PatchStemConfig(patch_size=backbone.stem.stride),
        width=backbone.width,
        depth=backbone.depth,
        heads=backbone.heads,
        mlp_ratio=backbone.mlp_ratio,
        drop_path=backbone.drop_path,
    )
    if backbone.image_size[0] != backbone.image_size[1]:
        return "torchvision's ViTs take square images"
    if any(side % backbone.stem.stride for side in backbone.image_size):
        return "torchvision's patches do not overhang"
    own, theirs = backbone.model_dump(), plain.model_dump()
    if isinstance(backbone.positions, Learned1dConfig) and backbone.positions.prefix:
        own["positions"] = theirs["positions"]  # how a table is stretched is not in their file
    other = [field for field, value in own.items() if theirs[field] != value]
    return f"torchvision's ViTs have no other {other[0]} than {theirs[other[0]]}" if other else ""


def _vit_preprocess(backbone: ViTConfig) -> Preprocess:
    """As of the published weights; SWAG's, for larger images, are bicubic without a margin."""
    size = backbone.image_size
    if size[0] > 224:
        return _preprocess(size, 1.0, "bicubic")
    large = backbone.width == 1024 and backbone.stem.stride == 16
    return _preprocess(size, crop(size[0], 242) if large else 0.875)


def _preprocess(
    size: tuple[int, int], crop_pct: float, interpolation: Any = "bilinear"
) -> Preprocess:
    return Preprocess(
        resize=CenterCrop(size=size, crop_pct=crop_pct),
        interpolation=interpolation,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
