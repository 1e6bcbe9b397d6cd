from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from class_maps import answer, filled, rectangles, truth
from vitrail.metrics.segmentation import SegmentationMetrics, segmentation_metrics
from vitrail.types import VOID, Segmentation, Segments

CLASSES = ("ant", "bee", "cat")
SIZE = (30, 41)


def layered(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Each in the first layer where it overlaps none."""
    layers = [np.zeros(SIZE, dtype=np.int64)]
    for k, mask in enumerate(masks, start=1):
        for layer in layers:
            if not layer[mask].any():
                break
        else:
            layers.append(layer := np.zeros(SIZE, dtype=np.int64))
        layer[mask] = k
    return layers


def scene(rng: np.random.Generator) -> tuple[list, list, Segments, Segmentation]:
    corners = rectangles(rng, SIZE, int(rng.integers(0, 7)))
    true = [
        (filled(each, SIZE), int(rng.integers(0, 2)), bool(rng.random() < 0.1)) for each in corners
    ]
    guessed = [tuple(np.array(each) + rng.integers(-1, 2, 4)) for each in corners]
    guessed += rectangles(rng, SIZE, 2)
    found = [
        (CLASSES[rng.integers(0, 3)], round(float(rng.random()), 2), filled(each, SIZE))
        for each in guessed
    ]
    found = [(name, score, mask) for name, score, mask in found if mask.any()]
    masks, labels, crowds = zip(*true, strict=True) if true else ((), (), ())
    target = truth(*layered(list(masks)), labels=labels, crowds=crowds)
    return true, found, target, answer(found, SIZE)


def packed(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def published(scenes: list, folder: Path) -> np.ndarray:
    """COCO's own figures, by its own files."""
    truths = [
        {
            "id": 1000 * i + k + 1,
            "image_id": i,
            "category_id": label,
            "segmentation": packed(mask),
            "area": int(mask.sum()),
            "bbox": [0, 0, 1, 1],
            "iscrowd": int(crowd),
        }
        for i, (true, *_) in enumerate(scenes)
        for k, (mask, label, crowd) in enumerate(true)
    ]
    found = [
        {
            "image_id": i,
            "category_id": CLASSES.index(name),
            "segmentation": packed(mask),
            "score": score,
        }
        for i, (_, answers, *_) in enumerate(scenes)
        for name, score, mask in answers
    ]
    table = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(scenes))],
        "annotations": truths,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "info": {},
    }
    (folder / "truth.json").write_text(json.dumps(table))
    (folder / "found.json").write_text(json.dumps(found))
    data = COCO(str(folder / "truth.json"))
    run = COCOeval(data, data.loadRes(str(folder / "found.json")), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


def measured(targets: list[Segments], answers: list[Segmentation], **more) -> SegmentationMetrics:
    return segmentation_metrics(
        answers, targets, CLASSES, answer="instance", background=True, **more
    )


@pytest.mark.parametrize("seed", range(4))
def test_as_cocos_own_tool(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(6)]
    found = measured([each[2] for each in scenes], [each[3] for each in scenes], intervals=False)
    stats = published(scenes, tmp_path)
    for name, value in zip(("mask_map", "mask_map50", "mask_map75"), stats, strict=False):
        assert found.metrics[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < found.metrics["mask_map"] < 1
    ants, _, cats = found.per_class
    assert ants.objects == sum(
        label == 0 and not crowd for true, *_ in scenes for _, label, crowd in true
    )
    assert cats.ap is None


def test_the_truth_is_perfect_even_in_a_crowded_image() -> None:
    ids = np.zeros((40, 40), dtype=np.int64)
    ids[::2, ::2] = np.arange(1, 401).reshape(20, 20)
    masks = [("ant", 0.5 + k / 1000, ids == k) for k in range(1, 401)]
    found = measured([truth(ids, labels=[0] * 400)], [answer(masks, (40, 40))], intervals=False)
    assert found.metrics["mask_map"] == pytest.approx(1)
    assert found.metrics["pq"] == found.metrics["dice"] == 1


def test_foreground_is_of_all_objects_from_the_threshold_on() -> None:
    one, two = filled((2, 2, 6, 8), SIZE), filled((4, 6, 10, 12), SIZE)
    target = truth(*layered([one, two]), labels=(0, 1))
    answers = answer([("ant", 0.9, one), ("ant", 0.3, two)], SIZE)
    union = (one | two).sum()
    for threshold, area in ((0.5, one.sum()), (0.2, union)):
        found = measured([target], [answers], threshold=threshold, intervals=False)
        assert found.metrics["f1"] == pytest.approx(2 * area / (area + union))
        assert found.metrics["dice"] == found.metrics["f1"]
        assert found.images[0].wrong == union - area


def test_neither_crowds_nor_void_are_judged() -> None:
    one, crowd, void = (filled((2, x, 8, x + 6), SIZE) for x in (2, 12, 24))
    target = truth(one + 2 * crowd + 3 * void, labels=(0, 0, VOID), crowds=(False, True, False))
    right = [("ant", 0.9, one | filled((2, 24, 8, 26), SIZE))]
    more = [*right, ("ant", 0.8, crowd), ("bee", 0.95, void)]
    for regions in (right, more):
        found = measured([target], [answer(regions, SIZE)], intervals=False)
        for name in ("mask_map", "dice", "f1", "pq", "boundary_f"):
            assert found.metrics[name] == pytest.approx(1), name


def test_the_threshold_is_that_of_the_best_f1() -> None:
    one, two, three = (filled((2, x, 8, x + 6), SIZE) for x in (2, 12, 24))
    regions = [("ant", 0.9, one), ("ant", 0.7, two), ("ant", 0.4, three)]
    found = measured(
        [truth(one + 2 * two, labels=(0, 0))], [answer(regions, SIZE)], intervals=False
    )
    assert found.threshold == 0.7


def test_nothing_to_find_and_nothing_found() -> None:
    none = truth(np.zeros(SIZE, dtype=np.int64), labels=())
    found = measured([none, none], [answer([], SIZE)] * 2)
    assert found.metrics["mask_map"] == found.metrics["pq"] == 0
    assert found.metrics["dice"] == 1
    assert found.threshold is None


def test_intervals_hold_the_value() -> None:
    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(12)]
    found = measured([each[2] for each in scenes], [each[3] for each in scenes])
    assert {"mask_map", "mask_map50", "dice", "pq"} <= set(found.intervals)
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high
        assert low < high, name
