"""Where a token stands: position embeddings that are added, rotated in, or added as a bias.

Attention is blind to order (it is permutation-equivariant), so the place of a patch must be told.
Absolute positions are added to the tokens once, at the stem. Attention positions act inside every
layer, on queries and keys or on the scores. Every kind serves any grid: `grid` is the grid of the
image at hand, `base` the grid that the model was made with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.types import Grid

Resampling = Literal["bicubic_antialias", "bicubic", "bilinear_aligned", "bilinear"]
"""timm (bicubic, antialias), DeiT and Hugging Face (bicubic), google-research (scipy zoom),
Segmenter (bilinear)."""


def resample_table(
    table: Float[Tensor, "1 N D"], base: Grid, grid: Grid, resampling: Resampling
) -> Float[Tensor, "1 M D"]:
    """Stretch a table of one vector a patch to another grid; its own grid gives the table itself.

    Args:
        table: Rows in raster order over `base`; prefix tokens are not part of it.
        base: Rows and columns of the table.
        grid: Rows and columns wanted.
        resampling: The convention that the model was made with.
    """
    if base == grid:
        return table
    image = table.float().reshape(1, *base, -1).permute(0, 3, 1, 2)
    if resampling == "bilinear_aligned":
        image = F.interpolate(image, size=grid, mode="bilinear", align_corners=True)
    elif resampling == "bilinear":
        image = F.interpolate(image, size=grid, mode="bilinear")
    else:
        antialias = resampling == "bicubic_antialias"
        image = F.interpolate(image, size=grid, mode="bicubic", antialias=antialias)
    return image.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1).to(table.dtype)


class AbsolutePositions(nn.Module, ABC):
    """Positions that are added to the patch tokens at the stem.

    Attributes:
        prefix: Prefix tokens (class, registers) that have a position of their own; the others get
            none. 0 or the number of prefix tokens that the table was made with.
    """

    prefix: int

    @abstractmethod
    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """Vectors of all patches of a grid in raster order."""

    def prefix_table(self) -> Float[Tensor, "1 K D"] | None:
        """Vectors of the prefix tokens, or None where they have no position."""
        return None

    def embed(
        self, patches: Float[Tensor, "B M D"], prefix: Float[Tensor, "1 K D"], grid: Grid
    ) -> Float[Tensor, "B N D"]:
        """Add positions, then put the prefix tokens in front (ViT equation 1)."""
        patches = patches + self.table(grid)
        if prefix.shape[1] == 0:
            return patches
        place = self.prefix_table()
        if place is not None:
            prefix = prefix + place
        return torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)


class NoPositions(AbsolutePositions):
    """No positions at all (ViT Table 8, first row)."""

    prefix = 0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, 1, dim), persistent=False)

    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """Zeros."""
        assert isinstance(self.zero, Tensor)
        return self.zero.expand(1, grid[0] * grid[1], -1)


Start = Literal["normal", "sincos_2d"]
"""Values that learned positions start from: noise of 0.02 (the original), or `SineCosine2d`."""


class Learned1d(AbsolutePositions):
    """One learned vector a patch in raster order (ViT section 3.1, equation 1)."""

    def __init__(
        self, dim: int, base: Grid, *, prefix: int, resampling: Resampling, start: Start = "normal"
    ) -> None:
        super().__init__()
        self.base, self.prefix = base, prefix
        self.resampling: Resampling = resampling
        self.weight = nn.Parameter(torch.empty(1, prefix + base[0] * base[1], dim))
        nn.init.trunc_normal_(self.weight, std=0.02)
        if start == "sincos_2d":
            with torch.no_grad():
                self.weight[:, prefix:] = SineCosine2d(dim, base).table(base)

    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """The learned rows, stretched to the grid."""
        return resample_table(self.weight[:, self.prefix :], self.base, grid, self.resampling)

    def prefix_table(self) -> Float[Tensor, "1 K D"] | None:
        """The learned rows of the prefix tokens."""
        return self.weight[:, : self.prefix] if self.prefix else None


class Learned2d(AbsolutePositions):
    """A learned half vector a row beside one a column (ViT appendix D.4)."""

    prefix = 0

    def __init__(self, dim: int, base: Grid) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(1, dim // 2, base[0]))
        self.columns = nn.Parameter(torch.empty(1, dim - dim // 2, base[1]))
        nn.init.trunc_normal_(self.rows, std=0.02)
        nn.init.trunc_normal_(self.columns, std=0.02)

    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """Row and column halves side by side; another grid interpolates each axis linearly."""
        rows, columns = _stretch(self.rows, grid[0]), _stretch(self.columns, grid[1])
        image = torch.cat(
            [rows[..., :, None].expand(-1, -1, *grid), columns[..., None, :].expand(-1, -1, *grid)],
            dim=1,
        )
        return image.flatten(2).transpose(1, 2)


class SineCosine1d(AbsolutePositions):
    """The fixed sinusoid of Vaswani et al. 2017, section 3.5, over the raster order."""

    prefix = 0

    def __init__(self, dim: int, base: Grid) -> None:
        super().__init__()
        self.base = base
        position = torch.arange(base[0] * base[1], dtype=torch.float64)[:, None]
        column = torch.arange(dim)
        angle = position / 10_000 ** (2 * (column // 2) / dim)
        values = torch.where(column % 2 == 0, angle.sin(), angle.cos())[None].float()
        self.register_buffer("weight", values, persistent=False)

    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """The sinusoid of the base grid; another grid stretches it, so that places keep."""
        assert isinstance(self.weight, Tensor)
        return resample_table(self.weight, self.base, grid, "bicubic_antialias")


class SineCosine2d(AbsolutePositions):
    """Fixed sines and cosines of x, then of y (MoCo v3; big_vision `sincos2d`)."""

    prefix = 0

    def __init__(self, dim: int, base: Grid, *, temperature: float = 10_000.0) -> None:
        super().__init__()
        assert dim % 4 == 0, f"2-D sine-cosine positions need a width divisible by 4, got {dim}"
        self.base = base
        exponent = torch.arange(dim // 4, dtype=torch.float64) / max(dim // 4 - 1, 1)
        self.register_buffer("omega", temperature**-exponent, persistent=False)
        self.register_buffer("weight", self._compute(base).float(), persistent=False)

    def table(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        """Values at the patch centres, measured in patches of the base grid."""
        assert isinstance(self.weight, Tensor)
        return self.weight if grid == self.base else self._compute(grid).to(self.weight)

    def _compute(self, grid: Grid) -> Float[Tensor, "1 M D"]:
        assert isinstance(self.omega, Tensor)
        centres = [
            (torch.arange(n, device=self.omega.device, dtype=torch.float64) + 0.5) * b / n - 0.5
            for n, b in zip(grid, self.base, strict=True)
        ]
        y, x = torch.meshgrid(*centres, indexing="ij")
        ax, ay = (c.flatten()[:, None] * self.omega.double() for c in (x, y))
        return torch.cat([ax.sin(), ax.cos(), ay.sin(), ay.cos()], dim=1)[None]


class AttentionPositions(nn.Module, ABC):
    """Positions that act inside attention."""

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h N d"], grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries and keys to use, and a bias to add to the scores, or None."""


