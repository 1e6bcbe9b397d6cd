from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_jaccard_index,
)
from torchmetrics.functional.segmentation import dice_score

from class_maps import answer, of_map, one, road, said, truth
from vitrail.metrics.segmentation import SegmentationMetrics, segmentation_metrics
from vitrail.tasks.segment_targets import pixel_truth
from vitrail.types import VOID, Segmentation, Segments

NAMES = ("sky", "sea", "sand")
SIZE = (11, 13)


def semantic(
    answers: Sequence[Segmentation],
    targets: Sequence[Segments],
    names: Sequence[str] = NAMES,
    **more,
) -> SegmentationMetrics:
    options = {"background": True, "intervals": False} | more
    return segmentation_metrics(answers, targets, names, answer="semantic", **options)


def roads(
    answers: Sequence[np.ndarray], targets: Sequence[Segments], **more
) -> SegmentationMetrics:
    return semantic([road(mask) for mask in answers], targets, ("road",), **more)


def drawn(seed: int, lowest: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of truth and answer of four images; the last class may be absent."""
    rng = np.random.default_rng(seed)
    most = int(rng.integers(1, 4))
    true = rng.integers(lowest, most, (4, *SIZE))
    return true, np.where(rng.random(true.shape) < 0.6, true, rng.integers(0, most, true.shape))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_areas_as_by_torchmetrics(seed: int, background: bool) -> None:
    true, guess = drawn(seed, -2 if background else -1)
    if background:
        guess = np.where(guess == -1, -2, guess)  # nobody answers void
    full = np.where(true == -1, 0, guess)
    found = semantic(
        [said(each, NAMES) for each in (full if not background else guess)],
        [of_map(each, background=background) for each in true],
        background=background,
        full=False,
    )
    # For torchmetrics background is class 3, void 9.
    pair = [
        torch.from_numpy(np.where(each == -2, 3, np.where(each == -1, void, each)))
        for each, void in ((guess, 0), (true, 9))
    ]
    kinds = 3 + background
    expected = multiclass_jaccard_index(*pair, num_classes=kinds, ignore_index=9, average="none")
    seen = torch.zeros(10, dtype=torch.bool)
    seen[pair[0][pair[1] != 9]] = True
    seen[pair[1]] = True
    assert found.metrics["miou"] == pytest.approx(float(expected[seen[:kinds]].mean()), abs=1e-6)
    accuracy = multiclass_accuracy(*pair, num_classes=kinds, ignore_index=9, average="micro")
    assert found.metrics["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    for i, row in enumerate(found.per_class):
        assert (row.iou is None) == (not seen[i])
        assert (row.iou or 0) == pytest.approx(float(expected[i]), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_dice_as_by_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, guess = rng.random((2, 4, *SIZE)) < rng.choice([0.02, 0.3])
    found = roads(guess, [one(mask) for mask in true], full=False)
    pair = [torch.from_numpy(each.astype(np.int64)) for each in (guess, true)]
    assert found.metrics["f1"] == pytest.approx(float(binary_f1_score(*pair)), abs=1e-6)
    each = [
        float(
            dice_score(
                p[None], t[None], num_classes=2, include_background=False, input_format="index"
            )
        )
        for p, t in zip(*pair, strict=True)
    ]
    empty = ~(true | guess).any(axis=(1, 2))
    expected = np.where(empty, 1.0, np.nan_to_num(each))
    assert found.metrics["dice"] == pytest.approx(expected.mean(), abs=1e-6)
    assert [row.dice for row in found.images] == pytest.approx(expected.tolist(), abs=1e-6)
    assert [row.wrong for row in found.images] == (true ^ guess).sum(axis=(1, 2)).tolist()


def test_pooled_is_not_the_mean() -> None:
    much, little = np.zeros((2, 10, 10), dtype=bool)
    much[:, :5] = little[0, 0] = True
    wrong = ~much
    found = roads([much, wrong], [one(much), one(little)])
    # 50 right of 50, and 0 or 1 right of 50.
    hits = 50 + int(wrong[0, 0])
    assert found.metrics["f1"] == pytest.approx(2 * hits / (100 + 51))
    assert found.metrics["dice"] == pytest.approx((1 + 2 * (hits - 50) / 51) / 2)
    names = {"f1_tolerance", "f1_tolerance_per_image", "cldice", "cldice_pooled", "betti0_error"}
    assert names <= set(found.metrics)


def test_void_counts_nowhere() -> None:
    rng = np.random.default_rng(1)
    mask, void = rng.random((2, 30, 30)) < 0.3
    void[10:20] = True
    target = one(mask, void)
    first = roads([mask ^ (rng.random(mask.shape) < 0.1)], [target], tolerance=1)
    inside = np.where(void, rng.random(mask.shape) < 0.5, False)
    answers = [np.where(void, inside, mask), np.where(void, ~inside, mask)]
    second, third = (roads([each], [target], tolerance=1) for each in answers)
    assert second.metrics == third.metrics
    assert second.metrics["dice"] == second.metrics["cldice"] == second.metrics["f1_tolerance"] == 1
    assert second.metrics["betti0_error"] == 0
    assert first.metrics["dice"] < 1
    assert second.images[0].pixels == (~void).sum()
    assert np.sum(second.confusion) == (~void).sum()


def test_an_image_of_void_is_no_image() -> None:
    all_ = np.ones(SIZE, dtype=bool)
    half = all_.copy()
    half[:, 6:] = False
    found = roads([half, all_], [one(all_), one(all_, all_)])
    alone = roads([half], [one(all_)])
    assert found.metrics == alone.metrics
    assert found.images[1].dice is None
    nothing = roads([all_], [one(all_, all_)], intervals=True)
    assert set(nothing.metrics.values()) == {0.0}
    assert "f1" not in nothing.intervals, "a draw of nothing measures nothing"


def test_where_segments_overlap_the_first_layer_counts() -> None:
    """As in training, so that what was learned is what is measured."""
    low, high = np.zeros(SIZE, dtype=np.int64), np.zeros(SIZE, dtype=np.int64)
    low[:6], high[4:9] = 1, 2
    target = truth(low, high, labels=(0, 1))
    taught = pixel_truth([target], background=True, device="cpu").classes[0].numpy() - 1
    found = semantic([said(taught, NAMES)], [target])
    assert found.metrics["miou"] == found.metrics["pixel_accuracy"] == 1


def test_draws_without_foreground_do_not_count_as_perfect() -> None:
    none, some, other = (np.zeros(SIZE, dtype=bool) for _ in range(3))
    some[2:4], other[3:5] = True, True
    found = roads([other, *[none] * 7], [one(some), *[one(none)] * 7], intervals=True)
    for name in ("f1", "iou"):
        assert found.intervals[name] == pytest.approx([found.metrics[name]] * 2)
    assert found.intervals["cldice_pooled"][1] < 1


def test_empty_images() -> None:
    none, some = np.zeros(SIZE, dtype=bool), np.eye(*SIZE, dtype=bool)
    found = roads([none, some, none], [one(none), one(none), one(some)])
    assert [row.dice for row in found.images] == [1, 0, 0]
    assert [row.cldice for row in found.images] == [1, 0, 0]
    assert found.metrics["betti0_error"] == pytest.approx(2 / 3)


def test_without_background_what_is_in_no_segment_is_void() -> None:
    ids = np.zeros(SIZE, dtype=np.int64)
    ids[:4] = 1
    target = truth(ids, labels=(0,))
    found = semantic([said(np.zeros(SIZE, dtype=int), NAMES)], [target], background=False)
    assert found.metrics["miou"] == found.metrics["dice"] == 1
    half = np.full(SIZE, -2)
    half[:2] = 0
    found = semantic([said(half, NAMES)], [target], background=False)
    assert found.metrics["miou"] == found.metrics["pixel_accuracy"] == 0.5
    assert found.confusion[0] == (2 * SIZE[1], 0, 0, 2 * SIZE[1]), "no answer is a wrong answer"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_repetition_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks, guesses = rng.random((2, 3, 12, 12)) < 0.4
    targets = [one(mask) for mask in masks]
    found = roads(guesses, targets)
    turned = roads(guesses[::-1], targets[::-1])
    twice = roads([*guesses, *guesses], [*targets, *targets])
    mirrored = roads(guesses[:, ::-1], [one(mask[::-1]) for mask in masks])
    assert turned.metrics == pytest.approx(found.metrics)
    assert twice.metrics == pytest.approx(found.metrics)
    for name in ("miou", "dice", "f1", "f1_tolerance", "betti0_error"):
        assert mirrored.metrics[name] == pytest.approx(found.metrics[name])


def test_a_second_human_on_vessels(shared_data: Path) -> None:
    """The figures that are known of the second annotator of CHASE DB1."""
    files = sorted((shared_data / "chase_db1").glob("*_1stHO.png"))[-8:]
    masks = [vessels(file) for file in files]
    second = [vessels(file.with_name(file.name.replace("1st", "2nd"))) for file in files]
    found = roads(second, [one(mask) for mask in masks])
    assert found.metrics["dice"] == pytest.approx(0.798, abs=5e-4)
    assert found.metrics["cldice"] == pytest.approx(0.849, abs=5e-4)


def vessels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L")) > 127


class Lazy(Sequence):
    """Targets that are made when asked for, and count how often."""

    def __init__(self, masks: np.ndarray) -> None:
        self.masks, self.asked = masks, [0] * len(masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Segments:
        mask = self.masks[index]
        self.asked[index] += 1
        return one(mask)


@pytest.mark.parametrize("kind", ["semantic", "instance", "panoptic"])
def test_targets_are_read_once(kind: str) -> None:
    masks = np.random.default_rng(0).random((3, *SIZE)) < 0.5
    lazy = Lazy(masks)
    found = segmentation_metrics(
        [road(mask) for mask in masks], lazy, ("road",), answer=kind, background=True
    )
    assert lazy.asked == [1, 1, 1]
    assert found.metrics["dice"] == 1


def test_panoptic_answers_are_measured_as_classes_and_segments() -> None:
    ids = np.zeros(SIZE, dtype=np.int64)
    ids[:, :4], ids[:, 4:8], ids[:, 8:] = 1, 2, 3
    target = truth(ids, labels=(0, 0, 1))
    regions = [("sky", 0.9, ids < 3), ("sea", 0.8, ids == 3)]
    found = segmentation_metrics(
        [answer(regions, SIZE)],
        [target],
        NAMES,
        answer="panoptic",
        background=False,
        things=(True, False, False),
    )
    assert found.metrics["miou"] == found.metrics["pixel_accuracy"] == 1
    # Two objects told as one: its IoU with either is a half, which is not above it.
    assert found.metrics["pq_th"] == 0
    assert found.metrics["pq_st"] == 1
    assert found.metrics["pq"] == 0.5
    assert [row.objects for row in found.per_class] == [2, 1, 0]
    assert found.images[0].pq == pytest.approx(1 / (1 + 3 / 2))


def test_intervals_and_curve() -> None:
    rng = np.random.default_rng(0)
    masks, targets, answers = rng.random((8, *SIZE)) < 0.4, [], []
    for mask in masks:
        p = np.clip(rng.normal(0.4 + 0.2 * mask, 0.2), 0, 1)
        packed = zlib.compress((p * 255).round().astype(np.uint8).tobytes())
        answers.append(Segmentation(SIZE, road(p > 0.5).regions, packed))
        targets.append(one(mask))
    found = semantic(answers, targets, ("road",), intervals=True)
    assert set(found.intervals) == set(found.metrics)
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high
    assert found.curve is not None
    assert found.curve.best is not None
    assert found.threshold == found.curve.best.threshold
    assert found.curve.best.f1 > found.metrics["f1"]
    quick = semantic(answers, targets, ("road",), full=False)
    assert quick.metrics == {name: found.metrics[name] for name in quick.metrics}
    assert quick.threshold == found.threshold
    assert not quick.intervals
    assert semantic([road(masks[0]), *answers[1:]], targets, ("road",)).curve is None


def test_sizes_must_agree() -> None:
    mask = np.ones((3, 4), dtype=bool)
    with pytest.raises(AssertionError, match=r"\(3, 4\) pixels, the truth about \(4, 3\)"):
        roads([mask], [one(mask.T)])


def test_void_of_a_class_map_keeps_its_neighbours() -> None:
    classes = np.array([[0, 0, -1, 1], [-2, -2, -1, 1]])
    target = of_map(classes, background=True)
    assert VOID in target.labels
    found = semantic([said(np.array([[0, 0, 0, 0], [-2, -2, 2, 1]]), NAMES)], [target])
    assert found.confusion == ((2, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 2))
    assert found.metrics["miou"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.metrics["f1"] == pytest.approx(2 * 3 / (4 + 4))
