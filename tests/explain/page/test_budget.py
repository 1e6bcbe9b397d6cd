from __future__ import annotations

import pytest

from tiny import tiny_config, tiny_model
from vitrail.explain.layers import AttentionLayer, attention_layers
from vitrail.explain.page.budget import FINEST, Extent, Plan, make_plan

SIZE = (64, 96)


@pytest.fixture(scope="module")
def layers() -> tuple[AttentionLayer, ...]:
    return attention_layers(tiny_model(backbone=tiny_config(image_size=SIZE, depth=3)))


def cost(layers: tuple[AttentionLayer, ...], plan: Plan) -> int:
    return plan.cost(layers, Extent(SIZE))


def test_from_exact_to_nothing_as_the_room_shrinks(layers: tuple[AttentionLayer, ...]) -> None:
    extents = [Extent(SIZE)] * 2
    exact, rounded = cost(layers, Plan(16, FINEST, 0, 2)), cost(layers, Plan(8, FINEST, 0, 2))
    assert rounded < exact
    assert make_plan(layers, extents, 2 * exact) == Plan(16, FINEST, 0, 2)
    assert make_plan(layers, extents, 2 * exact - 1) == Plan(8, FINEST, 0, 2)
    assert make_plan(layers, extents, 2 * rounded - 1) == Plan(8, FINEST, 0, 1)
    coarse = make_plan(layers, extents, rounded - 1)
    assert coarse.limit < FINEST
    assert coarse.images >= 1
    assert coarse.block(layers[0], extents[0]) > 1
    least = make_plan(layers, extents, cost(layers, Plan(8, 18_000, 0, 1)) - 1)
    assert (least.first, least.images) == (1, 1)
    assert make_plan(layers, extents, 10) == Plan(8, 18_000, 3, 0)


@pytest.mark.parametrize("room", [200_000, 400_000, 900_000, 2_000_000])
def test_a_plan_keeps_to_the_room(layers: tuple[AttentionLayer, ...], room: int) -> None:
    plan = make_plan(layers, [Extent(SIZE)] * 3, room)
    assert plan.images
    assert plan.images * cost(layers, plan) <= room


def test_layers_of_too_many_places_are_coarser_and_others_are_not(
    layers: tuple[AttentionLayer, ...],
) -> None:
    plan = Plan(16, FINEST, 0, 1)
    assert plan.block(layers[0], Extent((4 * 32, 4 * 32))) == 1
    assert plan.block(layers[0], Extent((4 * 56, 4 * 56))) == 2


def test_nothing_to_plan() -> None:
    assert make_plan((), [Extent(SIZE)], 0).images == 1
