"""The same boxes written in every format that is read."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from vitrail.data.dataset import Dataset
from vitrail.types import Boxes, Corners

Objects = list[tuple[str, Corners]]


@dataclass(frozen=True)
class Scene:
    """One image, by the name of its file, with what it shows; `source` is a file to link to."""

    file: str
    size: tuple[int, int]
    objects: Objects
    source: Path | None = None
    image_id: int = 0


SCENES = (
    Scene("one.png", (40, 60), [("cat", (3, 4, 20, 30)), ("ant hill", (10.25, 0, 60, 40))]),
    Scene("two.png", (33, 21), [("dog", (1.5, 2.5, 20.125, 9.75)), ("cat", (0, 0, 21, 33))]),
    Scene("empty.png", (20, 30), []),
    Scene("four.png", (50, 50), [("dog", (7, 8, 9, 10)), ("dog", (30, 31, 40, 50))]),
)
"""Fractions, a box that fills its image, two of a class, an image without objects."""

NUMBERINGS: dict[str, Callable[[int], int]] = {
    "from 0": lambda place: place,
    "from 1": lambda place: place + 1,
    "with gaps": lambda place: 5 * place + 3,
}


def ids_of(names: Sequence[str], numbering: str) -> dict[str, int]:
    return {name: NUMBERINGS[numbering](place) for place, name in enumerate(names)}


def put_image(path: Path, scene: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if scene.source is not None:
        path.symlink_to(scene.source)
        return
    rng = np.random.default_rng(zlib.crc32(scene.file.encode()))
    Image.fromarray(rng.integers(0, 256, (*scene.size, 3), dtype=np.uint8)).save(path)


def write_coco(root: Path, scenes: Sequence[Scene], ids: Mapping[str, int]) -> None:
    images, annotations = [], []
    for number, scene in enumerate(scenes, 10):
        put_image(root / "images" / scene.file, scene)
        height, width = scene.size
        images.append({"id": number, "file_name": scene.file, "height": height, "width": width})
        annotations += [
            {
                "id": len(annotations) + place,
                "image_id": number,
                "category_id": ids[name],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for place, (name, (x1, y1, x2, y2)) in enumerate(scene.objects)
        ]
    # Not in the order of the ids: the order of the file must not matter.
    categories = [{"id": ids[name], "name": name} for name in sorted(ids)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "boxes.json").write_text(json.dumps(table))


def write_voc(root: Path, scenes: Sequence[Scene], ids: Mapping[str, int]) -> None:
    (root / "Annotations").mkdir(parents=True)
    for scene in scenes:
        put_image(root / "JPEGImages" / scene.file, scene)
        node = ET.Element("annotation")
        ET.SubElement(node, "filename").text = scene.file
        size = ET.SubElement(node, "size")
        for key, side in zip(("height", "width"), scene.size, strict=True):
            ET.SubElement(size, key).text = str(side)
        for name, corners in scene.objects:
            thing = ET.SubElement(node, "object")
            ET.SubElement(thing, "name").text = name
            box = ET.SubElement(thing, "bndbox")
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
                ET.SubElement(box, key).text = repr(value)
        ET.ElementTree(node).write(root / "Annotations" / f"{Path(scene.file).stem}.xml")


def write_yolo(root: Path, scenes: Sequence[Scene], ids: Mapping[str, int]) -> None:
    (root / "labels").mkdir(parents=True)
    for scene in scenes:
        put_image(root / "images" / scene.file, scene)
        height, width = scene.size
        rows = [
            f"{ids[name]} {(x1 + x2) / 2 / width:.8f} {(y1 + y2) / 2 / height:.8f} "
            f"{(x2 - x1) / width:.8f} {(y2 - y1) / height:.8f}\n"
            for name, (x1, y1, x2, y2) in scene.objects
        ]
        (root / "labels" / f"{Path(scene.file).stem}.txt").write_text("".join(rows))
    names = "".join(f"  {ids[name]}: {name}\n" for name in sorted(ids))
    (root / "data.yaml").write_text(f"names:\n{names}")


def write_csv(root: Path, scenes: Sequence[Scene], ids: Mapping[str, int]) -> None:
    del ids  # this format has names only
    root.mkdir(parents=True)
    with (root / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "x1", "y1", "x2", "y2", "label"])
        for scene in scenes:
            put_image(root / "images" / scene.file, scene)
            rows = [[*map(repr, corners), name] for name, corners in scene.objects]
            table.writerows([f"images/{scene.file}", *row] for row in rows or [[""] * 5])


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo, "csv": write_csv}


def named(dataset: Dataset, targets: Sequence[object] | None = None) -> dict[str, Objects]:
    """What each file shows: names and corners, in one order."""
    found: dict[str, Objects] = {}
    for name, target in zip(dataset.ids, targets or dataset.targets, strict=True):
        assert isinstance(target, Boxes)
        objects = [
            (dataset.classes[box.label], box.corners) for box in target.items if not box.crowd
        ]
        found[PurePosixPath(name).name] = sorted(objects)
    return found


def farthest(left: Mapping[str, Objects], right: Mapping[str, Objects]) -> float:
    """Largest difference of two corners in pixels, where the same objects are in the same files."""
    assert left.keys() == right.keys()
    far = 0.0
    for file, objects in left.items():
        rest = list(right[file])
        assert len(rest) == len(objects), file
        for name, corners in objects:
            gap, match = min(
                (max(abs(a - b) for a, b in zip(corners, other, strict=True)), place)
                for place, (word, other) in enumerate(rest)
                if word == name
            )
            far = max(far, gap)
            rest.pop(match)
    return far
