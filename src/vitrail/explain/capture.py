"""Attention weights beside the fused path (contract 6), with the proof that they were used."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.errors import ExplainError
from vitrail.explain.layers import (
    AttentionLayer,
    Explainable,
    choose_heads,
    choose_layers,
    insist_attention,
    watching,
)
from vitrail.explain.layout import Layout, OnImage, Query, Windowed
from vitrail.model import Model
from vitrail.nn.probe import ALL, AttentionWeights
from vitrail.transformer import Transformer
from vitrail.types import Grid

CHUNK = 2**24
"""Weights that are computed at a time where they go to disk: 64 MiB."""


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One attention layer of one forward pass.

    Attributes:
        layer: Which one.
        layout: Where its rows and columns lie.
        heads: Numbers of the heads that were asked for.
        queries: Numbers of the rows that were asked for; None for all.
        weights: softmax(q kᵀ · scale + bias) in float32; every row sums to 1, of a Performer to
            total / (total + 1e-8). The columns of a layer with windows are the places of the row's
            window.
        error: Largest difference between `weights @ v` and what the fused kernel gave, relative to
            the largest value of the latter: the proof that these weights were used.
    """

    layer: AttentionLayer
    layout: Layout
    heads: tuple[int, ...]
    queries: tuple[int, ...] | None
    weights: Float[Tensor, "B h Q N"]
    error: float

    def map(self, query: Query, head: int | None = None) -> Float[Tensor, "B _h _w"]:
        """Where a query looks, on the grid of places of this layer.

        Args:
            query: A number of a row, the name of a token, or a pixel (y, x) of the input.
            head: Which head; None for the mean of those that were asked for.

        Returns:
            Weights of the places. With what goes to tokens that are no places, and to padding, they
            sum to 1.

        Raises:
            ExplainError: no such query or head here, or columns that do not lie on the image.
        """
        if not isinstance(self.layout, OnImage):
            raise ExplainError(f"{self.layer.name} looks at symbols, not at places of the image")
        row = self.layout.row(query)
        weights = self.row(row)
        if head is None:
            return self.layout.lay(row, weights.mean(dim=1))
        if head not in self.heads:
            raise ExplainError(f"head {head} of {self.layer.name} was not asked for: {self.heads}")
        return self.layout.lay(row, weights[:, self.heads.index(head)])

    def row(self, row: int) -> Float[Tensor, "B h N"]:
        """The weights of one row by its number in the layer.

        Raises:
            ExplainError: it was not asked for, or there is none such.
        """
        if self.queries is not None:
            if row not in self.queries:
                raise ExplainError(f"query {row} of {self.layer.name} was not asked for")
            return self.weights[:, :, self.queries.index(row)]
        if not 0 <= row < self.weights.shape[2]:
            raise ExplainError(
                f"query {row}: the queries of {self.layer.name} go from 0 to "
                f"{self.weights.shape[2] - 1}"
            )
        return self.weights[:, :, row]


@dataclass(slots=True)
class AttentionRecord:
    """What `capture` saw, layer by layer, in the order in which the layers ran."""

    layers: list[LayerAttention] = field(default_factory=list[LayerAttention])

    @property
    def max_error(self) -> float:
        """The worst error of all layers."""
        return max((layer.error for layer in self.layers), default=0.0)


@contextmanager
def capture(
    model: Explainable,
    layers: Sequence[int] | None = None,
    *,
    heads: Sequence[int] | None = None,
    queries: Sequence[Query] | None = None,
    to: Path | None = None,
) -> Generator[AttentionRecord]:
    """Record attention while the model runs its fast path.

    Only what is asked for is computed and kept: `layers`, `heads` and `queries` bound the memory.
    With `to`, weights go to disk a part at a time and come back as mapped tensors.

    Args:
        model: A model, a backbone or a sequence Transformer.
        layers: Numbers of layers in the order in which they run, negative from the end; None for
            all. `attention_layers(model)` lists them.
        heads: Numbers of heads; None for all.
        queries: Rows: numbers, names of tokens such as "class", or pixels (y, x) of the input;
            None for all.
        to: A folder for one .npy file a layer and pass.

    Yields:
        The record; it fills up as the model is called inside the `with` block.

    Raises:
        ExplainError: no attention, no such layer or head, or `to` can be no folder; a query is
            looked up as the model runs.
    """
    if isinstance(queries, str | tuple):  # a name is a sequence too, and so is a pixel
        raise ExplainError(f"queries {queries!r}: give a list, e.g. [{queries!r}]")
    chosen = choose_layers(insist_attention(model), layers)
    for layer in chosen:
        choose_heads(layer, heads)
    record, size = AttentionRecord(), _InputSize()

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        layout = layer.place.at(size.known)
        rows = None if queries is None else [layout.row(query) for query in queries]
        wanted = choose_heads(layer, heads)
        ran = _windowed if isinstance(layout, Windowed) else _whole
        # In float32 and without a graph, whatever runs.
        with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
            seen = ran(weights, v, out, wanted, rows)
            if to is None:
                values, gap = seen.kept()
            else:
                values, gap = seen.stored(to / f"{len(record.layers):03d}-{layer.key}.npy")
        largest = float(out.detach().abs().max())
        error = gap / max(largest, torch.finfo(torch.float32).tiny)
        kept = None if rows is None else tuple(rows)
        record.layers.append(LayerAttention(layer, layout, tuple(wanted), kept, values, error))

    if to is not None:
        try:
            to.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExplainError(f"to {to}: no folder ({error.strerror}); give another") from error
    with size.of(model), watching(chosen, watch):
        yield record


