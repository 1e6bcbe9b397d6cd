"""Maps that know nothing of the model: what a method has to beat before it explains anything."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.explain.layers import cells
from vitrail.explain.method import Method
from vitrail.explain.target import Target
from vitrail.model import Model


@dataclass(frozen=True, slots=True)
class RandomMap(Method):
    """Independent uniform numbers on the grid of the model's finest map.

    They are a function of the seed and the image: an image has the same map in every batch.

    Attributes:
        seed: Another one gives other maps.
    """

    key: ClassVar[str] = "random"
    name: ClassVar[str] = "Random"
    paper: ClassVar[str] = "no paper: chance"
    of_class: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    seed: int = 0

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """The same map for every class and model of one stride."""
        del targets
        grid = cells((images.shape[2], images.shape[3]), model.backbone.strides[0])
        maps = [torch.rand(grid, generator=self._generator(image)) for image in images.cpu()]
        return torch.stack(maps).to(images.device)

    def _generator(self, image: UInt8[Tensor, "3 H W"]) -> torch.Generator:
        pixels = image.contiguous().numpy().tobytes()
        named = f"{self.seed} {tuple(image.shape)} ".encode()
        digest = hashlib.blake2b(named + pixels, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


@dataclass(frozen=True, slots=True)
class CentreMap(Method):
    """A Gaussian at the centre of the image: photographers put there what they mean.

    Attributes:
        width: Its standard deviation over the side of the image, along each side.
    """

    key: ClassVar[str] = "centre"
    name: ClassVar[str] = "Centre"
    paper: ClassVar[str] = "no paper: where photographers put things (Judd et al. 2009)"
    of_class: ClassVar[bool] = False
    baseline: ClassVar[bool] = True

    width: float = 0.25

    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """The same map for every image of a size."""
        del targets
        size, stride = (images.shape[2], images.shape[3]), model.backbone.strides[0]
        along: list[Tensor] = []
        for side, count in zip(size, cells(size, stride), strict=True):
            middle = (torch.arange(count, device=images.device) + 0.5) * stride
            away = (middle - side / 2) / (self.width * side)
            along.append((-away.square() / 2).exp())
        return (along[0][:, None] * along[1]).repeat(len(images), 1, 1)
