"""Found, missed, split and merged, beside panoptic quality's own counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmented import answer, truth, void
from vitrail.masks import encode_each
from vitrail.metrics.mask_truth import truth_of
from vitrail.metrics.panoptic_quality import quality
from vitrail.metrics.segment_pairs import Paired, pair_segments
from vitrail.types import Segmentation, Segments

CLASSES = ("ant", "bee")


def paired(target: Segments, found: Segmentation) -> Paired:
    labels = [CLASSES.index(region.label) for region in found.regions]
    rles = [region.rle for region in found.regions]
    return pair_segments(rles, labels, truth_of(target, background=True), target.size)


@pytest.mark.parametrize(
    ("answers", "verdicts", "wrong"),
    [
        ([], ("missed", "missed"), ()),
        ([("ant", (0, 0, 10, 10))], ("found", "missed"), ()),
        ([("ant", (0, 0, 10, 20))], ("merged", "merged"), (0,)),
        ([("ant", (0, 0, 10, 5)), ("ant", (0, 5, 10, 10))], ("split", "missed"), (0, 1)),
        ([("bee", (0, 0, 10, 10))], ("other", "missed"), (0,)),
        ([("bee", (0, 0, 10, 20))], ("missed", "missed"), (0,)),
        ([("ant", (0, 0, 10, 10)), ("ant", (0, 0, 10, 9))], ("found", "missed"), (1,)),
    ],
    ids=["nothing", "found", "merged", "split", "other class", "both covered", "twice"],
)
def test_what_became_of_two_neighbours(
    answers: list[tuple[str, tuple[int, int, int, int]]],
    verdicts: tuple[str, ...],
    wrong: tuple[int, ...],
) -> None:
    target = truth((0, (0, 0, 10, 10)), (0, (0, 10, 10, 20)))
    result = paired(target, answer(*answers))
    assert result.verdicts == verdicts
    assert result.wrong == wrong


def test_crowds_are_not_missed_and_excuse_answers() -> None:
    target = truth((0, (0, 0, 20, 20), True))
    result = paired(target, answer(("ant", (2, 2, 9, 9)), ("bee", (2, 2, 9, 9))))
    assert result.verdicts == ("crowd",)
    assert result.wrong == (1,)


def test_void_excuses_answers() -> None:
    assert paired(void((0, 0, 20, 20)), answer(("ant", (2, 2, 9, 9)))).wrong == ()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_as_many_are_found_as_panoptic_quality_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, (3, 4)).astype(np.int16).repeat(5, 0).repeat(5, 1)
    labels = tuple(rng.integers(-1, 2, 4).tolist())
    crowds = tuple((rng.random(4) < 0.2).tolist())
    target = truth_of(Segments(torch.from_numpy(ids[None]), labels, crowds), background=True)
    shifted = np.roll(ids, rng.integers(-2, 3, 2), (0, 1))
    rles = list(encode_each(shifted).values())
    ours = rng.integers(0, 2, len(rles)).tolist()
    result = pair_segments(rles, ours, target, ids.shape)
    counts = quality(rles, ours, target, ids.shape, 2).sum(axis=0)
    assert len(result.pairs) == counts[1] == result.verdicts.count("found")
    assert len(result.wrong) == counts[2]
    missed = len(result.verdicts) - result.verdicts.count("crowd") - len(result.pairs)
    assert missed == counts[3]
