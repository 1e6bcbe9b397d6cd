"""What queries with masks cost: the right partner, and nothing for what nobody judges."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitrail.tasks.mask_loss import MaskTruth, boxed_loss, foreground_loss, query_loss
from vitrail.tasks.matching import Truth
from vitrail.tasks.segment_targets import mask_truths
from vitrail.types import Found, MaskQueries, MaskVectors, Segments

H, W, Q, C = 6, 8, 4, 2


def truth(seed: int, count: int, size: tuple[int, int] = (H, W)) -> MaskTruth:
    """Strips of random labels, one below another."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for k in range(count):
        masks[k, k * size[0] // max(count, 1) : (k + 1) * size[0] // count, : 3 + k] = True
    labels = torch.randint(0, C, (count,), generator=generator)
    boxes = torch.rand(count, 4, generator=generator) * 0.2 + 0.3
    return MaskTruth(Truth(labels, boxes), masks, torch.ones(size, dtype=torch.bool))


def answer(seed: int = 0, batch: int = 2) -> MaskQueries:
    generator = torch.Generator().manual_seed(seed)
    return MaskQueries(
        torch.randn(batch, Q, C + 1, generator=generator),
        torch.randn(batch, Q, H, W, generator=generator),
    )


def by_hand(found: MaskQueries, wanted: MaskTruth, queries: tuple[int, ...]) -> torch.Tensor:
    """The loss of one image alone, with a query for each segment as given."""
    logits, masks = found.logits[0], found.masks[0]
    labels = torch.full((Q,), C)
    labels[list(queries)] = wanted.truth.labels
    weights = torch.tensor([1.0] * C + [0.1])
    total = 2 * F.cross_entropy(logits, labels, weights)
    count = len(queries)
    for query, mask in zip(queries, wanted.masks.float(), strict=True):
        area, p = mask.sum(), masks[query].sigmoid()
        entropy = F.binary_cross_entropy_with_logits(masks[query], mask, reduction="sum")
        dice = (2 * (p * mask).sum() + 1) / (p.sum() + area + 1)
        total = total + (5 * entropy / (2 * area + 1) + 5 * (1 - dice)) / count
    return total


def matching_cost(found: MaskQueries, wanted: MaskTruth, queries: tuple[int, ...]) -> float:
    total = torch.zeros(())
    for place, query in enumerate(queries):
        mask, logits = wanted.masks[place].float(), found.masks[0, query]
        p = logits.sigmoid()
        dice = (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
        total = total - 2 * found.logits[0, query].softmax(0)[wanted.truth.labels[place]]
        total = total + 5 * F.binary_cross_entropy_with_logits(logits, mask) + 5 * (1 - dice)
    return float(total)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_segments_take_the_queries_that_cost_least_in_all(seed: int, count: int) -> None:
    found, wanted = answer(seed, 1), truth(seed, count)
    best = min(permutations(range(Q), count), key=lambda q: matching_cost(found, wanted, q))
    (loss,) = query_loss(found, [wanted], stride=1)
    torch.testing.assert_close(loss, by_hand(found, wanted, best))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(Q)), segments=st.permutations(range(3)), seed=st.integers(0, 99))
def test_the_order_of_queries_and_segments_means_nothing(
    order: list[int], segments: list[int], seed: int
) -> None:
    found, (first, second) = answer(seed), (truth(1, 3), truth(2, 1))
    moved = MaskQueries(found.logits[:, order], found.masks[:, order])
    shuffled = MaskTruth(
        Truth(first.truth.labels[segments], first.truth.boxes[segments]),
        first.masks[segments],
        first.judged,
    )
    torch.testing.assert_close(
        query_loss(moved, [shuffled, second], stride=1),
        query_loss(found, [first, second], stride=1),
    )


def test_a_perfect_answer_costs_nothing_and_faults_cost() -> None:
    wanted = truth(0, 3)
    logits = torch.full((1, Q, C + 1), -20.0)
    logits[0, torch.arange(3), wanted.truth.labels] = 20
    logits[0, 3, C] = 20
    masks = torch.full((1, Q, H, W), -20.0)
    masks[0, :3][wanted.masks] = 20

    def cost(logits: torch.Tensor, masks: torch.Tensor) -> float:
        return float(query_loss(MaskQueries(logits, masks), [wanted], stride=1))

    assert cost(logits, masks) < 1e-3
    assert cost(logits.roll(1, 2), masks) > 1, "other classes"
    assert cost(logits, -masks) > 1, "other pixels"
    alarm = logits.clone()
    alarm[0, 3] = logits[0, 0]
    assert cost(alarm, masks) > 0.5, "one segment too many"