@dataclass(slots=True)
class _InputSize:
    """Height and width of the images that run through the backbone."""

    known: Grid = (0, 0)

    @contextmanager
    def of(self, model: Explainable) -> Generator[None]:
        """Note the size of each batch as it comes."""
        if isinstance(model, Transformer):
            yield
            return
        backbone = model.backbone if isinstance(model, Model) else model
        handle = backbone.register_forward_pre_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        del module
        self.known = (given[0].shape[2], given[0].shape[3])


@dataclass(frozen=True, slots=True)
class _Parts:
    """Weights `B h Q N` with their largest difference from the fused output, a part at a time.

    Attributes:
        shape: Of all parts together.
        compute: The weights of the rows from one number to another, and their difference.
    """

    shape: tuple[int, int, int, int]
    compute: Callable[[int, int], tuple[Tensor, float]]

    def kept(self) -> tuple[Tensor, float]:
        """In memory."""
        return self.compute(0, self.shape[2])

    def stored(self, file: Path) -> tuple[Tensor, float]:
        """In a file, mapped."""
        batch, heads, queries, keys = self.shape
        step, gap = max(1, CHUNK // max(batch * heads * keys, 1)), 0.0
        target = _reserve(file, self.shape)
        for start in range(0, queries, step):
            end = min(start + step, queries)
            part, difference = self.compute(start, end)
            target[:, :, start:end] = part.cpu().numpy()
            gap = max(gap, difference)
        target.flush()
        return torch.from_numpy(target), gap  # pyright: ignore[reportUnknownMemberType]


def _whole(
    weights: AttentionWeights, v: Tensor, out: Tensor, heads: list[int], rows: list[int] | None
) -> _Parts:
    """Every query sees every key."""
    batch, all_heads, queries, keys = weights.shape
    some = ALL if heads == list(range(all_heads)) else heads
    for row in rows or ():
        if row >= queries:  # the length of a text is known only now
            raise ExplainError(f"query {row}: the queries of this layer go from 0 to {queries - 1}")

    def compute(start: int, end: int) -> tuple[Tensor, float]:
        wanted = slice(start, end) if rows is None else rows[start:end]
        part = weights.rows(some, wanted)
        again = part @ v[:, some].float()
        return part, _gap(again, out[:, some][:, :, wanted])

    return _Parts((batch, len(heads), queries if rows is None else len(rows), keys), compute)


def _windowed(
    weights: AttentionWeights, v: Tensor, out: Tensor, heads: list[int], rows: list[int] | None
) -> _Parts:
    """Every query sees its window; windows are laid one below the other.

    A window's rows are few keys long: all are computed together, and once.
    """
    batch, windows, all_heads, size, _ = weights.shape
    some = ALL if heads == list(range(all_heads)) else heads
    found = weights.rows(some)
    gap = _gap(found @ v[:, :, some].float(), out[:, :, some])
    found = found.transpose(1, 2).reshape(batch, len(heads), windows * size, size)
    if rows is not None:
        found = found[:, :, rows]

    def compute(start: int, end: int) -> tuple[Tensor, float]:
        return found[:, :, start:end], gap

    return _Parts((batch, len(heads), found.shape[2], size), compute)


def _gap(again: Tensor, reference: Tensor) -> float:
    gap = (again - reference.float()).abs()
    return float(gap.max()) if gap.numel() else 0.0  # no head or no row was asked for


def _reserve(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    """An .npy file of this shape, zeros as yet.

    They are written out: a mapped file that meets the end of the disk would kill the process.

    Raises:
        OSError: there is no room.
    """
    left = 4 * math.prod(shape)
    with file.open("wb") as handle:
        described = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, described)
        while left:
            left -= handle.write(bytes(min(left, CHUNK)))
    return np.lib.format.open_memmap(file, mode="r+")
