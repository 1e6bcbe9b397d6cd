from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.detection import panoptic_quality as reference

from class_maps import truth
from vitrail.masks import encode_each
from vitrail.metrics.mask_truth import truth_of
from vitrail.metrics.panoptic_quality import panoptic_quality, quality
from vitrail.types import VOID

SIZE = (14, 17)


def blocks(rng: np.random.Generator, count: int) -> np.ndarray:
    """A map of `count` segments numbered from 1, drawn as bands with ragged edges."""
    ramp = np.add.outer(np.zeros(SIZE[0]), np.linspace(0, count, SIZE[1], endpoint=False))
    ramp = np.clip(ramp + rng.normal(0, 0.15, SIZE), 0, count - 1e-6)
    return ramp.astype(np.int64) + 1


def disturbed(rng: np.random.Generator, ids: np.ndarray, count: int) -> np.ndarray:
    swap = rng.random(SIZE) < rng.choice([0.05, 0.3])
    return np.where(swap, rng.integers(1, count + 1, SIZE), ids)


def parts(ids: np.ndarray, labels: np.ndarray) -> tuple[list[bytes], list[int]]:
    each = encode_each(ids)
    return list(each.values()), [int(labels[k - 1]) for k in each]


def brute(ids, labels, target, theirs, crowds, classes) -> np.ndarray:
    """`panopticapi`'s loop, pixel by pixel; id 0 is void on both sides."""
    result = np.zeros((classes, 4))
    matched, hit = set(), set()
    void = target == 0
    for i in np.unique(ids[ids > 0]):
        for k in np.unique(target[target > 0]):
            if crowds[k - 1] or labels[i - 1] != theirs[k - 1]:
                continue
            both = ((ids == i) & (target == k)).sum()
            union = (ids == i).sum() + (target == k).sum() - both - ((ids == i) & void).sum()
            if both / union > 0.5:
                result[labels[i - 1], 0] += both / union
                result[labels[i - 1], 1] += 1
                matched.add(i)
                hit.add(k)
    for k in set(np.unique(target[target > 0])) - hit:
        if not crowds[k - 1]:
            result[theirs[k - 1], 3] += 1
    for i in set(np.unique(ids[ids > 0])) - matched:
        same = [k for k, crowd in enumerate(crowds) if crowd and theirs[k] == labels[i - 1]]
        excused = void | np.isin(target, [k + 1 for k in same])
        if ((ids == i) & excused).sum() / (ids == i).sum() <= 0.5:
            result[labels[i - 1], 2] += 1
    return result


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_as_torchmetrics_where_the_answer_covers_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(2, 7)), 3
    target = blocks(rng, count)
    ids = disturbed(rng, target, count)
    labels = rng.integers(0, classes, count)
    theirs = np.where(rng.random(count) < 0.8, labels, rng.integers(0, classes, count))
    theirs[0] = VOID if rng.random() < 0.5 else theirs[0]
    known = truth_of(truth(target, labels=theirs.tolist()), background=False)
    found = panoptic_quality(quality(*parts(ids, labels), known, SIZE, classes))
    pairs = [
        torch.from_numpy(np.stack([names[numbers - 1], numbers], axis=-1))[None]
        for names, numbers in ((labels, ids), (np.where(theirs == VOID, 9, theirs), target))
    ]
    expected = reference(
        *pairs,
        things=set(range(classes)),
        stuffs=set(),
        return_sq_and_rq=True,
        return_per_class=True,
    )
    assert np.nan_to_num(found) == pytest.approx(expected.reshape(classes, 3).numpy(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_as_panopticapi_with_holes_and_crowds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(2, 7)), 2
    target = blocks(rng, count)
    ids = disturbed(rng, target, count) * (rng.random(SIZE) < 0.9)
    target = target * (rng.random(SIZE) < 0.8) * (target != rng.integers(0, count))
    labels, theirs = rng.integers(0, classes, (2, count))
    crowds = (rng.random(count) < 0.3).tolist()
    known = truth_of(truth(target, labels=theirs.tolist(), crowds=crowds), background=False)
    found = quality(*parts(ids, labels), known, SIZE, classes)
    assert found == pytest.approx(brute(ids, labels, target, theirs, crowds, classes), abs=1e-6)


def test_objects_that_overlap_find_one_each() -> None:
    mask = np.zeros(SIZE, dtype=np.int64)
    mask[2:8, 2:8] = 1
    smaller = mask.copy()
    smaller[2] = 0
    known = truth_of(truth(mask, labels=(0,)), background=True)
    rles = [encode_each(smaller)[1], encode_each(mask)[1]]
    assert quality(rles, [0, 0], known, SIZE, 1).tolist() == [[1, 1, 1, 0]]


def test_classes_that_nobody_saw_do_not_count() -> None:
    counts = np.array([[0.8, 1, 0, 2], [0, 0, 0, 0], [0, 0, 3, 0]])
    values = panoptic_quality(counts)
    assert values[0].tolist() == pytest.approx([0.4, 0.8, 0.5])
    assert np.isnan(values[1]).all()
    assert values[2].tolist() == [0, 0, 0]
    assert np.isnan(panoptic_quality(counts, np.array([False, True, True]))[0]).all()
