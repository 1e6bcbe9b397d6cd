"""Convolutions and the residual blocks of a ResNet (He et al. 2016; Kolesnikov et al. 2020)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.blocks import StochasticDepth, drop_path_rates


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME rule: what to add before and after, so that ceil(size / stride) come out.

    Where the sum is odd, the greater half stands behind.
    """
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def convolution(before: int, after: int, kernel: int, stride: int) -> nn.Conv2d:
    """A convolution with kernel // 2 zeros on every side (torchvision)."""
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class StandardisedConv2d(nn.Conv2d):
    """A convolution of standardised kernels, padded by the SAME rule (Qiao et al. 2019).

    Each output channel's kernel is brought to mean 0 and deviation 1 over its inputs and places:
    (w - mean) / (std + 1e-5), as in google-research/vision_transformer.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            before, after, kernel, stride=stride, bias=False
        )
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:  # noqa: A002
        """ceil(H / stride) x ceil(W / stride) cells."""
        top, bottom, left, right = _same_padding_2d(input, self.kernel_size[0], self.stride[0])
        if (top, left) == (bottom, right):
            return F.conv2d(input, self.standardised(), None, self.stride, (top, left))
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.standardised(), None, self.stride)

    def standardised(self) -> Float[Tensor, "D C k k"]:
        """The kernels that the images meet."""
        # On a CPU the norm is about eight times faster than `torch.std_mean`, which took almost
        # half the time of a single image. Its gradient is finite for equal weights too.
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        length = cast(
            "Tensor",
            torch.linalg.vector_norm(  # pyright: ignore[reportUnknownMemberType]
                centred, dim=(1, 2, 3), keepdim=True
            ),
        )
        return centred / (length * self.weight[0].numel() ** -0.5 + 1e-5)


class TimmStandardisedConv2d(StandardisedConv2d):
    """The same as timm computes it: (w - mean) / sqrt(variance + 1e-8).

    By the same operation of torch, since a deep ResNet enlarges the last digit fifty times.
    """

    def standardised(self) -> Float[Tensor, "D C k k"]:
        """The kernels that the images meet."""
        rows = self.weight.flatten(1)[None]
        return F.batch_norm(rows, None, None, training=True, eps=1e-8).view_as(self.weight)


class SameMaxPool2d(nn.Module):
    """Maximum of 3 x 3 cells at every second place, padded by the SAME rule."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C _h _w"]:
        """ceil(H / 2) x ceil(W / 2) cells."""
        top, _, left, _ = _same_padding_2d(maps, 3, 2)
        # With `ceil_mode` the last window may reach over the edge: that is the padding behind.
        return F.max_pool2d(maps, 3, 2, padding=(top, left), ceil_mode=True)


@dataclass(frozen=True, slots=True)
class Style:
    """What a residual network is made of.

    Attributes:
        conv: Makes a convolution without bias: channels before and after, kernel size, stride.
        norm: Makes the norm of a number of channels.
        pool: Makes the 3x3 maximum of stride 2.
    """

    conv: Callable[[int, int, int, int], nn.Module]
    norm: Callable[[int], nn.BatchNorm2d | nn.GroupNorm]
    pool: Callable[[], nn.Module]


def batch_norm_style() -> Style:
    """Plain convolutions and BatchNorm (He et al. 2016)."""
    return Style(convolution, nn.BatchNorm2d, lambda: nn.MaxPool2d(3, stride=2, padding=1))


def group_norm_style(
    groups: int, *, conv: type[StandardisedConv2d] = StandardisedConv2d, eps: float = 1e-6
) -> Style:
    """Standardised convolutions and GroupNorm (Kolesnikov et al. 2020, section 3.2)."""
    return Style(conv, lambda width: nn.GroupNorm(groups, width, eps=eps), SameMaxPool2d)


