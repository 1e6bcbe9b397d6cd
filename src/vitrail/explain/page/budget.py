"""How much attention fits into a page: how exactly, how finely, of which layers and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from vitrail.explain.layers import AttentionLayer
from vitrail.explain.page.packed import Bits
from vitrail.explain.page.stream import weights_of
from vitrail.types import Grid

FINEST = 1_100_000
"""Weights of a head up to which every place is kept: 1,024 places and some tokens, squared."""

LIMITS = (FINEST, 280_000, 70_000, 18_000)
"""From fine to coarse: 1,024, 512, 256 and 128 places."""


UNKNOWN: Mapping[Bits, float] = MappingProxyType({})
"""Nothing is known of what deflate leaves."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What decides how many weights an image has.

    Attributes:
        size: Height and width of the model's input.
        symbols: Symbols of its text.
    """

    size: Grid
    symbols: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is kept of the attention.

    Attributes:
        bits: Bits a weight.
        limit: Weights of a head from which a layer is kept in blocks.
        first: Layers before this one are left out.
        images: The images whose attention is kept are the first so many.
    """

    bits: Bits
    limit: int
    first: int
    images: int

    def block(self, layer: AttentionLayer, extent: Extent) -> int:
        """Side of a block: the smallest with which a head's weights are within the limit."""
        layout, block = layer.place.at(extent.size), 1
        while prod(weights_of(layer, layout, extent.symbols, block=block)[1:]) > self.limit:
            coarser = weights_of(layer, layout, extent.symbols, block=block + 1)
            if coarser == weights_of(layer, layout, extent.symbols, block=block):
                break  # symbols, or one block a window: no coarser way
            block += 1
        return block

    def cost(self, layers: Sequence[AttentionLayer], extent: Extent) -> int:
        """Most bytes of an image on the page: base64 of what deflate did not make smaller."""
        total = 0
        for layer in layers[self.first :]:
            layout, block = layer.place.at(extent.size), self.block(layer, extent)
            heads, rows, columns = weights_of(layer, layout, extent.symbols, block=block)
            raw = heads * rows * (4 + columns * self.bits // 8)
            total += (raw + raw // 1000 + 64) * 4 // 3 + 512
        return total


def make_plan(
    layers: Sequence[AttentionLayer],
    extents: Sequence[Extent],
    budget: int,
    shrunk: Mapping[Bits, float] = UNKNOWN,
) -> Plan:
    """The best that fits: exact, then rounded, then fewer images, coarser, then fewer layers.

    Args:
        layers: Of the model.
        extents: One an image.
        budget: Bytes for all attention.
        shrunk: What deflate leaves of the most bytes, by bits a weight, where that is known.
    """
    everyone = len(extents)
    if not layers or not extents:
        return Plan(16, FINEST, 0, everyone)
    choices: tuple[Bits, ...] = (16, 8)
    for bits in choices:
        plan = Plan(bits, FINEST, 0, everyone)
        total = sum(plan.cost(layers, extent) for extent in extents)
        if total * shrunk.get(bits, 1) <= budget:
            return plan
    room = budget / shrunk.get(8, 1)
    for limit in LIMITS:
        fit = _fitting(Plan(8, limit, 0, everyone), layers, extents, room)
        if fit:
            return Plan(8, limit, 0, fit)
    for first in range(1, len(layers)):
        plan = Plan(8, LIMITS[-1], first, 1)
        if plan.cost(layers, extents[0]) <= room:
            return plan
    return Plan(8, LIMITS[-1], len(layers), 0)


def _fitting(
    plan: Plan, layers: Sequence[AttentionLayer], extents: Sequence[Extent], room: float
) -> int:
    """How many images fit, from the first on."""
    total = 0
    for i, extent in enumerate(extents):
        total += plan.cost(layers, extent)
        if total > room:
            return i
    return len(extents)
