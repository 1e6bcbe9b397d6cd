"""One query for each object, at the least cost in all."""

from __future__ import annotations

import itertools

import pytest
import torch

from vitrail.tasks.matching import Truth, match
from vitrail.types import Found


def truth(*boxes: tuple[float, float, float, float], labels: tuple[int, ...]) -> Truth:
    return Truth(torch.tensor(labels, dtype=torch.long), torch.tensor(boxes).reshape(-1, 4))


def found(boxes: list[list[list[float]]], logits: torch.Tensor) -> Found:
    return Found(logits, torch.tensor(boxes))


A, B, C = [0.2, 0.2, 0.1, 0.1], [0.8, 0.2, 0.1, 0.1], [0.5, 0.7, 0.2, 0.2]


def test_each_object_gets_the_query_that_lies_on_it() -> None:
    answers = found([[C, A, B]], torch.zeros(1, 3, 2))
    pairs = match(answers, [truth((*A,), (*B,), labels=(0, 1))], groups=1, softmax=False)
    by_query = dict(zip(pairs.queries.tolist(), pairs.labels.tolist(), strict=True))
    assert by_query == {1: 0, 2: 1}
    assert pairs.images.tolist() == [0, 0]


def test_of_two_queries_on_one_object_the_surer_answers() -> None:
    logits = torch.tensor([[[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0]]])
    pairs = match(found([[A, A, B]], logits), [truth((*A,), labels=(0,))], groups=1, softmax=False)
    assert pairs.queries.tolist() == [1]


@pytest.mark.parametrize("softmax", [False, True])
def test_the_assignment_is_the_best_of_all(softmax: bool) -> None:
    """Against all permutations, by the same costs."""
    from vitrail.tasks.matching import _costs  # pyright: ignore[reportPrivateUsage]

    generator = torch.Generator().manual_seed(0)
    answers = Found(
        torch.randn(1, 5, 4, generator=generator), torch.rand(1, 5, 4, generator=generator)
    )
    objects = Truth(torch.tensor([0, 2, 1]), torch.rand(3, 4, generator=generator))
    costs = _costs(answers, [objects], softmax=softmax)[0]
    best = min(
        sum(float(costs[q, t]) for t, q in enumerate(chosen))
        for chosen in itertools.permutations(range(5), 3)
    )
    pairs = match(answers, [objects], groups=1, softmax=softmax)
    places = [
        next(t for t in range(3) if torch.equal(objects.boxes[t], box)) for box in pairs.boxes
    ]
    total = sum(float(costs[q, t]) for q, t in zip(pairs.queries.tolist(), places, strict=True))
    assert total == pytest.approx(best, abs=1e-5)


def test_every_group_finds_every_object() -> None:
    answers = found([[A, B, C, C, B, A]], torch.zeros(1, 6, 2))
    pairs = match(answers, [truth((*A,), labels=(1,))], groups=2, softmax=False)
    assert sorted(pairs.queries.tolist()) == [0, 5]


def test_images_without_objects_and_more_objects_than_queries() -> None:
    answers = found([[A], [A]], torch.zeros(2, 1, 2))
    many = truth((*A,), (*B,), (*C,), labels=(0, 0, 1))
    pairs = match(answers, [truth(labels=()), many], groups=1, softmax=False)
    assert pairs.images.tolist() == [1]
    none = match(answers, [truth(labels=()), truth(labels=())], groups=1, softmax=False)
    assert none.boxes.shape == (0, 4)


def test_numbers_that_are_none_do_not_stop_it() -> None:
    boxes = torch.tensor([[A, [float("nan")] * 4]])
    pairs = match(
        Found(torch.zeros(1, 2, 2), boxes), [truth((*A,), labels=(0,))], groups=1, softmax=False
    )
    assert pairs.queries.tolist() == [0]
