"""A model is one expression: task(backbone(normalise(images))). A reader starts here."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.vit_sizes import PUBLISHED, SIZES
from vitrail.config import Config, nearest
from vitrail.data.preprocess import HALF, CenterCrop, Preprocess
from vitrail.errors import ConfigError
from vitrail.tasks import TaskConfig, build_task
from vitrail.tasks.classify import ClassifyConfig


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
        self.task = build_task(config.task, self.backbone.pooled_width)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in _mean_std(config.preprocess))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B C"]:
        """Output of the task for a batch of prepared images, 0 to 255 (float after mixup)."""
        return self.task(self.backbone(self.normalise(images)))

    def normalise(
        self, images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 3 H W"]:
        """(pixel / 255 - mean) / std for each channel."""
        assert isinstance(self.scale, Tensor)
        assert isinstance(self.shift, Tensor)
        if self.config.preprocess.channel_order == "bgr":
            images = images.flip(1)
        return images.to(self.scale.dtype, copy=True).mul_(self.scale).add_(self.shift)


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
    if name not in SIZES:
        raise ConfigError(
            f"unknown model '{name}'{nearest(name, SIZES)}; `vitrail models` lists all"
        )
    backbone = SIZES[name]
    crop_pct = 1.0 if max(backbone.image_size) >= 384 or name not in PUBLISHED else 0.9
    resize = CenterCrop(size=backbone.image_size, crop_pct=crop_pct)
    preprocess = Preprocess(resize=resize, mean=HALF, std=HALF)
    return ModelConfig(backbone=backbone, task=task, preprocess=preprocess)


def model_names(pattern: str = "*") -> list[str]:
    """Names of all variants that match a shell pattern; a bare word matches anywhere."""
    pattern = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return [name for name in SIZES if fnmatch.fnmatchcase(name, pattern)]


def describe_models(pattern: str = "*") -> list[dict[str, Any]]:
    """One row a variant: name, family, params, gmacs, image_size, top1, source.

    Parameters and multiply-adds are counted on the model itself, built without memory on torch's
    meta device, with 1000 classes and one image of the variant's own size.
    """
    rows: list[dict[str, Any]] = []
    for name in model_names(pattern):
        with torch.device("meta"):
            model = create_model(name)
        size = SIZES[name].image_size
        published = PUBLISHED.get(name)
        rows.append(
            {
                "name": name,
                "family": SIZES[name].kind,
                "params": sum(p.numel() for p in model.parameters()),
                "gmacs": round(_macs(model.config) / 1e9, 3),
                "image_size": list(size),
                "top1": published.top1 if published else None,
                "source": published.source if published else "vitrail preset for small images",
            }
        )
    return rows


def _macs(config: ModelConfig) -> int:
    """Multiply-adds, told from two shallow models: blocks are alike, and tracing them is slow."""
    counts: list[int] = []
    for depth in (1, 2):
        backbone = config.backbone.model_copy(update={"depth": depth})
        with torch.device("meta"):
            model = Model(config.model_copy(update={"backbone": backbone})).eval()
        counts.append(count_macs(model, backbone.image_size))
    return counts[0] + (config.backbone.depth - 1) * (counts[1] - counts[0])


def count_macs(model: Model, size: tuple[int, int]) -> int:
    """Multiply-adds of one image: matrix products, convolutions, both products of attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *size, dtype=torch.uint8, device=device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return counter.get_total_flops() // 2
