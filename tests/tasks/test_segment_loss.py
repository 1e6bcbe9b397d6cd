"""What classes of pixels cost, beside figures computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitrail.tasks.segment_loss import (
    IGNORED,
    PixelLossConfig,
    PixelTruth,
    boundary_f1,
    cldice,
    pixel_loss,
)

PLAIN = PixelLossConfig(dice=0)
ALL = PixelLossConfig(classes="focal", dice=0.5, cldice=0.7, boundary=0.3)


def scores_and_truth(
    seed: int = 0, outputs: int = 3, size: tuple[int, int] = (9, 11)
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, outputs, *size, generator=generator)
    return scores, torch.randint(0, outputs, (2, *size), generator=generator)


def cost(
    scores: torch.Tensor,
    classes: torch.Tensor,
    config: PixelLossConfig = PLAIN,
    *,
    background: bool = True,
    **options: Any,
) -> torch.Tensor:
    return pixel_loss(scores, PixelTruth(classes), config, background=background, **options)


def test_cross_entropy_is_a_mean_over_the_judged_pixels_of_each_image() -> None:
    scores, classes = scores_and_truth()
    classes[0, :4] = IGNORED
    each = F.cross_entropy(scores, classes, ignore_index=IGNORED, reduction="none")
    expected = torch.stack([each[0, 4:].mean(), each[1].mean()])
    torch.testing.assert_close(cost(scores, classes), expected)


def test_what_is_not_finite_stays_in_its_image() -> None:
    """So that a loss that is not finite names the file that caused it."""
    scores, classes = scores_and_truth()
    spoiled = scores.clone()
    spoiled[0, 0, 0, 0] = torch.nan
    found = cost(spoiled, classes, ALL)
    assert found[0].isnan()
    alone = torch.where(torch.tensor([[True], [False]])[..., None], IGNORED, classes)
    torch.testing.assert_close(found[1], cost(scores, alone, ALL)[1])


def test_focal_loss_is_that_of_the_paper() -> None:
    """Value and slope; two outputs, of which one is 0, are a sigmoid."""
    logits = torch.randn(2, 1, 5, 6, requires_grad=True)
    truth = torch.randint(0, 2, (2, 5, 6))
    scores = torch.cat([torch.zeros_like(logits), logits], dim=1)
    found = cost(scores, truth, PixelLossConfig(classes="focal", dice=0))
    p = logits[:, 0].sigmoid()
    right = torch.where(truth == 1, p, 1 - p)
    expected = (-((1 - right) ** 2) * right.log()).flatten(1).mean(1)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*slopes)


def test_dice_by_hand() -> None:
    """Over the batch: 4 of 6 taken pixels are right, of 5 true ones."""
    truth = torch.zeros(2, 3, 4, dtype=torch.long)
    taken = torch.zeros(2, 3, 4, dtype=torch.long)
    truth[0, 0] = 1
    taken[0, 0, :3] = 1
    taken[0, 1, :2] = 1
    truth[1, 2, 3] = taken[1, 2, 3] = 1
    scores = 80.0 * F.one_hot(taken, 2).movedim(3, 1).float()
    only = PixelLossConfig(dice=1.0)
    dice = (2 * 4 + 1) / (6 + 5 + 1)
    torch.testing.assert_close(
        cost(scores, truth, only) - cost(scores, truth), torch.full((2,), 1 - dice)
    )


def test_dice_is_the_mean_over_the_classes_that_are_there() -> None:
    """Without a background every output is a class; class 2 is nowhere and does not count."""
    truth = torch.tensor([[[0, 0, 1, 1]]])
    scores = 80.0 * F.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 3).movedim(3, 1).float()
    extra = cost(scores, truth, PixelLossConfig(), background=False) - cost(
        scores, truth, background=False
    )
    dices = [(2 * 1 + 1) / (1 + 2 + 1), (2 * 2 + 1) / (3 + 2 + 1)]
    assert float(extra) == pytest.approx(1 - sum(dices) / 2, abs=1e-6)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("config", [PLAIN, PixelLossConfig(), ALL], ids=["plain", "dice", "all"])
def test_what_is_not_judged_changes_nothing(config: PixelLossConfig, background: bool) -> None:
    scores, classes = scores_and_truth()
    void = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(3)) < 0.4
    classes[void] = IGNORED
    other = scores + 5 * torch.randn_like(scores) * void[:, None]
    other.requires_grad_()
    found = cost(other, classes, config, background=background)
    torch.testing.assert_close(
        found.detach(), cost(scores, classes, config, background=background), rtol=0, atol=0
    )
    found.sum().backward()
    assert other.grad is not None
    assert not other.grad[void[:, None].expand_as(other)].any()
    assert other.grad[~void[:, None].expand_as(other)].any()


@pytest.mark.parametrize("config", [PLAIN, PixelLossConfig(), ALL], ids=["plain", "dice", "all"])
def test_an_image_that_nobody_judges_costs_what_the_others_do(config: PixelLossConfig) -> None:
    scores, classes = scores_and_truth()
    classes[0] = IGNORED
    alone = cost(scores[1:], classes[1:], config)
    both = cost(scores.requires_grad_(), classes, config)
    torch.testing.assert_close(both[1:], alone)
    both.sum().backward()
    assert scores.grad is not None
    assert not scores.grad[0].any()
    nothing = cost(scores.detach(), torch.full_like(classes, IGNORED), config)
    assert nothing.tolist() == [0.0, 0.0]


def test_weights_of_classes() -> None:
    """They weigh pixels; that of another class changes nothing."""
    scores, classes = scores_and_truth()
    each = F.cross_entropy(scores, classes, reduction="none")
    weights = torch.tensor([0.5, 2.0, 1.0])
    expected = (each * weights[classes]).flatten(1).mean(1)
    torch.testing.assert_close(cost(scores, classes, weights=weights), expected)
    only = torch.zeros_like(classes)
    first = cost(scores, only, weights=torch.tensor([1.0, 9.0, 9.0]))
    torch.testing.assert_close(first, cost(scores, only))


def shapes() -> torch.Tensor:
    mask = torch.zeros(1, 1, 20, 30)
    mask[..., 3:6, 2:28] = 1
    mask[..., :, 20:22] = 1
    return mask


@pytest.mark.parametrize("measure", [cldice, boundary_f1])
def test_equal_shapes_have_one_and_others_less(measure: Any) -> None:
    mask = shapes()
    assert float(measure(mask, mask)) == pytest.approx(1, abs=1e-6)
    assert float(measure(mask, torch.zeros_like(mask))) == 1, "nothing to be found"
    assert float(measure(torch.zeros_like(mask), mask)) < 0.1
    assert float(measure(mask.roll(7, 2), mask)) < 0.8, "the horizontal bar elsewhere"


def test_cldice_minds_a_gap_more_than_the_width() -> None:
    mask = shapes()
    thin = torch.zeros_like(mask)
    thin[..., 4, 2:28] = 1
    thin[..., :, 20:22] = 1
    broken = mask.clone()
    broken[..., 8:18, 20:22] = 0
    assert broken.sum() > thin.sum()
    assert float(cldice(thin, mask)) > 0.95 > float(cldice(broken, mask))


def test_borders_may_be_off_by_two_pixels() -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 1
    near, far = mask.roll(2, 3), mask.roll(3, 3)
    assert float(boundary_f1(near, mask)) == pytest.approx(1, abs=1e-6)
    assert float(boundary_f1(far, mask)) < 0.8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), background=st.booleans())
def test_every_term_falls_when_followed(seed: int, background: bool) -> None:
    """A step against the slope makes each loss less; none is negative."""
    scores, classes = scores_and_truth(seed)
    for config in (PLAIN, PixelLossConfig(), ALL):
        own = scores.clone().requires_grad_()
        before = cost(own, classes, config, background=background)
        assert (before >= 0).all()
        (slope,) = torch.autograd.grad(before.mean(), own)
        after = cost(scores - slope / slope.norm() * 1e-2, classes, config, background=background)
        assert float(after.mean()) < float(before.mean().detach())
