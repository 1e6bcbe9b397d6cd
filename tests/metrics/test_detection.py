from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from scenes import BCCD, guesses, read_bccd, read_coco, scene
from vitrail.metrics.detection import DetectionMetrics, detection_metrics
from vitrail.metrics.detection_matches import average_precision, match
from vitrail.types import Box, Boxes, Detection

NAMES = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
NOTHING = Detection((), (), ())
CLASSES = ("ant", "bee", "cat")

STORED = {
    "map": 0.31216006,
    "map50": 0.56333813,
    "map75": 0.29290958,
    "mar_100": 0.43712121,
    "map_small": 0.50396040,
    "map_medium": 0.30039907,
    "map_large": 0.32672914,
}


def drawn(seed: int, images: int = 8, classes: Sequence[str] = CLASSES) -> tuple:
    rng = np.random.default_rng(seed)
    # The last class has no object, but is sometimes detected.
    known = max(1, len(classes) - 1)
    targets = [scene(rng, known, int(rng.integers(0, 7))) for _ in range(images)]
    predictions = [
        guesses(rng, target, classes) if rng.random() < 0.9 else NOTHING for target in targets
    ]
    return predictions, targets


def as_files(
    predictions: Sequence[Detection], targets: Sequence[Boxes], classes: Sequence[str], folder: Path
) -> tuple[str, str]:
    """Ground truth and results as COCO's own tools take them: class ids with gaps, files."""
    truth = [
        {
            "image_id": 10 + i,
            "category_id": 3 + 2 * box.label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1) if box.area is None else box.area,
            "iscrowd": int(box.crowd),
        }
        for i, target in enumerate(targets)
        for box in target.items
        for x1, y1, x2, y2 in [box.corners]
    ]
    results = [
        {
            "image_id": 10 + i,
            "category_id": 3 + 2 * classes.index(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for i, found in enumerate(predictions)
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes, found.labels, found.scores, strict=True
        )
    ]
    table = {
        "images": [{"id": 10 + i} for i in range(len(targets))],
        "annotations": [{"id": i, **row} for i, row in enumerate(truth, start=1)],
        "categories": [{"id": 3 + 2 * i, "name": name} for i, name in enumerate(classes)],
        "info": {},
    }
    (folder / "truth.json").write_text(json.dumps(table))
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder / "truth.json"), str(folder / "results.json")


def assert_as_published(found: DetectionMetrics, stats: Sequence[float]) -> None:
    """COCO's twelve figures; it writes -1 where we leave out."""
    for name, value in zip(NAMES, stats, strict=False):
        assert found.metrics.get(name, -1) == pytest.approx(value, abs=1e-6), name
    assert found.metrics["mar_100"] == pytest.approx(stats[8], abs=1e-6)


