"""From a backbone's maps to what a decoder reads: one width, one scale or a few."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module, ABC):
    """Maps of a backbone to maps of one width."""

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(B, C_i, H_i, W_i)`, fine to coarse, to maps `(B, D, h, w)`."""


class LinearProjector(Projector):
    """A 1x1 convolution of the coarsest map (DETR)."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels[-1], dim, 1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map."""
        return [self.project(maps[-1])]


Norm = Literal["batch", "channels"]
"""Over each channel of a batch (LW-DETR), or over the channels of each cell (RF-DETR)."""


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each cell of a map."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Same size."""
        cells = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(cells, self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, norm, nonlinearity."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        activation: nn.Module,
        *,
        stride: int = 1,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
        batch = norm == "batch"
        self.norm = nn.BatchNorm2d(after, eps=1e-5) if batch else ChannelNorm(after, eps=1e-5)
        self.act = activation

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """In this order."""
        return self.act(self.norm(self.conv(x)))


class C2f(nn.Module):
    """Half of the channels go on through pairs of 3x3 convolutions; all stages are joined.

    As in LW-DETR (Chen et al. 2024, section 3.1), which has it from YOLOv8.

    Args:
        before: Channels that come in.
        dim: Width D that goes out; D / 2 go through the convolutions.
        blocks: Pairs of convolutions.
        norm: After each convolution.
    """

    def __init__(self, before: int, dim: int, *, blocks: int, norm: Norm) -> None:
        super().__init__()
        half = dim // 2
        self.split = ConvNorm(before, 2 * half, 1, nn.SiLU(), norm=norm)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvNorm(half, half, 3, nn.SiLU(), norm=norm),
                ConvNorm(half, half, 3, nn.SiLU(), norm=norm),
            )
            for _ in range(blocks)
        )
        self.join = ConvNorm((2 + blocks) * half, dim, 1, nn.SiLU(), norm=norm)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Same size, width D."""
        parts = list(self.split(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.join(torch.cat(parts, dim=1))


class Rescale(nn.Module):
    """A map twice as fine, as it is, or half as fine (LW-DETR).

    Args:
        channels: Width that comes in; twice as fine maps have half of it, a quarter beyond 512.
        scale: 2, 1 or 0.5.
        norm: After a convolution.
    """

    def __init__(self, channels: int, scale: float, *, norm: Norm = "batch") -> None:
        super().__init__()
        self.channels = channels
        steps: list[nn.Module] = []
        if scale == 2 and channels > 512:
            steps = [ConvNorm(channels, channels // 2, 1, nn.ReLU(), norm=norm)]
            steps += [nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)]
            self.channels = channels // 4
        elif scale == 2:
            steps = [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)]
            self.channels = channels // 2
        elif scale == 0.5:
            steps = [ConvNorm(channels, channels, 3, nn.ReLU(), stride=2, norm=norm)]
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """At the other scale."""
        for step in self.steps:
            x = step(x)
        return x


class ScaleProjector(nn.Module):
    """All maps brought to one scale, joined and mixed."""

    def __init__(
        self, channels: Sequence[int], dim: int, *, scale: float, blocks: int, norm: Norm
    ) -> None:
        super().__init__()
        self.rescale = nn.ModuleList(Rescale(width, scale, norm=norm) for width in channels)
        joined = sum(one.channels for one in self.rescale if isinstance(one, Rescale))
        self.mix = C2f(joined, dim, blocks=blocks, norm=norm)
        self.norm = ChannelNorm(dim, eps=1e-6)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B D h w"]:
        """One map; maps of other sizes are first resampled to that of the one in the middle."""
        size = maps[len(maps) // 2].shape[2:]
        alike = [
            one
            if one.shape[2:] == size
            else F.interpolate(one, size=size, mode="bilinear", align_corners=False)
            for one in maps
        ]
        pairs = zip(self.rescale, alike, strict=True)
        return self.norm(self.mix(torch.cat([rescale(one) for rescale, one in pairs], dim=1)))


class C2fProjector(Projector):
    """For each scale wanted, all maps joined and mixed by convolutions (LW-DETR, RF-DETR).

    Args:
        channels: Width of each map that comes in.
        dim: Width D that goes out.
        scales: Finer by so much than the maps that come in: 2, 1 or 0.5 each.
        blocks: Pairs of convolutions a scale.
        norm: After each convolution.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dim: int,
        *,
        scales: Sequence[float],
        blocks: int,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            ScaleProjector(channels, dim, scale=scale, blocks=blocks, norm=norm) for scale in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map a scale."""
        return [scale(maps) for scale in self.scales]
