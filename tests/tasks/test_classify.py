from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from vitrail.tasks import build_task
from vitrail.tasks.classify import Classify, ClassifyConfig
from vitrail.types import Features


def task(**changes: object) -> Classify:
    built = build_task(
        ClassifyConfig(**({"classes": ("ant", "bee", "cat")} | changes)),
        pooled_width=4,
        channels=(4,),
        strides=(4,),
        distilled=False,
    )
    assert isinstance(built, Classify)
    return built


LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 2.5]])


def test_forward_is_a_linear_map_of_the_pooled_vector() -> None:
    part = task()
    pooled = torch.randn(2, 4)
    features = Features((torch.zeros(2, 4, 1, 1),), torch.zeros(2, 1, 4), pooled)
    torch.testing.assert_close(part(features), pooled @ part.head.weight.T + part.head.bias)
    assert not part.head.bias.any()


def test_a_representation_layer_stands_before_the_head() -> None:
    part = task(hidden=5)
    assert part.pre_logits is not None
    pooled = torch.randn(2, 4)
    features = Features((torch.zeros(2, 4, 1, 1),), torch.zeros(2, 1, 4), pooled)
    hidden = torch.tanh(pooled @ part.pre_logits.weight.T + part.pre_logits.bias)
    torch.testing.assert_close(part.represent(features), hidden)
    torch.testing.assert_close(part(features), hidden @ part.head.weight.T + part.head.bias)


def test_targets_become_rows() -> None:
    expected = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert torch.equal(task().encode([1, (0, 2), ()]), expected)
    with pytest.raises(AssertionError, match="needs a label"):
        task().encode([None])


def test_loss_is_cross_entropy_a_sample() -> None:
    part = task()
    rows = part.encode([0, 2])
    expected = F.cross_entropy(LOGITS, torch.tensor([0, 2]), reduction="none")
    torch.testing.assert_close(part.loss(LOGITS, rows), expected)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_loss_is_linear_in_the_target(share: float) -> None:
    """Mixed targets cost the mix of the costs, as mixup and smoothing assume."""
    part = task()
    a, b = part.encode([0, 0]), part.encode([2, 1])
    mixed = part.loss(LOGITS, share * a + (1 - share) * b)
    expected = share * part.loss(LOGITS, a) + (1 - share) * part.loss(LOGITS, b)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)


def test_multi_label_loss_is_binary_cross_entropy() -> None:
    part = task(multilabel=True)
    rows = part.encode([(0,), (1, 2)])
    p = LOGITS.sigmoid()
    expected = -(rows * p.log() + (1 - rows) * (1 - p).log()).mean(dim=1)
    torch.testing.assert_close(part.loss(LOGITS, rows), expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_loss_stays_finite_for_extreme_logits(multilabel: bool) -> None:
    part = task(multilabel=multilabel)
    extreme = torch.tensor([[1e4, -1e4, 0.0]])
    assert bool(part.loss(extreme, torch.tensor([[0.0, 1.0, 0.0]])).isfinite().all())


def test_postprocess_gives_label_and_scores_by_name() -> None:
    first, second = task().postprocess(LOGITS)
    probabilities = LOGITS.softmax(dim=1)
    assert (first.label, second.label) == ("ant", "bee")
    assert first.score == probabilities[0, 0].item() == first.scores["ant"]
    assert list(second.scores) == ["ant", "bee", "cat"]
    assert sum(second.scores.values()) == pytest.approx(1, abs=1e-6)


def test_temperature_divides_the_logits() -> None:
    (cool, _), (plain, _) = task(temperature=2.0).postprocess(LOGITS), task().postprocess(LOGITS)
    torch.testing.assert_close(
        torch.tensor(list(cool.scores.values())), (LOGITS[0] / 2).softmax(dim=0)
    )
    assert cool.label == plain.label
    assert cool.score < plain.score


def test_multi_label_joins_what_is_over_the_threshold() -> None:
    first, second = task(multilabel=True, threshold=0.7).postprocess(LOGITS)
    assert first.label == "ant;bee"
    assert second.label == "bee;cat"
    assert second.score == LOGITS[1, 1].sigmoid().item()
    (none,) = task(multilabel=True).postprocess(torch.full((1, 3), -1.0))
    assert none.label == ""
    assert none.score == pytest.approx(0.2689, abs=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    (row,) = task().postprocess(LOGITS[:1].bfloat16())
    assert sum(row.scores.values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ()}, "at least 1"),
        ({"classes": ("Ant", "Bee", "Ant")}, "class names must differ; twice: Ant"),
        ({"temperature": 0}, "greater than 0"),
        ({"threshold": 1}, "less than 1"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task(**wrong)
