"""Attention inside windows that cut the image into equal parts (LW-DETR, Chen et al. 2024).

An image has `side` x `side` windows whatever its size, so a window grows with the image. Tokens
keep their usual order, prefix first, then places in raster order; only attention cuts them.

Prefix tokens (class, registers) have a copy in every window, as in RF-DETR: each copy sees its own
window and drifts apart from the others, until a block attends over the whole image.

Further letters of shapes: W = side² windows of an image, M tokens of a window with its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vitrail.nn.attention import Attention
from vitrail.nn.positions import Placeless
from vitrail.nn.probe import SoftmaxWeights
from vitrail.types import Grid


@dataclass(frozen=True, slots=True)
class ImageWindows:
    """How the tokens of an image fall into windows.

    Attributes:
        grid: Rows and columns of places, multiples of `side`.
        side: Windows along each side of the image.
        prefix: Prefix tokens of one window.
    """

    grid: Grid
    side: int
    prefix: int = 0

    @property
    def count(self) -> int:
        """Windows W of an image."""
        return self.side**2

    def cut(self, tokens: Float[Tensor, "B h N d"]) -> Float[Tensor, "B W h M d"]:
        """Tokens by window; windows and the places of each are in raster order."""
        B, h, _, d = tokens.shape
        prefix, places = tokens.tensor_split([self.count * self.prefix], dim=2)
        rows, columns = (n // self.side for n in self.grid)
        places = places.reshape(B, h, self.side, rows, self.side, columns, d).transpose(3, 4)
        cut = places.reshape(B, h, self.count, rows * columns, d)
        if self.prefix:
            cut = torch.cat([prefix.reshape(B, h, self.count, self.prefix, d), cut], dim=3)
        return cut.transpose(1, 2)

    def join(self, windows: Float[Tensor, "B W h M d"]) -> Float[Tensor, "B h N d"]:
        """Put the tokens back to where they were cut."""
        B, _, h, _, d = windows.shape
        prefix, places = windows.transpose(1, 2).tensor_split([self.prefix], dim=3)
        rows, columns = (n // self.side for n in self.grid)
        places = places.reshape(B, h, self.side, self.side, rows, columns, d).transpose(3, 4)
        joined = places.reshape(B, h, -1, d)
        return torch.cat([prefix.reshape(B, h, -1, d), joined], dim=2) if self.prefix else joined

    def of_tokens(self, device: torch.device) -> Int[Tensor, "N"]:
        """The window of each token."""
        numbers = torch.arange(self.count, device=device)
        size = self.prefix + self.grid[0] * self.grid[1] // self.count
        by_window = numbers.view(1, -1, 1, 1, 1).expand(1, -1, 1, size, 1)
        return self.join(by_window.float()).flatten().long()

    def apart(self, device: torch.device) -> Bool[Tensor, "N N"]:
        """Whether two tokens are in different windows."""
        window = self.of_tokens(device)
        return window[:, None] != window[None, :]


class ImageWindowAttention(Attention):
    """Attention inside each window of the image.

    Who watches sees one matrix over all tokens, with nothing between windows.

    Args:
        dim: Width D of the tokens.
        heads: Number h of heads; must divide `dim`.
        side: Windows along each side of the image.
        prefix: Prefix tokens of one window.
        qkv_bias: Whether the query, key and value projections have a bias.
    """

    def __init__(
        self, dim: int, heads: int, *, side: int, prefix: int, qkv_bias: bool = True
    ) -> None:
        super().__init__(dim, heads, Placeless(), qkv_bias=qkv_bias)
        self.side, self.prefix = side, prefix

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        grid: Grid,
        mask: Bool[Tensor, "B 1 N N"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Mix the tokens of each window; windows alone say which tokens see which."""
        assert mask is None, "windows and a mask: nobody has needed both"
        windows = ImageWindows(grid, self.side, self.prefix)
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        cut = [windows.cut(part).flatten(0, 1) for part in (q, k, v)]
        joined = F.scaled_dot_product_attention(cut[0], cut[1], cut[2], scale=self.scale)
        joined = windows.join(joined.reshape(-1, windows.count, *joined.shape[1:]))
        if self.probe is not None:
            apart = windows.apart(q.device)
            bias = torch.zeros_like(apart, dtype=q.dtype).masked_fill_(apart, -torch.inf)
            self.probe(SoftmaxWeights(q, k, bias, self.scale), v, joined)
        return self.proj(joined.transpose(1, 2).flatten(2))
