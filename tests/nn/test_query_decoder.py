"""Queries: chosen from tokens, apart in groups, refined on the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitrail.nn.boxes import refine
from vitrail.nn.deformable import DeformableAttention, FeatureMemory, feature_memory
from vitrail.nn.query_decoder import (
    LearnedQueries,
    QueryDecoder,
    QueryLayer,
    TwoStageQueries,
    box_head,
    class_head,
    first_boxes,
    sine_of_boxes,
)


def memory(mask: Tensor | None = None) -> FeatureMemory:
    generator = torch.Generator().manual_seed(0)
    return feature_memory([torch.randn(2, 8, 4, 6, generator=generator)], mask)


def decoder(refinement: str = "layers") -> QueryDecoder:
    torch.manual_seed(1)
    layers = [QueryLayer(8, 2, DeformableAttention(8, 2, points=2), 16) for _ in range(3)]
    assert refinement in ("layers", "once")
    return QueryDecoder(8, layers, from_boxes=True, refinement=refinement)  # pyright: ignore[reportArgumentType]


def test_first_boxes_stand_on_the_cells() -> None:
    boxes, bad = first_boxes(memory())
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.5 / 6, 0.5 / 4, 0.05, 0.05]))
    torch.testing.assert_close(boxes[0, 7, :2], torch.tensor([1.5 / 6, 1.5 / 4]))
    assert not bad.any()


def test_first_boxes_are_shares_of_the_image_without_what_was_filled_up() -> None:
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[:, :2, :3] = True
    boxes, bad = first_boxes(memory(mask))
    torch.testing.assert_close(boxes[0, 0, :2], torch.tensor([0.5 / 3, 0.5 / 2]))
    assert (~bad).sum() == 2 * 6


def test_the_best_tokens_become_queries() -> None:
    torch.manual_seed(0)
    source = TwoStageQueries(8, 3, count=5, groups=1).eval()
    start = source(memory())
    assert start.proposals is not None
    proposer = source.proposers[0]
    hidden = proposer.norm(proposer.project(memory().tokens))
    scores = proposer.classify(hidden).amax(-1)
    expected = scores.topk(5, dim=1).values
    torch.testing.assert_close(start.proposals.logits.amax(-1), expected)
    # Nothing is learned yet: queries begin where the tokens stand.
    assert start.boxes is not None
    torch.testing.assert_close(start.boxes, start.proposals.boxes)


def test_what_was_filled_up_is_never_chosen() -> None:
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[:, :2, :3] = True
    start = TwoStageQueries(8, 3, count=6, groups=1).eval()(memory(mask))
    assert start.boxes is not None
    assert (start.boxes[..., :2] < 1).all()
    assert (start.boxes[..., :2] > 0).all()


def test_fewer_tokens_than_queries() -> None:
    start = TwoStageQueries(8, 3, count=50, groups=2).train()(memory())
    assert start.content.shape == (2, 2 * 24, 8)


def test_groups_are_for_training_alone() -> None:
    source = TwoStageQueries(8, 3, count=5, groups=4)
    assert source.train()(memory()).content.shape == (2, 20, 8)
    start = source.eval()(memory())
    assert start.content.shape == (2, 5, 8)
    torch.testing.assert_close(start.content[0], source.content[:5])


def test_the_first_stage_learns_from_its_own_loss_alone() -> None:
    source = TwoStageQueries(8, 3, count=5, groups=1)
    start = source(memory())
    assert start.boxes is not None
    start.boxes.sum().backward()
    assert source.shift.grad is not None
    assert all(p.grad is None for p in source.proposers.parameters())


def test_groups_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    layer = QueryLayer(8, 2, DeformableAttention(8, 2, points=2), 16)
    queries, places, boxes = torch.randn(2, 6, 8), torch.randn(2, 6, 8), torch.rand(2, 6, 4)
    together = layer(queries, places, boxes, memory(), 2)
    alone = layer(queries[:, :3], places[:, :3], boxes[:, :3], memory(), 1)
    torch.testing.assert_close(together[:, :3], alone)
    changed = queries.clone()
    changed[:, 4] += 1
    other = layer(changed, places, boxes, memory(), 2)
    assert torch.equal(other[:, :3], together[:, :3])
    assert not torch.equal(other[:, 3], together[:, 3])


@pytest.mark.parametrize("refinement", ["layers", "once"])
def test_boxes_move_after_every_layer_or_never(refinement: str) -> None:
    source, head = TwoStageQueries(8, 3, count=5, groups=1).eval(), box_head(8)
    torch.nn.init.constant_(head.layers[-1].bias, 0.1)

    def locate(queries: Tensor, boxes: Tensor | None) -> Tensor:
        assert boxes is not None
        return refine(boxes, head(queries))

    states = decoder(refinement)(source(memory()), memory(), locate, 1)
    first, second = states[0][1], states[1][1]
    assert first is not None
    assert second is not None
    if refinement == "once":
        assert torch.equal(first, second)
    else:
        torch.testing.assert_close(second, refine(first, torch.full((2, 5, 4), 0.1)))
        assert not second.requires_grad


def test_learned_queries_say_nothing_at_first() -> None:
    start = LearnedQueries(8, 7)(memory())
    assert (start.content == 0).all()
    assert start.places is not None
    assert start.places.shape == (2, 7, 8)


def test_heads_begin_modest() -> None:
    logits = class_head(8, 3)(torch.zeros(1, 8))
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 3), 0.01))
    assert (box_head(8)(torch.randn(4, 8)) == 0).all()


def test_sines_tell_neighbouring_boxes_apart() -> None:
    boxes = torch.tensor([[[0.5, 0.25, 0.1, 0.2], [0.5, 0.26, 0.1, 0.2]]])
    sines = sine_of_boxes(boxes, 4)
    assert sines.shape == (1, 2, 16)
    # y, x, width, height; only y differs.
    torch.testing.assert_close(sines[0, 0, 4:], sines[0, 1, 4:])
    assert not torch.allclose(sines[0, 0, :4], sines[0, 1, :4])
    torch.testing.assert_close(sines[0, 0, 0], torch.tensor(0.25 * 2 * torch.pi).sin())
