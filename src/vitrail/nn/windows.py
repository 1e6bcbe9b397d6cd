"""Attention inside windows that shift from block to block (Swin, Liu et al. 2021 and 2022).

A map of any size is served by the rule of the official dense code: it is padded on the right and at
the bottom to a multiple of the window, after the norm that precedes attention; the window is never
shrunk and the shift never left out. Padding is zeros and is not masked: padded places have the
key and value of a zero vector and take part, as in the original.

Further letters of shapes: W windows of a map, N = w² places of a window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.probe import Probe, SoftmaxWeights
from vitrail.types import Grid

SMALL_WINDOW = 100
"""Places of a window up to which a CPU computes plain products: 49 places gain, 197 lose."""

CACHED_SCORES = 2**20
"""Scores that a CPU works on at a time, so that they stay in its cache: 4 MiB."""

MASKED = -100.0
"""Added to the score of two places that only the cyclic shift made neighbours (not -inf: as the
original)."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How a map is cut into square windows (Swin section 3.2, Fig. 4).

    Attributes:
        grid: Rows and columns of the map.
        size: Side w of a window.
        shift: Places by which the map is rolled up and left before it is cut.
    """

    grid: Grid
    size: int
    shift: int = 0

    @property
    def padded(self) -> Grid:
        """Rows and columns up to a multiple of the window."""
        rows, columns = self.grid
        return rows + -rows % self.size, columns + -columns % self.size

    @property
    def count(self) -> int:
        """Windows W of a map."""
        return self.padded[0] // self.size * (self.padded[1] // self.size)

    def pad(self, tokens: Float[Tensor, "B n D"]) -> Float[Tensor, "B m D"]:
        """Zeros to the right and at the bottom of a map in raster order."""
        if self.padded == self.grid:
            return tokens
        bottom, right = (p - n for p, n in zip(self.padded, self.grid, strict=True))
        places = tokens.reshape(tokens.shape[0], *self.grid, -1)
        return F.pad(places, (0, 0, 0, right, 0, bottom)).flatten(1, 2)

    def cut(self, tokens: Shaped[Tensor, "B m D"]) -> Shaped[Tensor, "B W N D"]:
        """Roll a padded map and cut it into windows."""
        w, (rows, columns) = self.size, self.padded
        places = tokens.reshape(tokens.shape[0], rows, columns, -1)
        if self.shift:
            places = places.roll((-self.shift, -self.shift), (1, 2))
        places = places.reshape(tokens.shape[0], rows // w, w, columns // w, w, -1)
        return places.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def join(self, windows: Shaped[Tensor, "B W N D"]) -> Shaped[Tensor, "B n D"]:
        """Put the windows back to where they were cut, roll back, drop the padding."""
        w, (rows, columns) = self.size, self.padded
        places = windows.reshape(windows.shape[0], rows // w, columns // w, w, w, -1)
        places = places.transpose(2, 3).reshape(windows.shape[0], rows, columns, -1)
        if self.shift:
            places = places.roll((self.shift, self.shift), (1, 2))
        return places[:, : self.grid[0], : self.grid[1]].flatten(1, 2)

    def places(self) -> Int[Tensor, "W N"]:
        """The place of the map, in raster order, at each place of each window; -1 at padding."""
        (rows, columns), (bottom, right) = self.grid, self.padded
        inside = torch.full((bottom, right), -1)
        inside[:rows, :columns] = torch.arange(rows * columns).view(rows, columns)
        return self.cut(inside.view(1, -1, 1))[0, :, :, 0]

    def mask(self, device: torch.device) -> Float[Tensor, "W 1 N N"] | None:
        """What keeps apart places that the roll brought together; None without a shift."""
        if not self.shift:
            return None
        rows, columns = (
            (at >= n - self.size).int() + (at >= n - self.shift).int()
            for n, at in ((n, torch.arange(n, device=device)) for n in self.padded)
        )
        region = (3 * rows[:, None] + columns).view(1, -1, 1)  # nine, four of them in the corner
        region = Windows(self.padded, self.size).cut(region)[0, :, :, 0]
        apart = region[:, None, :, None] != region[:, None, None, :]
        return apart.float() * MASKED


class WindowPositions(nn.Module, ABC):
    """A bias for every pair of places of a window, the same in every window."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[list[Tensor], Tensor | None] | None = None

    @abstractmethod
    def compute(self) -> Float[Tensor, "h N N"] | None:
        """The bias of all pairs, query by key, from the parameters."""

    def forward(self) -> Float[Tensor, "h N N"] | None:
        """The bias of all pairs.

        On a CPU without gradients the last result is used again while the parameters hold the
        same values. They are compared, since no counter sees every way to change them.
        """
        parameters = list(self.parameters())
        if not _eager_cpu(*parameters):
            return self.compute()
        now = [parameter.detach() for parameter in parameters]
        kept = self._kept
        if kept is None or not all(map(_same, kept[0], now)):
            kept = ([parameter.clone() for parameter in now], self.compute())
            self._kept = kept
        return kept[1]