def test_layers_are_summed() -> None:
    found, truths = answer(), [truth(0, 2), truth(1, 0)]
    three = found._replace(earlier=(found, found))
    torch.testing.assert_close(
        query_loss(three, truths, stride=1), 3 * query_loss(found, truths, stride=1)
    )


def test_images_without_segments() -> None:
    """Alone they teach "no segment"; masks learn nothing from them."""
    found = MaskQueries(*(x.requires_grad_() for x in answer()[:2]))
    losses = query_loss(found, [truth(0, 0), truth(1, 0)], stride=1)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert found.logits.grad is not None
    assert (found.logits.grad[..., C] < 0).all()
    assert found.masks.grad is None or not found.masks.grad.any()


def test_more_segments_than_queries() -> None:
    """As many as there are queries are learned."""
    wanted = truth(0, 6)
    assert query_loss(answer(0, 1), [wanted], stride=1).isfinite().all()


def drawn(crowd: bool) -> Segments:
    """Two segments, and a third that is void or a crowd."""
    ids = torch.zeros(1, H, W, dtype=torch.int16)
    ids[0, :3, :4], ids[0, 4:, :5], ids[0, :, 6:] = 1, 2, 3
    return Segments(ids, (0, 1, 1 if crowd else -1), (False, False, True) if crowd else ())


