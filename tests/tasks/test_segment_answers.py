"""Regions that people are told of."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.masks import area, decode
from vitrail.tasks.segment_answers import (
    Queries,
    instance_answer,
    panoptic_answer,
    pixel_answer,
    semantic_answer,
)
from vitrail.types import Region, Segmentation

CLASSES = ("ant", "bee")
SURE = 20.0


def drawn(found: Segmentation, region: Region) -> list[str]:
    return ["".join(".#"[int(p)] for p in row) for row in decode(region.rle, found.size)]


def queries(masks: list[list[str]], scores: list[list[float]]) -> Queries:
    """Masks that are drawn; `#` is sure, `.` surely not, a digit is a probability in tenths."""
    table = {"#": SURE, ".": -SURE}
    values = [
        [
            [table[m] if m in table else float(torch.tensor(int(m) / 10).logit()) for m in row]
            for row in mask
        ]
        for mask in masks
    ]
    logits = torch.tensor(values)
    size = (logits.shape[1], logits.shape[2])
    return Queries(torch.tensor(scores), logits, 1, size, size)


def test_every_pixel_is_of_the_most_probable_class() -> None:
    p = torch.tensor([[[0.5, 0.2, 0.2]], [[0.3, 0.6, 0.1]], [[0.2, 0.2, 0.7]]])
    found = pixel_answer(p, CLASSES, background=True, threshold=None)
    assert [(r.label, drawn(found, r)) for r in found.regions] == [
        ("ant", [".#."]),
        ("bee", ["..#"]),
    ]
    assert [r.score for r in found.regions] == pytest.approx([0.6, 0.7])
    assert found.confidence is None
    none = pixel_answer(p, (*CLASSES, "cat"), background=False, threshold=None)
    assert [r.label for r in none.regions] == ["ant", "bee", "cat"]


def test_a_class_without_pixels_has_no_region() -> None:
    p = torch.tensor([[[0.9, 0.9]], [[0.1, 0.1]]])
    assert pixel_answer(p, ("ant",), background=True, threshold=0.5).regions == ()


@settings(max_examples=40, deadline=None)
@given(threshold=st.floats(0.02, 0.98), seed=st.integers(0, 2**31))
def test_one_class_is_where_its_probability_reaches_the_threshold(
    threshold: float, seed: int
) -> None:
    foreground = torch.rand(7, 9, generator=torch.Generator().manual_seed(seed))
    p = torch.stack([1 - foreground, foreground])
    found = pixel_answer(p, ("road",), background=True, threshold=threshold)
    mask = (
        decode(found.regions[0].rle, found.size) if found.regions else np.zeros((7, 9), dtype=bool)
    )
    assert np.array_equal(mask, (foreground >= threshold).numpy())
    assert found.confidence is not None
    levels = np.frombuffer(zlib.decompress(found.confidence), dtype=np.uint8).reshape(7, 9)
    assert np.abs(levels / 255 - foreground.numpy()).max() <= 0.5 / 255 + 1e-6
    # A pixel of the region is nowhere less sure than one beside it.
    if mask.any() and not mask.all():
        assert levels[mask].min() >= levels[~mask].max()
        assert found.regions[0].score == pytest.approx(float(foreground[mask].mean()), abs=1e-5)


def test_queries_vote_for_classes() -> None:
    found = semantic_answer(
        queries([["##..", "##.."], [".##.", ".##."]], [[0.9, 0.0], [0.1, 0.8]]),
        CLASSES,
        background=True,
        threshold=None,
    )
    assert [(r.label, drawn(found, r)[0]) for r in found.regions] == [
        ("ant", "##.."),
        ("bee", "..#."),
    ]


def test_many_votes_win_over_some() -> None:
    """Two surely vote for the first class, three for the second; a score stays a probability."""
    sure = [[0.9, 0.0]] * 2 + [[0.0, 0.9]] * 3
    for background in (True, False):
        found = semantic_answer(
            queries([["##"]] * 5, sure), CLASSES, background=background, threshold=None
        )
        assert [(r.label, r.score) for r in found.regions] == [("bee", 1.0)]


def test_votes_for_one_class_have_a_threshold_too() -> None:
    seen = queries([["#5."], ["#.."]], [[0.6], [0.7]])
    for threshold, expected in ((0.5, "#.."), (0.25, "##.")):
        found = semantic_answer(seen, ("ant",), background=True, threshold=threshold)
        assert drawn(found, found.regions[0]) == [expected]
        assert found.confidence is not None
        levels = np.frombuffer(zlib.decompress(found.confidence), dtype=np.uint8)
        assert levels.tolist() == [255, round(0.3 * 255), 0]


def test_objects_may_overlap_and_the_surest_come_first() -> None:
    seen = queries([["##.."], [".##."], ["...#"]], [[0.4, 0.1], [0.0, 0.9], [0.0, 0.05]])
    found = instance_answer(seen, CLASSES, most=3, min_area=0)
    assert [(r.label, r.query, drawn(found, r)[0]) for r in found.regions] == [
        ("bee", 1, ".##."),
        ("ant", 0, "##.."),
        ("bee", 0, "##.."),
    ]
    assert [r.score for r in found.regions] == pytest.approx([0.9, 0.4, 0.1])
    assert len(instance_answer(seen, CLASSES, most=1, min_area=0).regions) == 1
    assert len(instance_answer(seen, CLASSES, most=99, min_area=0).regions) == 6


def test_an_object_is_as_sure_as_its_class_and_its_pixels() -> None:
    found = instance_answer(queries([["#6."]], [[0.5, 0.0]]), CLASSES, most=1, min_area=0)
    assert found.regions[0].score == pytest.approx(0.5 * (1 + 0.6) / 2, abs=1e-5)


@pytest.mark.parametrize(("least", "areas"), [(0, [2, 1]), (1, [2, 1]), (2, [2]), (3, [])])
def test_specks_are_left_away(least: int, areas: list[int]) -> None:
    """An object has `min_area` pixels at least, and one in any case."""
    seen = queries([["##.."], ["..#."], ["...."]], [[0.9, 0.0], [0.8, 0.0], [0.7, 0.0]])
    found = instance_answer(seen, CLASSES, most=3, min_area=least)
    assert [area(r.rle, found.size) for r in found.regions] == areas
    both = panoptic_answer(seen, CLASSES, (True, True), threshold=0.5, min_area=least)
    assert [area(r.rle, both.size) for r in both.regions] == areas


def test_a_pixel_belongs_to_one_region_at_most() -> None:
    """The surer query takes what both want; of the other nine tenths are left, which is enough."""
    first, second = "#" * 3 + "." * 17, ".." + "#" * 10 + "." * 8
    seen = queries([[first], [second]], [[0.9, 0.0], [0.0, 0.8]])
    found = panoptic_answer(seen, CLASSES, (True, True), threshold=0.5, min_area=0)
    assert [(r.label, r.score, r.query) for r in found.regions] == [
        ("ant", pytest.approx(0.9), 0),
        ("bee", pytest.approx(0.8), 1),
    ]
    assert drawn(found, found.regions[1]) == ["..." + "#" * 9 + "." * 8]


def test_what_is_mostly_taken_is_no_segment() -> None:
    seen = queries([["###."], [".###"]], [[0.9, 0.0], [0.0, 0.8]])
    found = panoptic_answer(seen, CLASSES, (True, True), threshold=0.5, min_area=0)
    assert [r.label for r in found.regions] == ["ant"]


def test_stuff_of_one_class_is_one_region_and_objects_are_apart() -> None:
    seen = queries(
        [["#....."], ["..#..."], ["...#.."], [".....#"]],
        [[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.0, 0.6]],
    )
    found = panoptic_answer(seen, CLASSES, (False, True), threshold=0.5, min_area=0)
    assert [(r.label, r.query, drawn(found, r)[0]) for r in found.regions] == [
        ("ant", None, "#.#..."),
        ("bee", 2, "...#.."),
        ("bee", 3, ".....#"),
    ]
    assert found.regions[0].score == pytest.approx(0.9)


def test_queries_below_the_threshold_take_nothing() -> None:
    seen = queries([["##"], ["##"]], [[0.49, 0.0], [0.0, 0.3]])
    assert panoptic_answer(seen, CLASSES, (True, True), threshold=0.5, min_area=0).regions == ()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), threshold=st.floats(0.05, 0.9), stuff=st.booleans())
def test_panoptic_regions_never_overlap(seed: int, threshold: float, stuff: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = 3 * torch.randn(20, 3, 4, generator=generator)
    scores = torch.rand(20, 2, generator=generator)
    found = panoptic_answer(
        Queries(scores, masks, 4, (17, 13), (12, 15)),
        CLASSES,
        (not stuff, True),
        threshold=threshold,
        min_area=0,
    )
    taken = sum((decode(r.rle, found.size).astype(int) for r in found.regions), start=0)
    assert np.max(taken, initial=0) <= 1
    assert all(threshold <= r.score <= 1 for r in found.regions)
    assert not stuff or sum(r.label == "ant" for r in found.regions) <= 1


@pytest.mark.parametrize("kind", ["semantic", "instance", "panoptic"])
def test_more_queries_than_are_placed_at_once(kind: str) -> None:
    """Each keeps its own mask."""
    count = 40
    masks = torch.full((count, 1, count), -SURE)
    masks[torch.arange(count), 0, torch.arange(count)] = SURE
    scores = torch.zeros(count, 2)
    scores[:, 0] = torch.linspace(0.6, 0.9, count)
    seen = Queries(scores, masks, 1, (1, count), (1, count))
    if kind == "semantic":
        found = semantic_answer(seen, CLASSES, background=True, threshold=None)
        assert area(found.regions[0].rle, found.size) == count
        return
    found = (
        instance_answer(seen, CLASSES, most=count, min_area=0)
        if kind == "instance"
        else panoptic_answer(seen, CLASSES, (True, True), threshold=0.5, min_area=0)
    )
    assert [r.query for r in found.regions] == list(range(count))[::-1]
    for region in found.regions:
        assert region.query is not None
        assert decode(region.rle, found.size)[0].nonzero()[0].tolist() == [region.query]