def assert_as_both(
    predictions: Sequence[Detection], targets: Sequence[Boxes], classes: Sequence[str], folder: Path
) -> DetectionMetrics:
    found = detection_metrics(predictions, targets, classes, intervals=False)
    truth, results = as_files(predictions, targets, classes, folder)
    coco = COCO(truth)
    run = COCOeval(coco, coco.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert_as_published(found, run.stats)
    try:
        import faster_coco_eval as other
    except ImportError:
        return found
    coco = other.COCO(truth)
    second = other.COCOeval_faster(coco, coco.loadRes(results), "bbox", extra_calc=False)
    second.run()
    assert_as_published(found, second.stats)
    return found


def test_blood_cells_as_by_coco(shared_data: Path, tmp_path: Path) -> None:
    rng, targets = np.random.default_rng(0), read_bccd(shared_data / "bccd")
    assert len(targets) == 72
    predictions = [guesses(rng, target, BCCD, digits=3) for target in targets]
    found = assert_as_both(predictions, targets, BCCD, tmp_path)
    assert 0.3 < found.metrics["map"] < 0.9
    assert found.objects == sum(len(target.items) for target in targets)


def test_coco_photos_as_by_coco(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "coco60" / "instances_train2017.json"
    targets, classes = read_coco(file)
    rng = np.random.default_rng(1)
    predictions = [guesses(rng, target, classes, digits=3) for target in targets]
    found = assert_as_both(predictions, targets, classes, tmp_path)
    assert found.crowds == 3
    assert set(found.metrics) == {*NAMES, "mar_100"}


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_as_by_coco(seed: int, tmp_path: Path) -> None:
    """Crowds, equal scores, images without objects or detections, a class without objects."""
    found = assert_as_both(*drawn(seed), CLASSES, tmp_path)
    assert found.per_class[2].support == 0
    assert found.per_class[2].ap is None


def test_stored_figures() -> None:
    """The same without any other tool: figures that both evaluators gave for these scenes."""
    predictions, targets = drawn(0, images=20)
    found = detection_metrics(predictions, targets, CLASSES)
    assert found.metrics == pytest.approx(STORED, abs=1e-6)
    assert found.count == 20
    assert DetectionMetrics.model_validate_json(found.model_dump_json()) == found
    assert found == detection_metrics(predictions, targets, CLASSES)


def test_the_files_of_a_data_set_do_not_change_a_digit() -> None:
    predictions, targets = drawn(3)
    lines = [json.dumps([f.boxes, f.labels, f.scores]) for f in predictions]
    read = [
        Detection(tuple(map(tuple, boxes)), tuple(labels), tuple(scores))
        for boxes, labels, scores in map(json.loads, lines)
    ]
    before = detection_metrics(predictions, targets, CLASSES)
    assert detection_metrics(read, targets, CLASSES) == before


BOX = Box((10.0, 10.0, 60.0, 60.0), 1)


def test_everything_found() -> None:
    targets = [Boxes((BOX,)), Boxes()]
    predictions = [Detection((BOX.corners,), ("bee",), (0.4,)), NOTHING]
    found = detection_metrics(predictions, targets, CLASSES)
    full = {"map": 1.0, "map50": 1.0, "map75": 1.0, "mar_100": 1.0, "map_medium": 1.0}
    assert found.metrics == pytest.approx(full)
    assert found.intervals == {name: pytest.approx((1.0, 1.0)) for name in ("map", "map50")}
    assert (found.objects, found.crowds, found.detections) == (1, 0, 1)
    assert found.threshold == 0.4
    row = found.per_class[1]
    assert (row.support, row.ap, row.ap50, row.ar) == (1, *[pytest.approx(1.0)] * 3)
    assert row.curve.best == found.overall.best
    assert row.curve.best.f1 == 1.0
    assert found.confusion == ((0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize("predicted", [NOTHING, Detection((BOX.corners,), ("ant",), (0.9,))])
@pytest.mark.parametrize("objects", [(), (BOX,), (replace(BOX, crowd=True),)])
def test_nothing_right(predicted: Detection, objects: tuple[Box, ...]) -> None:
    found = detection_metrics([predicted], [Boxes(objects)], CLASSES)
    assert set(found.metrics) >= {"map", "map50", "map75", "mar_100"}
    assert set(found.metrics.values()) == {0.0}
    assert found.intervals == {"map": (0.0, 0.0), "map50": (0.0, 0.0)}
    assert found.overall.best is None
    assert found.threshold == 0.5
    assert found.objects == sum(not box.crowd for box in objects)
    # An object that was taken for another class is one cell.
    assert np.sum(found.confusion) == max(found.objects, found.detections)


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong() -> None:
    targets = [Boxes((BOX, Box((100.0, 0.0, 300.0, 200.0), 1, crowd=True)))]
    boxes = (BOX.corners, (110.0, 10.0, 130.0, 30.0), (150.0, 10.0, 170.0, 30.0))
    found = detection_metrics(
        [Detection(boxes, ("bee", "bee", "ant"), (0.5, 0.9, 0.8))], targets, CLASSES
    )
    assert found.per_class[1].ap == pytest.approx(1.0)
    assert found.confusion == ((0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_average_precision_from_matches_is_coco_s(seed: int, images: int) -> None:
    predictions, targets = drawn(seed, images)
    found = match(predictions, targets, CLASSES)
    for i, one in enumerate(found.matches):
        expected = found.precision[:, :, i, 0].mean(axis=1)
        np.testing.assert_allclose(average_precision(one), expected, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_weight_is_that_many_copies_of_an_image(seed: int, weights: list[int]) -> None:
    predictions, targets = drawn(seed, 4)
    places = np.repeat(np.arange(4), weights)
    if not len(places):
        return
    # No two scores alike: among equals the order would matter.
    rng = np.random.default_rng(seed)
    predictions = [
        replace(p, scores=tuple(sorted(rng.random(len(p.scores)).tolist(), reverse=True)))
        for p in predictions
    ]
    once = match(predictions, targets, CLASSES)
    many = match([predictions[i] for i in places], [targets[i] for i in places], CLASSES)
    for one, copies in zip(once.matches, many.matches, strict=True):
        weighted = average_precision(one, np.array(weights))
        np.testing.assert_allclose(weighted, average_precision(copies), atol=1e-9)


def test_intervals_hold_the_value_and_narrow_with_more_images() -> None:
    few, many = (detection_metrics(*drawn(5, n), CLASSES) for n in (10, 160))
    widths = {}
    for found in (few, many):
        for name, (low, high) in found.intervals.items():
            assert 0 <= low <= found.metrics[name] <= high <= 1
            widths.setdefault(name, []).append(high - low)
    assert set(widths) == {"map", "map50"}
    for before, after in widths.values():
        assert after < before / 2
    assert detection_metrics(*drawn(5), CLASSES, intervals=False).intervals == {}


def test_what_cannot_be_measured() -> None:
    for predictions, targets in (([], []), ([NOTHING], [])):
        with pytest.raises(AssertionError, match="metrics need"):
            detection_metrics(predictions, targets, CLASSES)
