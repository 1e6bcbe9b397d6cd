"""Attention of one image, layer after layer, in bounded memory: for pages and for arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vitrail.explain.capture import LayerAttention, capture
from vitrail.explain.layers import AmongQueries, AttentionLayer, OnMaps, attention_layers
from vitrail.explain.layout import Layout
from vitrail.explain.page.packed import lay_out
from vitrail.model import Model
from vitrail.tasks.transcribe import Transcribe
from vitrail.types import Grid

AT_ONCE = 2**25
"""Weights that are held in memory: 128 MiB. A layer that has more alone goes through the disk."""


@dataclass(frozen=True, slots=True)
class Written:
    """The text that a model wrote for an image.

    Attributes:
        read: What the decoder read at each step: the mark of the beginning, then the symbols.
        symbols: What it wrote then, one a step; "" for the mark of the end.
        ids: The symbols of `read` by number.
    """

    read: tuple[str, ...]
    symbols: tuple[str, ...]
    ids: Int[Tensor, "1 T"]


@torch.no_grad()
def write(model: Model, image: UInt8[Tensor, "3 H W"]) -> Written | None:
    """What a transcriber writes for an image; None for other tasks."""
    task = model.task
    if not isinstance(task, Transcribe):
        return None
    found = task.write(model(image[None]))
    most, alphabet = task.config.max_length, task.config.alphabet
    count = min(int(found.lengths[0]), most)
    symbols = [alphabet[int(i)] for i in found.tokens[0, :count]]
    first = found.tokens.new_full((1, 1), task.mark)
    ids = torch.cat([first, found.tokens[:, :count]], dim=1)
    if bool(found.ended[0]):
        return Written(("", *symbols), (*symbols, ""), ids)
    return Written(("", *symbols[:-1]), tuple(symbols), ids[:, :count])


def layers_shown(model: Model) -> tuple[AttentionLayer, ...]:
    """The attention that a page shows by place or symbol.

    Queries for objects are neither: a page shows what those looked at that found something.
    """
    return tuple(
        layer
        for layer in attention_layers(model)
        if not isinstance(layer.place, AmongQueries | OnMaps)
    )


def weights_of(
    layer: AttentionLayer, layout: Layout, symbols: int, *, block: int = 1
) -> tuple[int, int, int]:
    """Heads, rows and columns of a layer for an image of one size, in blocks."""
    return (layer.heads, *lay_out(layout, block).shape(symbols))


def stream_attention(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    layers: Sequence[int],
    written: Written | None = None,
) -> Iterator[LayerAttention]:
    """Attention of some layers in the order in which they run; batches of one.

    The model runs once for as many layers as fit into memory together.

    Args:
        model: In evaluation mode.
        image: Prepared.
        layers: Numbers of layers.
        written: The text, for a transcriber.
    """
    height, width = image.shape[1:]
    known = attention_layers(model)
    sizes = [_count(known[i], (height, width), written) for i in layers]
    for some in _groups(layers, sizes):
        total = sum(sizes[layers.index(i)] for i in some)
        with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
            to = Path(folder) if total > AT_ONCE else None
            with capture(model, some, to=to) as record:
                _run(model, image, written)
            while record.layers:
                yield record.layers.pop(0)


@torch.no_grad()
def _run(model: Model, image: UInt8[Tensor, "3 H W"], written: Written | None) -> None:
    output = model(image[None])
    if written is not None:
        assert isinstance(model.task, Transcribe), "only a transcriber writes"
        model.task.decoder(written.ids, output)


def _count(layer: AttentionLayer, size: Grid, written: Written | None) -> int:
    symbols = 0 if written is None else len(written.symbols)
    heads, rows, columns = weights_of(layer, layer.place.at(size), symbols)
    return heads * rows * columns


def _groups(layers: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours that fit into memory together."""
    group: list[int] = []
    totals = accumulate(sizes)
    before = 0
    for layer, total in zip(layers, totals, strict=True):
        if group and total - before > AT_ONCE:
            yield group
            group, before = [], total - sizes[layers.index(layer)]
        group.append(layer)
    if group:
        yield group