class ResidualBlock(nn.Module, ABC):
    """relu(shortcut + branch). Subclasses say what the branch is.

    The last norm of the branch starts at scale 0, so that a fresh block hands on its input (Goyal
    et al. 2017, section 5.1; the original hybrid does so too). The shortcut is the identity, or a
    1x1 convolution and a norm where stride or width change.

    Args:
        before: Channels that come in.
        planes: Channels of the 3x3 convolutions.
        stride: Stride of the block.
        style: Which convolutions and norms.
        drop_path: Chance that the branch is dropped while training.

    Attributes:
        expansion: Channels that go out over `planes`.
    """

    expansion: ClassVar[int]

    def __init__(
        self, before: int, planes: int, stride: int, style: Style, *, drop_path: float
    ) -> None:
        super().__init__()
        after = planes * self.expansion
        self.downsample = (
            nn.Sequential(style.conv(before, after, 1, stride), style.norm(after))
            if stride != 1 or before != after
            else nn.Identity()
        )
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """ceil(H / stride) x ceil(W / stride) cells."""
        return F.relu(self.drop_path(self.branch(maps)) + self.downsample(maps))

    @abstractmethod
    def branch(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """What is added to the shortcut."""


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2016, Fig. 5 left)."""

    expansion = 1

    def __init__(
        self, before: int, planes: int, stride: int, style: Style, *, drop_path: float
    ) -> None:
        super().__init__(before, planes, stride, style, drop_path=drop_path)
        self.conv1, self.norm1 = style.conv(before, planes, 3, stride), style.norm(planes)
        self.conv2, self.norm2 = style.conv(planes, planes, 3, 1), style.norm(planes)
        nn.init.zeros_(self.norm2.weight)

    def branch(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """Convolve twice; the first has the stride."""
        maps = F.relu(self.norm1(self.conv1(maps)))
        return self.norm2(self.conv2(maps))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2016, Fig. 5 right)."""

    expansion = 4

    def __init__(
        self, before: int, planes: int, stride: int, style: Style, *, drop_path: float
    ) -> None:
        super().__init__(before, planes, stride, style, drop_path=drop_path)
        after = planes * self.expansion
        self.conv1, self.norm1 = style.conv(before, planes, 1, 1), style.norm(planes)
        self.conv2, self.norm2 = style.conv(planes, planes, 3, stride), style.norm(planes)
        self.conv3, self.norm3 = style.conv(planes, after, 1, 1), style.norm(after)
        nn.init.zeros_(self.norm3.weight)

    def branch(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """Narrow, convolve, widen; the 3x3 has the stride (torchvision, google-research)."""
        maps = F.relu(self.norm1(self.conv1(maps)))
        maps = F.relu(self.norm2(self.conv2(maps)))
        return self.norm3(self.conv3(maps))


class Root(nn.Module):
    """From pixels to the first map: convolution, norm, ReLU and, for photos, a maximum.

    Args:
        width: Channels of the map.
        style: Which convolution, norm and maximum.
        small: 3x3 at full resolution instead of 7x7 and a maximum, each of stride 2.
    """

    def __init__(self, width: int, style: Style, *, small: bool) -> None:
        super().__init__()
        self.conv = style.conv(3, width, 3, 1) if small else style.conv(3, width, 7, 2)
        self.norm = style.norm(width)
        self.pool = nn.Identity() if small else style.pool()
        self.width, self.stride = width, 1 if small else 4

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C _h _w"]:
        """ceil(H / stride) x ceil(W / stride) cells."""
        return self.pool(F.relu(self.norm(self.conv(images))))


class Trunk(nn.Module):
    """Root and stages; each stage after the first halves the map.

    Args:
        root: From pixels to the first map.
        block: Which block.
        depths: Blocks of each stage; may be empty.
        widths: Channels of the 3x3 convolutions of each stage.
        style: Which convolutions and norms.
        dilated: Whether the last stage keeps the size of the map and spreads its 3x3 convolutions
            instead (DC5, Carion et al. 2020, section 4.1).
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.

    Attributes:
        channels: Channels of each map.
        strides: Pixels a cell of each map.
    """

    def __init__(
        self,
        root: Root,
        block: type[ResidualBlock],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        style: Style,
        *,
        dilated: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        assert len(depths) == len(widths), "one width a stage"
        self.root = root
        self.stages = nn.ModuleList()
        before, rates = root.width, iter(drop_path_rates(drop_path, sum(depths)))
        strides = [root.stride * 2**s for s in range(max(len(depths), 1))]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            kept = dilated and stage == len(depths) - 1
            blocks = nn.Sequential()
            for unit in range(depth):
                stride = 2 if stage and not unit and not kept else 1
                blocks.append(block(before, width, stride, style, drop_path=next(rates)))
                before = width * block.expansion
            if kept and stage:
                spread(blocks)
                strides[stage] //= 2
            self.stages.append(blocks)
        self.channels = tuple(width * block.expansion for width in widths) or (root.width,)
        self.strides = tuple(strides)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _C _h _w"], ...]:
        """The map of each stage, fine to coarse; that of the root where there are no stages."""
        # Convolutions and norms run faster on a CPU when channels lie side by side.
        current = self.root(images.contiguous(memory_format=torch.channels_last))
        maps: list[Tensor] = []
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return tuple(maps) or (current,)

    def layers(self) -> list[list[nn.Module]]:
        """The root, then one group a block."""
        return [[self.root], *([block] for stage in self.stages for block in stage.children())]


def spread(stage: nn.Sequential) -> None:
    """Convolve every second cell from where the stage would have halved the map.

    Weights that were trained with a stride see the same neighbours on a map twice as fine. The
    first 3x3 convolution, which would have had the stride, comes before.
    """
    square = [c for c in stage.modules() if isinstance(c, nn.Conv2d) and c.kernel_size == (3, 3)]
    for conv in square[1:]:
        conv.dilation, conv.padding = (2, 2), (2, 2)


def doubling(width: int, stages: int) -> tuple[int, ...]:
    """A width for each stage, doubled from one to the next."""
    return tuple(width * 2**stage for stage in range(stages))


def _same_padding_2d(
    maps: Float[Tensor, "B C H W"], kernel: int, stride: int
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right."""
    return *same_padding(maps.shape[2], kernel, stride), *same_padding(
        maps.shape[3], kernel, stride
    )
