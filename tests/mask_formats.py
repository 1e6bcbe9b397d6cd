"""The same objects written in every format of masks that is read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from vitrail.data.dataset import Dataset
from vitrail.types import VOID, Segments

VALUES = {"field": 1, "road": 2, "house": 7}
COLOURS = {
    "background": (0, 0, 0),
    "field": (0, 128, 0),
    "road": (90, 90, 90),
    "house": (200, 0, 9),
}

Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 with whole corners, which every format has exactly."""


@dataclass(frozen=True)
class Scene:
    """One image and its objects."""

    stem: str
    size: tuple[int, int]
    objects: tuple[tuple[str, Rectangle], ...]

    def masks(self) -> list[tuple[str, np.ndarray]]:
        found = []
        for name, (x1, y1, x2, y2) in self.objects:
            mask = np.zeros(self.size, dtype=bool)
            mask[y1:y2, x1:x2] = True
            found.append((name, mask))
        return found

    def values(self) -> np.ndarray:
        """The class seen at each pixel, later objects above earlier ones."""
        seen = np.zeros(self.size, dtype=np.uint8)
        for name, mask in self.masks():
            seen[mask] = VALUES[name]
        return seen


SCENES = (
    Scene("one", (24, 30), (("field", (2, 3, 12, 20)), ("road", (14, 0, 18, 24)))),
    Scene("two", (20, 33), (("house", (1, 1, 9, 9)), ("house", (5, 4, 20, 12)))),
    Scene("three", (16, 16), (("field", (0, 0, 16, 8)), ("house", (3, 9, 6, 12)))),
    Scene("four", (31, 17), (("road", (4, 0, 9, 31)), ("field", (10, 5, 16, 30)))),
)
"""Two of a class that overlap, one that fills its width, one that begins in the corner."""


def put_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def put_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def by_value() -> np.ndarray:
    """Colours of the values 0 to 7."""
    table = np.zeros((8, 3), dtype=np.uint8)
    for name, value in VALUES.items():
        table[value] = COLOURS[name]
    return table


def put_palette_file(root: Path) -> None:
    rows = "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLOURS.items())
    (root / "palette.csv").write_text(f"name,r,g,b\n{rows}")