class NoWindowPositions(WindowPositions):
    """Places of a window are not told apart (Swin Table 4, "no pos.")."""

    def compute(self) -> None:
        """No bias."""
        return


class RelativePositions(WindowPositions):
    """A learned bias for each of the (2w - 1)² offsets, head by head (Swin equation 4)."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.table = nn.Parameter(torch.empty((2 * size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def compute(self) -> Float[Tensor, "h N N"]:
        """Look up the offset of each pair."""
        return _look_up(self.table, self.size)


class ContinuousPositions(WindowPositions):
    """A small MLP from the logarithm of the offset to the bias (Swin v2, section 3.3).

    Args:
        heads: Number of heads.
        size: Side of the window.
        pretrained: Side of the window that the MLP was trained with first; 0 for `size`. Offsets
            are measured in it.
    """

    def __init__(self, heads: int, size: int, *, pretrained: int = 0) -> None:
        super().__init__()
        self.size, self.pretrained = size, pretrained or size
        self.mlp = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(inplace=True), nn.Linear(512, heads, bias=False)
        )

    def compute(self) -> Float[Tensor, "h N N"]:
        """16 · sigmoid(mlp(sign(x) · log2(1 + 8 |x|) / 3)), offsets x in -1 to 1 (equation 4)."""
        weight = cast("Tensor", self.mlp[0].weight)
        axis = torch.arange(1 - self.size, self.size, device=weight.device, dtype=torch.float32)
        axis = axis * (8 / max(self.pretrained - 1, 1))
        axis = (axis.sign() * (axis.abs() + 1).log2() / math.log2(8)).to(weight.dtype)
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1)
        return 16 * _look_up(self.mlp(offsets), self.size).sigmoid()


class WindowAttention(nn.Module):
    """softmax(q kᵀ · scale + bias + mask) v in each window (Swin section 3.2).

    `probe` is None except inside `capture`; its leading dimensions are image and window: B W h N N.

    Args:
        dim: Width D of the tokens.
        heads: Number h of heads; must divide `dim`.
        positions: The bias of each pair of places.
        qkv_bias: Whether the query, key and value projections have a bias.
    """

    def __init__(
        self, dim: int, heads: int, positions: WindowPositions, *, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.positions = positions
        self.proj = nn.Linear(dim, dim)
        self.probe: Probe | None = None

    def forward(
        self,
        tokens: Float[Tensor, "B n D"],
        windows: Windows,
        mask: Float[Tensor, "W 1 N N"] | None,
    ) -> Float[Tensor, "B n D"]:
        """Mix the places of each window of a map in raster order; `mask` is `windows.mask()`."""
        tokens, bias = windows.pad(tokens), self.positions()
        if self._is_small(tokens, windows):
            return self.proj(self._image_by_image(self.project(tokens), windows, bias, mask))
        qkv = self.project(windows.cut(tokens))
        B, W, N, _ = qkv.shape
        q, k, v = qkv.view(B, W, N, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5).unbind(0)
        joined = self._fused(*self.match(q, k), v, bias, mask)
        return windows.join(self.proj(joined.transpose(2, 3).flatten(3)))

    def project(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Query, key and value of each token, E = 3 D."""
        return self.qkv(tokens)

    def match(
        self, q: Float[Tensor, "*B h N d"], k: Float[Tensor, "*B h N d"]
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys whose product times `scale` is the score."""
        return q, k

    def _fused(
        self,
        q: Float[Tensor, "B W h N d"],
        k: Float[Tensor, "B W h N d"],
        v: Float[Tensor, "B W h N d"],
        bias: Float[Tensor, "h N N"] | None,
        mask: Float[Tensor, "W 1 N N"] | None,
    ) -> Float[Tensor, "B W h N d"]:
        """Torch's fused kernel. Masks differ by window: there, windows are taken for heads."""
        _, W, h, N, _ = q.shape
        added = _added(bias, mask)
        if added is not None:
            added = added.to(q.dtype).expand(1 if mask is None else W, h, N, N)
        if mask is None or added is None:
            parts, of_all = [part.flatten(0, 1) for part in (q, k, v)], added
        else:
            parts, of_all = [part.flatten(1, 2) for part in (q, k, v)], added.flatten(0, 1)[None]
        joined = F.scaled_dot_product_attention(
            parts[0], parts[1], parts[2], attn_mask=of_all, scale=self.scale
        ).view(q.shape)
        if self.probe is not None:
            self.probe(SoftmaxWeights(q, k, added, self.scale), v, joined)
        return joined

    def _is_small(self, tokens: Tensor, windows: Windows) -> bool:
        """Whether `_image_by_image` serves: inference on a CPU in full precision."""
        return (
            windows.size**2 <= SMALL_WINDOW
            and tokens.dtype == torch.float32
            and _eager_cpu(tokens)
            and not torch.is_autocast_enabled("cpu")
        )

    def _image_by_image(
        self,
        qkv: Float[Tensor, "B m _E"],
        windows: Windows,
        bias: Float[Tensor, "h N N"] | None,
        mask: Float[Tensor, "W 1 N N"] | None,
    ) -> Float[Tensor, "B n D"]:
        """The same for inference on a CPU, where copies and memory cost more than arithmetic.

        Cutting, rolling and the split into heads are one gather of rows, and so is the way back.
        The buffers of one image stay in the cache. For windows of 49 places the plain products took
        0.6 of the time of torch's fused kernel on two threads, and as long on one.
        """
        B, W, N, h = qkv.shape[0], windows.count, windows.size**2, self.heads
        d = qkv.shape[2] // (3 * h)
        there, back = _row_order(windows, h)
        step = min(W, max(1, CACHED_SCORES // (h * N * N)))
        rows, joined = qkv.new_empty(len(there), d), qkv.new_empty(W * h, N, d)
        buffer = qkv.new_empty(step, h, N, N)
        result = qkv.new_empty(B, len(back), d)
        seen: list[tuple[Tensor, ...]] = []
        for image, out in zip(qkv.view(B, -1, d), result, strict=True):
            torch.index_select(image, 0, there, out=rows)
            q, k, v = rows.view(3, W, h, N, d).unbind(0)
            q, k = self.match(q, k)
            for start in range(0, W, step):
                some = slice(start, min(start + step, W))
                scores = buffer[: some.stop - start]
                _start(scores, bias, None if mask is None else mask[some])
                scores, target = scores.flatten(0, 1), joined[start * h : some.stop * h]
                query, key, value = (part[some].flatten(0, 1) for part in (q, k, v))
                torch.baddbmm(scores, query, key.mT, alpha=self.scale, out=scores)
                torch.softmax(scores, -1, out=scores)
                torch.bmm(scores, value, out=target)
            torch.index_select(joined.view(-1, d), 0, back, out=out)
            if self.probe is not None:  # the buffers are for the next image
                seen.append(tuple(part.clone() for part in (q, k, v, joined.view(W, h, N, d))))
        if self.probe is not None:
            q, k, v, mixed = (torch.stack(parts) for parts in zip(*seen, strict=True))
            self.probe(SoftmaxWeights(q, k, _added(bias, mask), self.scale), v, mixed)
        return result.view(B, -1, h * d)


class CosineWindowAttention(WindowAttention):
    """Scores by the cosine between query and key, times a learned factor (v2 equation 2).

    Keys have no bias, as in the official code.
    """

    def __init__(self, dim: int, heads: int, positions: WindowPositions) -> None:
        super().__init__(dim, heads, positions, qkv_bias=False)
        self.scale = 1.0
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10)))

    def project(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Query, key and value of each token."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return F.linear(tokens, self.qkv.weight, bias)

    def match(
        self, q: Float[Tensor, "*B h N d"], k: Float[Tensor, "*B h N d"]
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors; the factor, at most 100, goes to the queries."""
        factor = self.logit_scale.clamp(max=math.log(100)).exp().view(-1, 1, 1)
        return F.normalize(q, dim=-1) * factor.to(q.dtype), F.normalize(k, dim=-1)


class PatchMerging(nn.Module):
    """Four neighbours side by side, norm, and half their width (Swin section 3.1).

    Args:
        dim: Width C of the places; the result has 2 C.
        eps: Epsilon of the norm.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "B n C"], grid: Grid
    ) -> tuple[Float[Tensor, "B m D"], Grid]:
        """The coarser map in raster order, and its rows and columns; odd sides are padded."""
        pairs = Windows(grid, 2)
        rows, columns = pairs.padded
        return self.reduce(_four(pairs.pad(tokens), pairs.padded)), (rows // 2, columns // 2)

    def reduce(self, four: Float[Tensor, "B m _E"]) -> Float[Tensor, "B m D"]:
        """Norm, then the linear map."""
        return self.reduction(self.norm(four))


class PatchMergingV2(PatchMerging):
    """The linear map first, then a norm of the result (official code of v2)."""

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__(dim, eps=eps)
        self.norm = nn.LayerNorm(2 * dim, eps=eps)

    def reduce(self, four: Float[Tensor, "B m _E"]) -> Float[Tensor, "B m D"]:
        """The linear map, then the norm."""
        return self.norm(self.reduction(four))


def _four(tokens: Float[Tensor, "B n C"], grid: Grid) -> Float[Tensor, "B m E"]:
    """Places (0, 0), (1, 0), (0, 1), (1, 1) of each two by two, row and column, side by side."""
    rows, columns = grid
    places = tokens.reshape(tokens.shape[0], rows // 2, 2, columns // 2, 2, -1)
    return places.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)


def _start(
    scores: Float[Tensor, "W h N N"],
    bias: Float[Tensor, "h N N"] | None,
    mask: Float[Tensor, "W 1 N N"] | None,
) -> None:
    """Fill a buffer with what is added to the products, in one pass."""
    if bias is not None and mask is not None:
        torch.add(bias, mask, out=scores)
    elif bias is not None:
        scores.copy_(bias)
    elif mask is not None:
        scores.copy_(mask)
    else:
        scores.zero_()


def _added(
    bias: Float[Tensor, "h N N"] | None, mask: Float[Tensor, "W 1 N N"] | None
) -> Float[Tensor, "*W h N N"] | None:
    """What is added to the scores of all windows."""
    return bias if mask is None else mask if bias is None else bias + mask


def _eager_cpu(*tensors: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and all(tensor.device.type == "cpu" for tensor in tensors)
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@lru_cache(maxsize=64)
def _row_order(windows: Windows, heads: int) -> tuple[Int[Tensor, " _r"], Int[Tensor, " _s"]]:
    """Rows to gather from (place, part, head) to (part, window, head, place), and back.

    They are told by what cutting and joining do to the rows' own numbers.
    """
    rows, columns = windows.padded
    place = torch.arange(rows * columns).view(1, -1, 1)
    cut = windows.cut(place)[0, :, None, :, 0]  # W 1 N
    part, head = torch.arange(3).view(3, 1, 1, 1), torch.arange(heads).view(-1, 1)
    there = (cut * 3 + part) * heads + head
    joined = torch.arange(there[0].numel()).view_as(there[0])  # W h N
    back = windows.join(joined.transpose(1, 2)[None])[0]
    return there.flatten(), back.flatten()


def _look_up(table: Float[Tensor, "_o h"], size: int) -> Float[Tensor, "h N N"]:
    """From a value for each offset, rows first, to one for each pair of places."""
    y, x = (
        axis.flatten()
        for axis in torch.meshgrid(
            *(torch.arange(size, device=table.device) for _ in range(2)), indexing="ij"
        )
    )
    dy, dx = (at[:, None] - at[None, :] + size - 1 for at in (y, x))
    return table.t()[:, dy * (2 * size - 1) + dx]
