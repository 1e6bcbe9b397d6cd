from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vitrail.metrics.classification import ClassificationMetrics, classification_metrics


def drawn(
    count: int, classes: int, seed: int = 0, skill: float = 1.5
) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(0, 1, (count, classes)) + skill * np.eye(classes)[labels]
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True), labels.tolist()


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 999))
def test_single_label_metrics_are_those_of_scikit_learn(
    count: int, classes: int, seed: int
) -> None:
    scores, labels = drawn(count, classes, seed)
    result = classification_metrics(scores, labels, names(classes))
    predicted = scores.argmax(axis=1)
    seen = sorted({*labels, *predicted.tolist()})
    recalls = sk.recall_score(labels, predicted, labels=sorted(set(labels)), average=None)
    m = result.metrics
    assert m["top1"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert m["balanced_accuracy"] == pytest.approx(recalls.mean())
    f1 = sk.f1_score(labels, predicted, labels=seen, average="macro", zero_division=0)
    assert m["f1"] == pytest.approx(f1)
    assert m["nll"] == pytest.approx(sk.log_loss(labels, scores, labels=range(classes)))
    if classes > 5:
        top5 = sk.top_k_accuracy_score(labels, scores, k=5, labels=range(classes))
        assert m["top5"] == pytest.approx(top5)
    else:
        assert "top5" not in m
    confusion = sk.confusion_matrix(labels, predicted, labels=range(classes))
    assert np.array_equal(result.confusion, confusion)
    assert [row.support for row in result.per_class] == confusion.sum(axis=1).tolist()
    assert result.count == count == confusion.sum()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 999))
def test_intervals_hold_their_value(count: int, classes: int, seed: int) -> None:
    scores, labels = drawn(count, classes, seed)
    single = classification_metrics(scores, labels, names(classes))
    assert {"top1", "balanced_accuracy", "f1"} <= set(single.intervals)
    truth = [tuple(sorted({label, seed % classes})) for label in labels]
    several = classification_metrics(scores, truth, names(classes), multilabel=True)
    assert set(several.intervals) == {"exact_match", "map"}
    for result in (single, several):
        for name, (low, high) in result.intervals.items():
            assert 0 <= low <= result.metrics[name] <= high <= 1 + 1e-12


def test_intervals_shrink_with_samples_and_have_the_size_of_a_binomial() -> None:
    widths = []
    for count in (100, 400, 1600, 6400):
        scores, labels = drawn(count, 4, skill=2.0)
        result = classification_metrics(scores, labels, names(4))
        low, high = result.intervals["top1"]
        accuracy = result.metrics["top1"]
        assert high - low == pytest.approx(
            2 * 1.96 * (accuracy * (1 - accuracy) / count) ** 0.5, rel=0.15
        )
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_figures_are_the_same_each_time() -> None:
    scores, labels = drawn(50, 7)
    assert classification_metrics(scores, labels, names(7)) == classification_metrics(
        scores, labels, names(7)
    )


def test_a_hand_made_case() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    result = classification_metrics(scores, [0, 0, 1, 1], ["cat", "dog"])
    assert result.metrics["top1"] == 0.75
    assert result.metrics["balanced_accuracy"] == 0.75
    assert result.metrics["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert result.metrics["nll"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())
    assert result.confusion == ((2, 0), (1, 1))
    cat, dog = result.per_class
    assert (cat.name, cat.support, cat.recall) == ("cat", 2, 1.0)
    assert cat.precision == pytest.approx(2 / 3)
    assert (dog.precision, dog.recall, dog.average_precision) == (1.0, 0.5, None)


def test_a_class_without_samples_does_not_count() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    result = classification_metrics(scores, [0, 1], names(3))
    assert result.metrics["balanced_accuracy"] == result.metrics["f1"] == 1.0
    assert result.per_class[2].support == 0
    assert result.per_class[2].f1 == 0


def test_one_class_predicted_for_all() -> None:
    scores = np.tile([0.7, 0.2, 0.1], (6, 1))
    result = classification_metrics(scores, [0, 1, 2, 0, 1, 2], names(3))
    assert result.metrics["top1"] == pytest.approx(1 / 3)
    assert result.metrics["balanced_accuracy"] == pytest.approx(1 / 3)
    assert result.metrics["f1"] == pytest.approx(0.5 / 3)
    assert result.metrics["ece"] == pytest.approx(0.7 - 1 / 3)


def test_one_sample() -> None:
    right = classification_metrics(np.array([[0.6, 0.4]]), [0], names(2))
    assert right.metrics["top1"] == right.metrics["f1"] == 1.0
    assert right.intervals["top1"] == (1.0, 1.0)
    wrong = classification_metrics(np.array([[0.6, 0.4]]), [1], names(2))
    assert wrong.metrics["top1"] == wrong.metrics["f1"] == wrong.metrics["balanced_accuracy"] == 0.0
    several = classification_metrics(np.array([[0.6, 0.4]]), [(0,)], names(2), multilabel=True)
    assert several.metrics["exact_match"] == 1.0


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 999))
def test_multi_label_metrics_are_those_of_scikit_learn(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((count, classes)) < 0.5).astype(np.int64)
    truth[0] = 1
    scores = np.clip(rng.random((count, classes)) * 0.6 + truth * 0.3, 0, 1)
    targets = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    result = classification_metrics(scores, targets, names(classes), multilabel=True, threshold=0.4)
    chosen = scores >= 0.4
    m = result.metrics
    assert m["map"] == pytest.approx(sk.average_precision_score(truth, scores, average="macro"))
    assert m["f1"] == pytest.approx(sk.f1_score(truth, chosen, average="macro", zero_division=0))
    assert m["exact_match"] == pytest.approx(sk.accuracy_score(truth, chosen))
    losses = [sk.log_loss(truth[:, i], scores[:, i], labels=[0, 1]) for i in range(classes)]
    assert m["nll"] == pytest.approx(np.mean(losses))
    assert result.confusion == ()
    assert all(row.average_precision is not None for row in result.per_class)


def test_multi_label_classes_without_positives() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.3]])
    result = classification_metrics(scores, [(0,), (0,)], names(2), multilabel=True)
    assert result.metrics["map"] == result.metrics["f1"] == result.metrics["exact_match"] == 1.0
    assert result.per_class[1].average_precision is None
    nothing = classification_metrics(scores, [(), ()], names(2), multilabel=True)
    assert nothing.metrics["map"] == nothing.metrics["f1"] == 0.0


def test_the_result_is_written_as_json() -> None:
    scores, labels = drawn(20, 6)
    result = classification_metrics(scores, labels, names(6))
    assert ClassificationMetrics.model_validate_json(result.model_dump_json()) == result


def test_many_samples_and_classes_take_little_memory() -> None:
    """The bootstrap draws counts of distinct cells, not samples."""
    scores, labels = drawn(30_000, 20, skill=4.0)
    result = classification_metrics(scores, labels, names(20))
    low, high = result.intervals["top5"]
    assert low <= result.metrics["top5"] <= high