def write_indices(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    for scene in scenes:
        put_image(root / "images" / f"{scene.stem}.png", scene.size)
        put_mask(root / "masks" / f"{scene.stem}.png", scene.values())
    (root / "classes.json").write_text(json.dumps({v: k for k, v in VALUES.items()}))


def write_palette(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    """Indices that have colours, named by their colours."""
    (root / "masks").mkdir(parents=True)
    for scene in scenes:
        put_image(root / "images" / f"{scene.stem}.png", scene.size)
        image = Image.fromarray(scene.values())
        image.putpalette(by_value().ravel().tolist())
        image.save(root / "masks" / f"{scene.stem}.png")
    put_palette_file(root)


def write_colours(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    for scene in scenes:
        put_image(root / "images" / f"{scene.stem}.png", scene.size)
        put_mask(root / "masks" / f"{scene.stem}.png", by_value()[scene.values()])
    put_palette_file(root)


def write_csv(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    rows = ["path,mask"]
    for place, scene in enumerate(scenes):
        put_image(root / "a" / f"{scene.stem}.png", scene.size)
        put_mask(root / "b" / f"{place}.png", scene.values())
        rows.append(f"a/{scene.stem}.png,b/{place}.png")
    (root / "table.csv").write_text("\n".join(rows))
    names = "".join(f"  {value}: {name}\n" for name, value in VALUES.items())
    (root / "data.yaml").write_text(f"classes:\n  0: background\n{names}")


def row_of(scene: Scene, number: int) -> dict[str, Any]:
    height, width = scene.size
    return {"id": number, "file_name": f"{scene.stem}.png", "height": height, "width": width}


def write_json(path: Path, images: object, annotations: object, categories: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(table))


def write_panoptic(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    images, annotations = [], []
    for number, scene in enumerate(scenes, 10):
        put_image(root / "images" / f"{scene.stem}.png", scene.size)
        numbers = np.zeros(scene.size, dtype=np.int64)
        rows = []
        for place, (name, mask) in enumerate(scene.masks(), 1):
            numbers[mask] = 70_001 * place
            rows.append({"id": 70_001 * place, "category_id": VALUES[name], "iscrowd": 0})
        rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1)
        put_mask(root / "panoptic" / f"{scene.stem}.png", rgb.astype(np.uint8))
        images.append(row_of(scene, number))
        file = f"{scene.stem}.png"
        annotations.append({"image_id": number, "file_name": file, "segments_info": rows})
    categories = [
        {"id": value, "name": name, "isthing": int(name == "house")}
        for name, value in VALUES.items()
    ]
    write_json(root / "panoptic.json", images, annotations, categories)


def corners_of(box: Rectangle) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths by the definition: down the columns, outside first."""
    flat = mask.T.ravel()
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), len(flat)]
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def text_of(mask: np.ndarray) -> str:
    """Compressed run lengths, by pycocotools."""
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def coco_writer(kind: str) -> Callable[[Path, Sequence[Scene]], None]:
    def write(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
        images, annotations = [], []
        for number, scene in enumerate(scenes, 10):
            put_image(root / "images" / f"{scene.stem}.png", scene.size)
            images.append(row_of(scene, number))
            for (name, box), (_, mask) in zip(scene.objects, scene.masks(), strict=True):
                written: Any = {
                    "polygon": [corners_of(box)],
                    "runs": {"size": [*scene.size], "counts": runs_of(mask)},
                    "text": {"size": [*scene.size], "counts": text_of(mask)},
                }[kind]
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": number,
                        "category_id": VALUES[name],
                        "segmentation": written,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": value, "name": name} for name, value in VALUES.items()]
        write_json(root / "annotations" / "objects.json", images, annotations, categories)

    return write


def write_yolo(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    (root / "labels").mkdir(parents=True)
    for scene in scenes:
        put_image(root / "images" / f"{scene.stem}.png", scene.size)
        height, width = scene.size
        lines = []
        for name, box in scene.objects:
            shares = (
                f"{value / (height if place % 2 else width):.6f}"
                for place, value in enumerate(corners_of(box))
            )
            lines.append(f"{VALUES[name]} {' '.join(shares)}\n")
        (root / "labels" / f"{scene.stem}.txt").write_text("".join(lines))
    names = "".join(f"  {value}: {name}\n" for name, value in VALUES.items())
    (root / "data.yaml").write_text(f"names:\n{names}")


def write_instances(root: Path, scenes: Sequence[Scene] = SCENES) -> None:
    """One folder an image; this format has no classes."""
    for scene in scenes:
        put_image(root / scene.stem / "images" / f"{scene.stem}.png", scene.size)
        for place, (_, mask) in enumerate(scene.masks()):
            path = root / scene.stem / "masks" / f"{place:03d}.png"
            put_mask(path, mask.astype(np.uint8) * 255)


REGIONS = {
    "indices": write_indices,
    "palette": write_palette,
    "colours": write_colours,
    "csv": write_csv,
    "panoptic": write_panoptic,
}
"""Formats that say which class is seen at each pixel."""

OBJECTS = {
    "polygon": coco_writer("polygon"),
    "runs": coco_writer("runs"),
    "text": coco_writer("text"),
    "yolo": write_yolo,
}
"""Formats that say which pixels each object has, overlaps too."""


def target(data: Dataset, scene: str) -> Segments:
    """What is told of the image with a name."""
    found = data.targets[[PurePosixPath(name).stem for name in data.ids].index(scene)]
    assert isinstance(found, Segments)
    return found


def pieces(segments: Segments) -> list[np.ndarray]:
    """The pixels of each segment."""
    ids = segments.ids.numpy()
    return [(ids == number).any(axis=0) for number in range(1, len(segments.labels) + 1)]


def name_of(data: Dataset, label: int) -> str:
    return "void" if label == VOID else data.classes[label]


def objects(data: Dataset, segments: Segments) -> list[tuple[str, bytes]]:
    """Every segment with the name of its class, in one order."""
    named = zip(segments.labels, pieces(segments), strict=True)
    return sorted((name_of(data, label), mask.tobytes()) for label, mask in named)


def regions(data: Dataset, segments: Segments) -> Mapping[str, bytes]:
    """The pixels of each class."""
    found: dict[str, np.ndarray] = {}
    for label, mask in zip(segments.labels, pieces(segments), strict=True):
        name = name_of(data, label)
        found[name] = found.get(name, np.zeros_like(mask)) | mask
    return {name: mask.tobytes() for name, mask in found.items()}
