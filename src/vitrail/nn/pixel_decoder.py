"""The embedding of pixels: from the tokens of patches back to the detail that patches have lost.

A mask is the product of a query and the vector of each pixel (Cheng et al. 2021, MaskFormer). The
vectors come from the coarsest map, doubled step by step; finer maps of the backbone join where it
has them, and convolutions of the image itself wherever asked for, for no head can find in a patch
token what a patch has averaged away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.patches import pad_to_multiple


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm and ReLU.

    Args:
        before: Channels that come in.
        after: Channels that go out.
        stride: Of the first convolution.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """At the stride."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class ImageSkip(nn.Module):
    """Maps of the image by convolutions alone, from a fine stride to just below a coarse one.

    Args:
        widths: Channels at strides 1, 2, 4, ...; the last stands for all coarser ones.
        finest: Stride of the first map that is wanted, a power of two.
        coarsest: Stride below which it ends.
    """

    def __init__(self, widths: Sequence[int], *, finest: int, coarsest: int) -> None:
        super().__init__()
        self.finest = finest
        self.strides = doublings(min(finest, 2), coarsest)
        outs = [width_at(widths, stride) for stride in self.strides]
        self.blocks = nn.ModuleList(
            ConvBlock(before, after, stride=1 if stride == 1 else 2)
            for before, after, stride in zip([3, *outs], outs, self.strides, strict=False)
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> dict[int, Tensor]:
        """A map for each stride; images are multiples of all of them."""
        maps: dict[int, Tensor] = {}
        x = images
        for stride, block in zip(self.strides, self.blocks, strict=True):
            x = block(x)
            if stride >= self.finest:
                maps[stride] = x
        return maps


class PixelDecoder(nn.Module):
    """Maps of a backbone, and details of the image, to one vector for each cell of a fine grid.

    Args:
        channels: Width of each map of the backbone, fine to coarse.
        strides: Their strides.
        stride: Pixels a cell of the result, a power of two.
        widths: Channels at strides 1, 2, 4, ...; the last stands for all coarser ones.
        skip: Whether maps of the image join.

    Attributes:
        width: Channels of the result.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        stride: int,
        widths: Sequence[int],
        skip: bool,
    ) -> None:
        super().__init__()
        self.stride, self.strides = stride, tuple(strides)
        self.widths, self.width = tuple(widths), width_at(widths, stride)
        self.steps = doublings(stride, max(strides[-1], 2 * stride))[::-1]
        self.skip = ImageSkip(widths, finest=stride, coarsest=2 * self.steps[0]) if skip else None
        own = {s: c for s, c in zip(strides, channels, strict=True) if s != strides[-1]}
        # Before a map grows it gets the width that it will have: the same map for fewer sums.
        outs = [width_at(widths, s) for s in self.steps]
        ins = [channels[-1], *outs]
        self.narrow = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(ins, outs, strict=False)
        )
        self.laterals = nn.ModuleDict(
            {
                str(s): nn.Conv2d(own[s], out, 1)
                for s, out in zip(self.steps, outs, strict=True)
                if s in own and s != strides[-1]
            }
        )
        self.blocks = nn.ModuleList(
            ConvBlock(out * (1 + skip + (str(s) in self.laterals)), out)
            for s, out in zip(self.steps, outs, strict=True)
        )

    def width_of(self, stride: int) -> int:
        """Channels of the map on the way that has this stride."""
        assert stride in self.steps, f"no map of stride {stride} on the way: {self.steps}"
        return width_at(self.widths, stride)

    def forward(
        self, maps: Sequence[Tensor], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B E h w"]:
        """Vectors of all cells; `h` is ceil(H / stride), and likewise `w`."""
        return self.pyramid(maps, images)[self.stride]

    def pyramid(
        self, maps: Sequence[Tensor], images: Float[Tensor, "B 3 H W"]
    ) -> dict[int, Tensor]:
        """A map for each stride on the way, coarse to fine."""
        size = images.shape[2:]
        found: dict[int, Tensor] = {}
        images = pad_to_multiple(images, self.steps[0])
        joined: dict[int, Tensor] = {} if self.skip is None else self.skip(_fast(images))
        own = dict(zip(self.strides, maps, strict=True))
        x, before = maps[-1], self.strides[-1]
        for stride, narrow, block in zip(self.steps, self.narrow, self.blocks, strict=True):
            grid = (images.shape[2] // stride, images.shape[3] // stride)
            parts = [magnified(_fast(narrow(x)), before, stride, grid)]
            if stride in joined:
                parts.append(joined[stride])
            if str(stride) in self.laterals:
                parts.append(_fitted(self.laterals[str(stride)](own[stride]), grid))
            x, before = block(torch.cat(parts, dim=1)), stride
            found[stride] = x[:, :, : -(-size[0] // stride), : -(-size[1] // stride)]
        return found


def magnified(
    x: Float[Tensor, "B C h w"], before: int, after: int, grid: tuple[int, int]
) -> Float[Tensor, "B C _h _w"]:
    """A map at a finer stride, bilinear; cell centres stay where they are in the image.

    Args:
        x: A map of stride `before`.
        before: Its stride.
        after: The stride that is wanted, which need not divide it.
        grid: Rows and columns of the result; what the map does not cover repeats its edge.
    """
    if before != after:
        x = F.interpolate(x, scale_factor=before / after, mode="bilinear", align_corners=False)
    return _fitted(x, grid)


def width_at(widths: Sequence[int], stride: int) -> int:
    """Channels at a stride: the entry of its power of two, the last for all coarser ones."""
    return widths[min(stride.bit_length() - 1, len(widths) - 1)]


def doublings(first: int, end: int) -> tuple[int, ...]:
    """`first` and its doubles, below `end`."""
    found: list[int] = []
    while first < end:
        found.append(first)
        first *= 2
    return tuple(found)


def _fitted(x: Float[Tensor, "B C h w"], grid: tuple[int, int]) -> Float[Tensor, "B C _h _w"]:
    down, across = grid[0] - x.shape[2], grid[1] - x.shape[3]
    if down > 0 or across > 0:
        x = F.pad(x, (0, max(across, 0), 0, max(down, 0)), mode="replicate")
    return x[:, :, : grid[0], : grid[1]]


def _fast(x: Tensor) -> Tensor:
    """Convolution and BatchNorm run faster on a CPU when channels lie side by side."""
    return x.contiguous(memory_format=torch.channels_last)
