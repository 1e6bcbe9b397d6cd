"""A model is one expression: task(backbone(normalise(images))). A reader starts here."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from vitrail.backbones import FAMILIES, VARIANTS, BackboneConfig, build_backbone
from vitrail.backbones.backbone import Variant
from vitrail.config import Config, nearest
from vitrail.cost import count_cost
from vitrail.data.preprocess import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    Letterbox,
    Preprocess,
)
from vitrail.errors import ConfigError
from vitrail.tasks import TaskConfig, build_task
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.task import Task
from vitrail.types import Batch


class ModelConfig(Config):
    """All that a model is, but for its weights.

    Attributes:
        backbone: From normalised images to features.
        task: From features to predictions.
        preprocess: From any image to the model's input; evaluation, prediction, export and
            serving all run it.
    """

    backbone: BackboneConfig
    task: TaskConfig
    preprocess: Preprocess


class Model(nn.Module):
    """A backbone, a task, and the normalisation of their input.

    Images go in as uint8 RGB; normalisation runs on the batch, where it is one fused
    multiply-add, instead of on every image in the loader.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone)
        self.task: Task[Any, Any] = build_task(
            config.task,
            pooled_width=self.backbone.pooled_width,
            channels=self.backbone.channels,
            strides=self.backbone.strides,
            distilled=self.backbone.distilled,
        )
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in _mean_std(config.preprocess))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(
        self,
        images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"],
        pixel_mask: Bool[Tensor, "B H W"] | None = None,
    ) -> Any:
        """Raw output of the task.

        Args:
            images: A batch of prepared images, 0 to 255 (float after mixup).
            pixel_mask: True where a pixel shows the image, False where it was filled up.
        """
        normalised = self.normalise(images)
        if isinstance(self.config.preprocess.resize, Letterbox):
            pixel_mask = None  # it learned to see what is filled up
        if pixel_mask is not None:
            normalised = normalised * pixel_mask[:, None]
        features = self.backbone(normalised)
        return self.task(replace(features, images=normalised, pixel_mask=pixel_mask))

    def normalise(
        self, images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 3 H W"]:
        """(pixel / 255 - mean) / std for each channel."""
        assert isinstance(self.scale, Tensor)
        assert isinstance(self.shift, Tensor)
        if self.config.preprocess.channel_order == "bgr":
            images = images.flip(1)
        return images.to(self.scale.dtype, copy=True).mul_(self.scale).add_(self.shift)


def pixel_mask(batch: Batch, device: torch.device) -> Bool[Tensor, "B H W"] | None:
    """Where the pixels of a batch show its images; None where all of them do."""
    if not batch.extents:
        return None
    rows, columns = (torch.arange(side, device=device)[None] for side in (batch.images.shape[2:]))
    extents = torch.tensor(batch.extents, device=device)
    return (rows < extents[:, :1])[:, :, None] & (columns < extents[:, 1:])[:, None, :]


def _mean_std(preprocess: Preprocess) -> tuple[Sequence[float], Sequence[float]]:
    return preprocess.mean, preprocess.std


def create_model(
    name: str, *, classes: Sequence[str] | int = 1000, multilabel: bool = False
) -> Model:
    """A model with fresh weights by its name.

    Args:
        name: A name of `model_names()`, e.g. `vit_tiny_patch16_224`.
        classes: Class names, or their number.
        multilabel: Whether an image may have several labels.

    Raises:
        ConfigError: the name is unknown; the nearest known names are offered.
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else classes
    task = ClassifyConfig(classes=tuple(names), multilabel=multilabel)
    return Model(model_config(name, task))


def model_config(name: str, task: TaskConfig) -> ModelConfig:
    """The configuration behind a name, with a task.

    Raises:
        ConfigError: the name is unknown; the nearest known names are offered.
    """
    if name not in VARIANTS:
        raise ConfigError(
            f"unknown model '{name}'{nearest(name, VARIANTS)}; `vitrail models` lists all"
        )
    variant = VARIANTS[name]
    mean, std = (HALF, HALF) if variant.colours == "half" else (IMAGENET_MEAN, IMAGENET_STD)
    preprocess = Preprocess(
        resize=CenterCrop(size=variant.config.image_size, crop_pct=variant.crop_pct),
        interpolation=variant.interpolation,
        mean=mean,
        std=std,
    )
    return ModelConfig(backbone=variant.config, task=task, preprocess=preprocess)


def model_names(pattern: str = "*") -> list[str]:
    """Names of all variants that match a shell pattern; a bare word matches anywhere."""
    pattern = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def describe_models(pattern: str = "*") -> list[dict[str, Any]]:
    """One row a variant, in the order of the families.

    Each row has name, family, params, gmacs, activations (in millions), image_size, classes, top1
    and source. All of it is counted on the model itself, built without memory on torch's meta
    device, with the published number of classes and one image of the variant's own size.
    """
    wanted = set(model_names(pattern))
    return [
        _describe(family, name, variant)
        for family, variants in FAMILIES.items()
        for name, variant in variants.items()
        if name in wanted
    ]


def _describe(family: str, name: str, variant: Variant[Any]) -> dict[str, Any]:
    with torch.device("meta"):
        backbone = build_backbone(variant.config).eval()
    heads = (1 + backbone.distilled) * variant.classes
    head = backbone.pooled_width * heads
    cost = count_cost(backbone, variant.config.image_size)
    return {
        "name": name,
        "family": family,
        "params": sum(p.numel() for p in backbone.parameters()) + head + heads,
        "gmacs": round((cost.macs + head) / 1e9, 3),
        "activations": round((cost.activations + heads) / 1e6, 3),
        "image_size": list(variant.config.image_size),
        "classes": variant.classes,
        "top1": variant.top1,
        "source": variant.source,
    }
