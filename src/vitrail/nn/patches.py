"""From pixels to patch vectors: the stem of a Vision Transformer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def pad_to_multiple(images: Float[Tensor, "B C H W"], multiple: int) -> Float[Tensor, "B C _ _"]:
    """Pad right and bottom with zeros (the mean colour) so that both sides are multiples."""
    bottom, right = -images.shape[2] % multiple, -images.shape[3] % multiple
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


class Stem(nn.Module, ABC):
    """Normalised images to a map of patch vectors.

    Attributes:
        stride: Pixels from one patch to the next.
    """

    stride: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """One vector a patch; sides that are no multiple of the stride are padded."""


class PatchStem(Stem):
    """Non-overlapping patches and one linear map of their pixels (ViT section 3.1)."""

    def __init__(self, width: int, patch_size: int, *, channels: int = 3) -> None:
        super().__init__()
        self.stride = patch_size
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)
        _start(self.proj, channels * patch_size**2)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """Project each patch."""
        return self.proj(pad_to_multiple(images, self.stride))


def resize_patches(
    weight: Float[Tensor, "D C p q"], size: tuple[int, int]
) -> Float[Tensor, "D C _ _"]:
    """Weights of patches for patches of another size (Beyer et al. 2023, FlexiViT, section 3.4).

    The pseudo-inverse of a bilinear resize: larger patches that show what smaller ones showed,
    resized, have the same tokens. Resized themselves, weights would give others.
    """
    rows, columns = (
        _undo_resize(old, new) for old, new in zip(weight.shape[2:], size, strict=True)
    )
    resized = rows.to(weight.device) @ weight.double() @ columns.T.to(weight.device)
    return resized.to(weight.dtype)


def _undo_resize(old: int, new: int) -> Float[Tensor, "new old"]:
    """Of a line of pixels: the pseudo-inverse of the transposed resize.

    A resize of an image is one of its columns and one of its rows, and so is its pseudo-inverse.
    """
    basis = torch.eye(old, dtype=torch.float64)[:, None]
    resize = F.interpolate(basis, size=new, mode="linear", align_corners=False)[:, 0]
    return cast("Tensor", torch.linalg.pinv(resize))  # pyright: ignore[reportUnknownMemberType]


class ConvStem(Stem):
    """A few 3x3 convolutions in the place of one large one (Xiao et al. 2021, section 4).

    Args:
        width: Width D of the patch vectors.
        widths: Channels of each 3x3 convolution.
        strides: Stride of each; their product is the patch stride.
        channels: Channels of the images.
    """

    def __init__(
        self, width: int, widths: tuple[int, ...], strides: tuple[int, ...], *, channels: int = 3
    ) -> None:
        super().__init__()
        assert len(widths) == len(strides), "one stride a convolution"
        self.stride = prod(strides)
        layers: list[nn.Module] = []
        for before, after, stride in zip((channels, *widths), widths, strides, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-1], width, kernel_size=1)
        for layer in self.convs:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        _start(self.proj, widths[-1])

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """Convolve down to the patch grid, then map to the width."""
        images = pad_to_multiple(images, self.stride)
        # Convolution and BatchNorm run faster on a CPU when channels lie side by side.
        return self.proj(self.convs(images.contiguous(memory_format=torch.channels_last)))


def _start(projection: nn.Conv2d, fan_in: int) -> None:
    """The variance of the outputs is that of the inputs (LeCun normal, as in the original code)."""
    nn.init.trunc_normal_(projection.weight, std=fan_in**-0.5)
    assert projection.bias is not None
    nn.init.zeros_(projection.bias)
