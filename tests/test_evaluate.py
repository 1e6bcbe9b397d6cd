from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mask_formats import SCENES, coco_writer
from tiny import ListDataset, photo, tiny_model
from vitrail.data.open import open_source
from vitrail.data.workers import Serial
from vitrail.errors import DataError
from vitrail.evaluate import choose_split, evaluate, metrics_of
from vitrail.metrics.classification import classification_metrics
from vitrail.prediction_files import write_predictions
from vitrail.types import Skipped
from vitrail.weights.modelfile import Provenance

CLASSES = ("ant", "bee", "cat")


def labelled(count: int = 24, order: tuple[str, ...] = CLASSES) -> ListDataset:
    images = [None if i == 5 else photo(i, 8 + i, 14) for i in range(count)]
    return ListDataset(images, [order.index(CLASSES[i % 3]) for i in range(count)], order)


def test_metrics_are_exactly_those_of_the_prediction_file(tmp_path: Path) -> None:
    model, dataset = tiny_model(CLASSES), labelled()
    result = evaluate(model, dataset, batch_size=5, workers=Serial())
    out = tmp_path / "rows.jsonl"
    write_predictions(result.rows, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    truth = dict(zip(dataset.ids, dataset.targets, strict=True))
    good = [row for row in rows if "error" not in row]
    scores = np.array([[row["scores"][name] for name in CLASSES] for row in good])
    again = classification_metrics(scores, [truth[row["path"]] for row in good], CLASSES)
    assert again == result.result
    assert result.metrics == again.metrics
    right = [row["label"] == CLASSES[truth[row["path"]]] for row in good]
    assert result.metrics["top1"] == sum(right) / len(right)


def test_unreadable_samples_are_counted_apart() -> None:
    result = evaluate(tiny_model(CLASSES), labelled(), workers=Serial())
    assert result.count == result.result.count == 23
    assert len(result.rows) == 24
    assert result.quarantined == (Skipped("5.png", "truncated file"),)


def test_classes_are_matched_by_name() -> None:
    model = tiny_model(CLASSES)
    expected = evaluate(model, labelled(), workers=Serial())
    turned = evaluate(model, labelled(order=("cat", "ant", "bee")), workers=Serial())
    assert turned == expected
    two = ListDataset([photo(0), photo(1)], [0, 1], ("cat", "ant"))
    assert evaluate(model, two, workers=Serial()).result.confusion[2] != (0, 0, 0)


def test_an_unknown_class_is_named_with_the_nearest() -> None:
    dataset = ListDataset([photo(0)], [0], ("beee",))
    with pytest.raises(DataError) as caught:
        evaluate(tiny_model(CLASSES), dataset, workers=Serial())
    assert str(caught.value) == (
        "the data has a class 'beee' that the model does not know; did you mean 'bee'?; "
        "the model's classes: ant, bee, cat"
    )


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (ListDataset([photo(0), photo(1)], [0, None], CLASSES), "needs a label for every sample"),
        (ListDataset([None, None], [0, 1], CLASSES), "none of the 2 samples can be read"),
        (ListDataset([photo(0)], [(0, 1)], CLASSES, multilabel=True), "several labels an image"),
    ],
)
def test_data_that_cannot_be_measured(dataset: ListDataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(tiny_model(CLASSES), dataset, workers=Serial())


def test_several_labels() -> None:
    model = tiny_model(CLASSES, multilabel=True, threshold=0.3)
    targets = [(0,), (1, 2), (), (0, 1, 2)]
    order = ("cat", "bee", "ant")
    turned = [tuple(sorted(2 - i for i in target)) for target in targets]
    photos = [photo(i) for i in range(4)]
    straight = ListDataset(photos, targets, CLASSES, multilabel=True)
    result = evaluate(model, straight, workers=Serial())
    other = ListDataset(photos, turned, order, multilabel=True)
    assert evaluate(model, other, workers=Serial()) == result
    assert set(result.metrics) == {"map", "f1", "exact_match", "ece", "nll"}
    assert metrics_of(model, result.rows, targets) == result.result


def test_progress_counts_images() -> None:
    seen: list[int] = []
    evaluate(tiny_model(CLASSES), labelled(6), workers=Serial(), progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_outlines_are_those_that_were_learned(tmp_path: Path) -> None:
    """The same file is another data set for a detector and for a segmenter."""
    coco_writer("polygon")(tmp_path, [replace(SCENES[i % 4], stem=str(i)) for i in range(16)])
    data = str(tmp_path)
    known = Provenance(fingerprint=open_source(data, task="segment").fingerprint)
    assert choose_split(data, "auto", known, task="segment")[0] == "test"
    assert choose_split(data, "auto", known, task="detect")[0] == "all"
