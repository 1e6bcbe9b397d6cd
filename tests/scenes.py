"""Objects in images, and what a mediocre detector would say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tiny import randomise, tiny_config
from vitrail.data.preprocess import Preprocess, Squash
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import DeformableConfig, QueryReadout, TwoStageConfig
from vitrail.types import Box, Boxes, Corners, Detection, Grid

BCCD = ("RBC", "WBC", "Platelets")


def tiny_detector(
    classes: Sequence[str] = ("ant hill", "cat", "dog"),
    category_ids: tuple[int, ...] | None = None,
    detections: int = 6,
) -> Model:
    """A detector with random weights."""
    readout = QueryReadout(
        attention=DeformableConfig(heads=2, points=2),
        queries=TwoStageConfig(count=6),
        width=16,
        depth=2,
        heads=2,
        hidden=32,
    )
    task = DetectConfig(
        classes=tuple(classes),
        category_ids=category_ids,
        readout=readout,
        max_detections=detections,
    )
    preprocess = Preprocess(resize=Squash(size=(16, 24)))
    backbone = tiny_config(image_size=(16, 24))
    config = ModelConfig(backbone=backbone, task=task, preprocess=preprocess)
    return randomise(Model(config), std=0.2).eval()


def scene(rng: np.random.Generator, classes: int, objects: int, size: Grid = (480, 640)) -> Boxes:
    """Random objects, some of them crowds, some with an area that is not their box's."""
    items: list[Box] = []
    for _ in range(objects):
        x, y = rng.uniform(0, size[1] - 9), rng.uniform(0, size[0] - 9)
        right, bottom = min(x + rng.uniform(8, 200), size[1]), min(y + rng.uniform(8, 200), size[0])
        area = (right - x) * (bottom - y)
        items.append(
            Box(
                (float(x), float(y), float(right), float(bottom)),
                int(rng.integers(classes)),
                crowd=bool(rng.random() < 0.1),
                area=float(area * rng.uniform(0.3, 1)) if rng.random() < 0.5 else None,
            )
        )
    return Boxes(tuple(items), size)


def guesses(
    rng: np.random.Generator,
    target: Boxes,
    classes: Sequence[str],
    *,
    noise: float = 0.08,
    wrong: int = 6,
    digits: int = 2,
) -> Detection:
    """Detections of most objects, shifted, some of another class, and some of nothing at all.

    Scores have few digits, so that many are equal.
    """
    boxes: list[Corners] = []
    labels: list[str] = []
    scores: list[float] = []
    for box in target.items:
        x1, y1, x2, y2 = box.corners
        for _ in range(int(rng.choice(3, p=[0.15, 0.7, 0.15]))):
            shift = rng.normal(0, noise, 4) * [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
            a, b, c, d = (float(v) for v in np.array(box.corners) + shift)
            boxes.append((min(a, c), min(b, d), max(a, c), max(b, d)))
            swapped = rng.random() < 0.1
            labels.append(classes[int(rng.integers(len(classes))) if swapped else box.label])
            scores.append(round(float(rng.beta(4, 2)), digits))
    for _ in range(wrong):
        x, y, w, h = (float(v) for v in rng.uniform([0, 0, 4, 4], [500, 400, 150, 150]))
        boxes.append((x, y, x + w, y + h))
        labels.append(classes[int(rng.integers(len(classes)))])
        scores.append(round(float(rng.beta(2, 4)), digits))
    order = np.argsort(-np.array(scores), kind="stable").tolist()
    return Detection(
        tuple(boxes[i] for i in order),
        tuple(labels[i] for i in order),
        tuple(scores[i] for i in order),
    )


def read_bccd(folder: Path, part: str = "test") -> list[Boxes]:
    """The blood cells of one published part, as Pascal VOC has them."""
    names = (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
    targets: list[Boxes] = []
    for name in names:
        root = ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()
        corners = [
            [float(node.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            for node in root.iter("object")
        ]
        labels = [BCCD.index(node.findtext("name", "")) for node in root.iter("object")]
        items = [
            Box((x1, y1, x2, y2), label)
            for (x1, y1, x2, y2), label in zip(corners, labels, strict=True)
        ]
        targets.append(Boxes(tuple(box for box in items if box.corners[0] < box.corners[2])))
    return targets


def read_coco(file: Path) -> tuple[list[Boxes], tuple[str, ...]]:
    """Objects of a COCO file, in the order of its image ids, and its class names."""
    table = json.loads(file.read_text())
    place = {row["id"]: i for i, row in enumerate(table["categories"])}
    found: dict[int, list[Box]] = {row["id"]: [] for row in table["images"]}
    for row in table["annotations"]:
        x, y, w, h = row["bbox"]
        box = Box(
            (x, y, x + w, y + h), place[row["category_id"]], bool(row["iscrowd"]), row["area"]
        )
        found[row["image_id"]].append(box)
    targets = [Boxes(tuple(found[i])) for i in sorted(found)]
    return targets, tuple(row["name"] for row in table["categories"])
