"""Norms of tokens: where a model keeps what is no patch (Darcet et al. 2024)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin, SwinStage
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.backbones.windowed_vit import WindowedViT
from vitrail.explain.layers import cells, prefix_names
from vitrail.model import Model
from vitrail.types import Grid

OUTLIER = 3.0
"""An outlier is longer than this many times the median patch of its image."""


@dataclass(frozen=True, slots=True)
class TokenNorms:
    """Lengths of all tokens at one point of a model.

    Attributes:
        name: After which block, counted from 1, or `output` for what the head reads from.
        norms: Of the patches, on their grid.
        prefix: Of each token that is no patch, by its name.
    """

    name: str
    norms: Float[Tensor, "B h w"]
    prefix: dict[str, Float[Tensor, " B"]]

    def outliers(self, factor: float = OUTLIER) -> Bool[Tensor, "B h w"]:
        """Patches longer than `factor` times the median patch of their image.

        The paper cuts at a length of 150, chosen for its model (DINOv2 g, section 2.1). A length
        means nothing to another model; a ratio does.
        """
        usual = self.norms.flatten(1).median(dim=1).values
        return self.norms > factor * usual[:, None, None]

    def share(self, factor: float = OUTLIER) -> Float[Tensor, " B"]:
        """Share of outliers in each image, 0 to 1 (about 2 % in the paper's model)."""
        return self.outliers(factor).float().mean(dim=(1, 2))


def token_norms(model: Model, images: UInt8[Tensor, "B 3 H W"]) -> tuple[TokenNorms, ...]:
    """Euclidean lengths of the tokens after each block, and last of the output, after its norm.

    A few patches of even background that are many times longer than the rest are the artefacts of
    the paper: the model keeps there what concerns the whole image. Registers take it over.

    Args:
        model: In evaluation mode.
        images: Prepared.

    Returns:
        One entry a block of every family with attention; only the output of the others.
    """
    found: list[TokenNorms] = []
    size = (images.shape[2], images.shape[3])
    with torch.no_grad(), _measuring(model.backbone, size, found):
        features = model.backbone(model.normalise(images))
    grid = (features.maps[-1].shape[2], features.maps[-1].shape[3])
    names = prefix_names(model.backbone)
    return (*found, _measure("output", features.tokens, grid, names))


def _measure(
    name: str, tokens: Float[Tensor, "B N D"], grid: Grid, prefix: tuple[str, ...]
) -> TokenNorms:
    lengths = tokens.detach().float().square().sum(dim=2).sqrt()
    own = {token: lengths[:, i] for i, token in enumerate(prefix)}
    return TokenNorms(name, lengths[:, len(prefix) :].reshape(-1, *grid), own)


@contextmanager
def _measuring(backbone: Backbone, size: Grid, found: list[TokenNorms]) -> Generator[None]:
    """Measure what each block gives while the backbone runs inside the block."""
    names = prefix_names(backbone)
    handles = [
        block.register_forward_hook(_Measure(name, cells(size, stride), multiple, names, found))
        for name, block, stride, multiple in _blocks(backbone)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class _Measure:
    name: str
    grid: Grid
    multiple: int
    prefix: tuple[str, ...]
    found: list[TokenNorms]

    def __call__(self, module: nn.Module, given: object, tokens: Tensor) -> None:
        del module, given
        rows, columns = self.grid
        padded = (rows + -rows % self.multiple, columns + -columns % self.multiple)
        seen = _measure(self.name, tokens, padded, self.prefix)
        self.found.append(replace(seen, norms=seen.norms[:, :rows, :columns]))


def _blocks(backbone: Backbone) -> list[tuple[str, nn.Module, int, int]]:
    """Name, module and stride of each block, in the order in which they run.

    Last, what the rows and columns of their tokens are padded to a multiple of.
    """
    match backbone:
        case ViT() | Hybrid() | T2T() | WindowedViT():
            multiple = backbone.config.windows if isinstance(backbone, WindowedViT) else 1
            return [
                (f"block {i + 1}", block, backbone.strides[-1], multiple)
                for i, block in enumerate(backbone.blocks)
            ]
        case Swin():
            return [
                (f"stage {s + 1}, block {i + 1}", block, stride, 1)
                for s, (stage, stride) in enumerate(
                    zip(backbone.stages, backbone.strides, strict=True)
                )
                if isinstance(stage, SwinStage)
                for i, block in enumerate(stage.blocks)
            ]
        case _:
            return []