@pytest.mark.parametrize("crowd", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_crowds_and_void_change_nothing(crowd: bool, stride: int) -> None:
    (wanted,) = mask_truths([drawn(crowd)], [], semantic=False, device="cpu")
    assert wanted.truth.labels.tolist() == [0, 1]
    found = answer(0, 1)
    masks = found.masks[..., : H // stride, : W // stride]
    other = masks.clone()
    other[..., 6 // stride :] = 9 * torch.randn_like(other[..., 6 // stride :])
    other.requires_grad_()
    loss = query_loss(MaskQueries(found.logits, other), [wanted], stride=stride)
    torch.testing.assert_close(
        loss, query_loss(MaskQueries(found.logits, masks), [wanted], stride=stride)
    )
    loss.sum().backward()
    assert other.grad is not None
    assert not other.grad[..., 6 // stride :].any()
    assert other.grad[..., : 6 // stride].any()


def test_a_cell_that_is_half_void_is_judged_by_its_other_half() -> None:
    """All that is judged of it is of the segment: certainty costs nothing."""
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :, 1:2] = True
    judged = torch.ones(4, 4, dtype=torch.bool)
    judged[:, 0] = False
    wanted = MaskTruth(Truth(torch.tensor([0]), torch.full((1, 4), 0.5)), masks, judged)
    logits = torch.tensor([[[20.0, -20, -20], [-20, -20, 20]]])
    cells = torch.tensor([[20.0, -20.0], [20.0, -20.0]])
    sure = MaskQueries(logits, torch.stack([cells, -cells])[None])
    assert float(query_loss(sure, [wanted], stride=2)) < 1e-3


def test_a_view_that_ends_within_a_patch() -> None:
    """Masks of whole patches reach beyond the view; what is there does not count."""
    found, wanted = answer(0, 1), truth(0, 2)
    wider = F.pad(found.masks, (0, 3, 0, 1), value=7.0)
    torch.testing.assert_close(
        query_loss(found._replace(masks=wider), [wanted], stride=1),
        query_loss(found, [wanted], stride=1),
    )


def test_coarse_masks_are_compared_with_shares() -> None:
    """A cell of which a quarter belongs to the segment costs least at a quarter."""
    wanted = truth(0, 1, (4, 4))
    wanted = replace(wanted, masks=torch.zeros(1, 4, 4, dtype=torch.bool))
    wanted.masks[0, 0, 0] = wanted.masks[0, 2:, 2:] = True
    masks = torch.full((1, 1, 2, 2), -20.0)
    masks[0, 0, 1, 1] = 20
    costs = []
    for share in (0.05, 0.25, 0.5):
        masks[0, 0, 0, 0] = torch.tensor(share).logit()
        entropy = F.binary_cross_entropy_with_logits(
            masks[0, 0], torch.tensor([[0.25, 0.0], [0.0, 1.0]]), reduction="sum"
        )
        logits = torch.full((1, 1, 3), -20.0)
        logits[0, 0, wanted.truth.labels[0]] = 20
        found = query_loss(MaskQueries(logits, masks), [wanted], stride=2)
        p, true = masks.sigmoid().sum(), 1.25
        dice = (2 * (share * 0.25 + 1) + 1) / (p + true + 1)
        assert float(found) == pytest.approx(
            float(5 * entropy / (2 * true + 1) + 5 * (1 - dice)), abs=1e-4
        )
        costs.append(float(entropy))
    assert costs[1] == min(costs)


def vectors(groups: int = 1, seed: int = 0) -> MaskVectors:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).repeat(1, groups, 1)

    found = Found(some(2, Q, C), some(2, Q, 4).sigmoid())
    own = some(2, Q, 7)
    pixels = torch.randn(2, 5, H // 2, W // 2, generator=generator)
    shared = torch.randn(2, 1, H // 2, W // 2, generator=generator)
    return MaskVectors((found,), (own,), (found.boxes,), pixels, shared, None)


TRUTHS = [truth(0, 2), truth(1, 0)]


def test_equal_groups_cost_what_one_does() -> None:
    one = boxed_loss(vectors(), TRUTHS, groups=1, stride=2)
    torch.testing.assert_close(boxed_loss(vectors(3), TRUTHS, groups=3, stride=2), one)


def test_layers_and_proposals_of_boxed_queries_are_summed() -> None:
    one = vectors()
    again = one._replace(found=one.found * 2, vectors=one.vectors * 2, places=one.places * 2)
    alone = boxed_loss(one, TRUTHS, groups=1, stride=2)
    torch.testing.assert_close(boxed_loss(again, TRUTHS, groups=1, stride=2), 2 * alone)
    more = boxed_loss(one._replace(proposals=one.found[0]), TRUTHS, groups=1, stride=2)
    assert (more > alone).all()
    assert (more < 2 * alone).any(), "proposals have no masks"


def test_masks_are_taught_to_the_queries_that_find_the_objects() -> None:
    """The same queries as for boxes and classes; others learn nothing of masks."""
    one = vectors()
    own = one.vectors[0].clone().requires_grad_()
    pixels = one.pixels.clone().requires_grad_()
    losses = boxed_loss(one._replace(vectors=(own,), pixels=pixels), TRUTHS, groups=1, stride=2)
    losses.sum().backward()
    assert own.grad is not None
    assert pixels.grad is not None
    assert int(own.grad[0].any(1).sum()) == 2, "one query an object"
    assert not own.grad[1].any(), "no object, no mask"
    assert pixels.grad[0].any()
    assert not pixels.grad[1].any()


def test_crowds_change_nothing_for_boxed_queries() -> None:
    truths = mask_truths([drawn(crowd=True)] * 2, [], semantic=False, device="cpu")
    one = vectors()
    pixels = one.pixels.clone().requires_grad_()
    boxed_loss(one._replace(pixels=pixels), truths, groups=1, stride=2).sum().backward()
    assert pixels.grad is not None
    assert not pixels.grad[..., 3:].any()
    assert pixels.grad[..., :3].any()


def test_no_objects_in_the_batch() -> None:
    losses = boxed_loss(vectors(), [truth(0, 0)] * 2, groups=1, stride=2)
    assert losses.isfinite().all()
    assert (losses > 0).all(), "false alarms cost"


def test_the_foreground_is_all_segments_together() -> None:
    """Right answers cost nothing, wrong ones do, and what nobody judges changes nothing."""
    one = truth(0, 2)
    cells = F.avg_pool2d(one.masks.any(0)[None, None].float(), 2)
    right = (cells - 0.5) * 60
    cost = foreground_loss(right, [one], stride=2)
    assert float(foreground_loss(-right, [one], stride=2)) > float(cost) + 2
    half = MaskTruth(one.truth, one.masks, one.judged.clone())
    half.judged[:, : W // 2] = False
    other = right.clone()
    other[..., : W // 4] = 9.0
    torch.testing.assert_close(
        foreground_loss(right, [half], stride=2), foreground_loss(other, [half], stride=2)
    )


def test_the_foreground_of_a_cell_is_told_by_what_is_judged_of_it() -> None:
    """Half of the first cells is void, the other half of the segment: certainty costs nothing."""
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :, 1] = True
    judged = torch.ones(4, 4, dtype=torch.bool)
    judged[:, 0] = False
    one = MaskTruth(Truth(torch.tensor([0]), torch.full((1, 4), 0.5)), masks, judged)
    sure = torch.tensor([[[[20.0, -20.0], [20.0, -20.0]]]])
    assert float(foreground_loss(sure, [one], stride=2)) < 1e-3