class Placeless(AttentionPositions):
    """Attention that knows nothing of places; absolute positions may have been added before."""

    def forward(
        self, q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h N d"], grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pass queries and keys through."""
        del grid
        return q, k, None


class AxialRotary(AttentionPositions):
    """Rotary positions on two axes (Su et al. 2021, section 3.2, one half of a head an axis).

    Patch centres run from -1 to 1 on each axis, whatever the grid, so any image size is served.

    Args:
        head_dim: Width d of one head, divisible by 4.
        prefix: Leading tokens that stand nowhere and are not rotated.
        base: Longest wave length in units of the image side.
    """

    def __init__(self, head_dim: int, *, prefix: int, base: float = 100.0) -> None:
        super().__init__()
        assert head_dim % 4 == 0, f"rotary positions need a head width divisible by 4: {head_dim}"
        self.prefix = prefix
        exponent = torch.arange(head_dim // 4, dtype=torch.float32) / (head_dim // 4)
        self.register_buffer("frequency", 2 * math.pi * base**-exponent, persistent=False)

    def forward(
        self, q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h N d"], grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rotate pairs of query and key components by an angle proportional to y and x."""
        cos, sin = self._angles(grid)
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return self._rotate(q, cos, sin), self._rotate(k, cos, sin), None

    def _angles(self, grid: Grid) -> tuple[Float[Tensor, "M d"], Float[Tensor, "M d"]]:
        assert isinstance(self.frequency, Tensor)
        centres = [(torch.arange(n, device=self.frequency.device) + 0.5) * 2 / n - 1 for n in grid]
        places = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1)
        angle = (places.reshape(-1, 2, 1) * self.frequency).flatten(1)
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos(), angle.sin()

    def _rotate(
        self, x: Float[Tensor, "B h N d"], cos: Float[Tensor, "M d"], sin: Float[Tensor, "M d"]
    ) -> Float[Tensor, "B h N d"]:
        prefix, patches = x[:, :, : self.prefix], x[:, :, self.prefix :]
        first, second = patches.chunk(2, dim=-1)
        turned = patches * cos + torch.cat([-second, first], dim=-1) * sin
        return torch.cat([prefix, turned], dim=2) if self.prefix else turned


class RelativeBias2d(AttentionPositions):
    """A learned bias for every offset between two patches (Swin section 3.2, equation 4).

    Prefix tokens have three entries of their own a head: prefix to patch, patch to prefix and
    prefix to prefix (as in BEiT).
    """

    def __init__(self, heads: int, base: Grid, *, prefix: int) -> None:
        super().__init__()
        self.base, self.prefix = base, prefix
        self.weight = nn.Parameter(torch.empty(1, heads, 2 * base[0] - 1, 2 * base[1] - 1))
        self.prefix_weight = nn.Parameter(torch.zeros(heads, 3 if prefix else 0))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(
        self, q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h N d"], grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries and keys as they are, with the bias of every pair."""
        return q, k, self.bias(grid).to(q.dtype)

    def bias(self, grid: Grid) -> Float[Tensor, "1 h N N"]:
        """The bias of every pair of tokens; another grid stretches the table (bicubic, Swin)."""
        size = (2 * grid[0] - 1, 2 * grid[1] - 1)
        table = self.weight
        if grid != self.base:
            table = F.interpolate(table, size=size, mode="bicubic", align_corners=False)
        bias = table.flatten(2)[:, :, _offsets(grid, table.device)]
        return self._with_prefix(bias) if self.prefix else bias

    def _with_prefix(self, bias: Float[Tensor, "1 h M M"]) -> Float[Tensor, "1 h N N"]:
        heads, M, K = bias.shape[1], bias.shape[2], self.prefix
        to_patch, from_patch, own = (
            entry.reshape(1, heads, 1, 1) for entry in self.prefix_weight.unbind(1)
        )
        top = torch.cat([own.expand(1, heads, K, K), to_patch.expand(1, heads, K, M)], dim=3)
        bottom = torch.cat([from_patch.expand(1, heads, M, K), bias], dim=3)
        return torch.cat([top, bottom], dim=2)


def _offsets(grid: Grid, device: torch.device) -> Tensor:
    """Index of each (query, key) offset in a flattened (2H-1, 2W-1) table, shape (HW, HW)."""
    y, x = (
        axis.flatten()
        for axis in torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    )
    dy = y[:, None] - y[None, :] + grid[0] - 1
    dx = x[:, None] - x[None, :] + grid[1] - 1
    return dy * (2 * grid[1] - 1) + dx


def _stretch(line: Float[Tensor, "1 D L"], length: int) -> Float[Tensor, "1 D M"]:
    if line.shape[-1] == length:
        return line
    return F.interpolate(line, size=length, mode="linear", align_corners=False)
