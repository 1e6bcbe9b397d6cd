"""Masks in the formats of other tools: index PNGs, COCO's run lengths, COCO's panoptic PNGs.

Outlines are in `prediction_polygons`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vitrail import masks
from vitrail.data.dataset import Dataset
from vitrail.errors import UserError
from vitrail.palette import BACKGROUND, Colour, colours, distinct
from vitrail.predict import Row, rle_to_dict
from vitrail.prediction_boxes import (
    NewFolder,
    Numbers,
    coco_table,
    label_files,
    write_errors,
    write_results,
)
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Region, Segmentation

NOTHING = 255
"""Value of a pixel that the model says nothing of, which readers take as not judged."""


@dataclass(frozen=True, slots=True)
class MaskForm:
    """What files of masks need to know of the model beside its answers.

    Attributes:
        numbers: What COCO calls classes and images.
        answer: What regions are.
        background: Whether a pixel may be of no class.
        things: Names of the classes that are objects.
        polygons: Whether outlines are written instead of pixels.
    """

    numbers: Numbers
    answer: Literal["semantic", "instance", "panoptic"] = "semantic"
    background: bool = True
    things: frozenset[str] = frozenset()
    polygons: bool = False

    @classmethod
    def of(cls, task: SegmentConfig, dataset: Dataset, *, polygons: bool = False) -> MaskForm:
        """The form of a model's answers for a data set."""
        objects = task.things or (task.answer != "semantic",) * len(task.classes)
        things = frozenset(name for name, thing in zip(task.classes, objects, strict=True) if thing)
        numbers = Numbers.of(task, dataset)
        return cls(numbers, task.answer, task.background, things, polygons)

    @property
    def first(self) -> int:
        """Value of the first class in an index PNG: 0 is the background, where there is one."""
        return int(self.background)

    @property
    def indexed(self) -> bool:
        """Whether a folder gets index PNGs."""
        return self.answer == "semantic" and not self.polygons

    def check(self, out: Path) -> None:
        """Whether all classes have a value, before anything is predicted.

        Raises:
            UserError: they have not.
        """
        most = NOTHING - self.first
        if self.indexed and not out.suffix and len(self.numbers.classes) > most:
            raise UserError(
                f"{out}: an index PNG has values for {most} classes, the model has "
                f"{len(self.numbers.classes)}; write .json (COCO), or --polygons"
            )


def write_coco_masks(rows: Sequence[Row], out: Path, numbers: Numbers) -> None:
    """Write COCO's list of results with run lengths, and what its numbers mean beside it."""
    results = [
        {
            "image_id": numbers.images[row.path],
            "category_id": numbers.classes[region.label],
            "segmentation": rle_to_dict(region.rle, found.size),
            "score": region.score,
        }
        for row, found in answered(rows)
        for region in found.regions
    ]
    write_results(results, rows, out, numbers)


def write_index_masks(rows: Sequence[Row], folder: Path, form: MaskForm) -> None:
    """Write `masks/<image>.png`, `classes.txt`, and `errors.jsonl` if there are any.

    A pixel's value is the line of its class in `classes.txt`, from 0 on, where the background
    stands first if there is one; it is `NOTHING` where the model says nothing. Beside `images`,
    the folder is a data set. Files have a palette, so that they show colours.

    Raises:
        UserError: two images would have the same file, or no room on the disk.
    """
    names = [*["background"] * form.background, *form.numbers.classes]
    values = {name: form.first + i for i, name in enumerate(form.numbers.classes)}
    shown = [BACKGROUND] * form.background + colours(len(values))
    files = label_files(rows, ".png")
    with NewFolder(folder) as out:
        for place, row in files.items():
            if isinstance(row.prediction, Segmentation):
                pixels = _indices(row.prediction, values, form)
                out.write(Path("masks") / place, _paletted(pixels, shown))
        write_errors(rows, out)
        out.write(Path("classes.txt"), "".join(f"{name}\n" for name in names).encode())


def write_panoptic(rows: Sequence[Row], folder: Path, form: MaskForm) -> None:
    """Write `panoptic.json` and `panoptic/<image>.png`, as COCO does.

    A pixel's red + 256 green + 65536 blue is the `id` of its segment; 0 (black) is none.

    Raises:
        UserError: two images would have the same file, or no room on the disk.
    """
    files = label_files(rows, ".png")
    annotations: list[dict[str, Any]] = []
    with NewFolder(folder) as out:
        for place, row in files.items():
            if not isinstance(row.prediction, Segmentation):
                continue
            pixels, segments = _panoptic(row.prediction, form.numbers)
            out.write(Path("panoptic") / place, _png(Image.fromarray(pixels)))
            annotations.append(
                {
                    "image_id": form.numbers.images[row.path],
                    "file_name": place.as_posix(),
                    "segments_info": segments,
                }
            )
        table = coco_table(rows, form.numbers, annotations)
        for category in table["categories"]:
            category["isthing"] = int(category["name"] in form.things)
        write_errors(rows, out)
        out.write(Path("panoptic.json"), json.dumps(table, ensure_ascii=False).encode())


def answered(rows: Sequence[Row]) -> list[tuple[Row, Segmentation]]:
    """Rows that have an answer, with it."""
    return [(row, row.prediction) for row in rows if isinstance(row.prediction, Segmentation)]


def _indices(
    found: Segmentation, values: dict[str, int], form: MaskForm
) -> UInt8[np.ndarray, "H W"]:
    pixels = np.full(found.size, 0 if form.background else NOTHING, dtype=np.uint8)
    for region in found.regions:
        pixels[masks.decode(region.rle, found.size)] = values[region.label]
    return pixels


def _panoptic(
    found: Segmentation, numbers: Numbers
) -> tuple[UInt8[np.ndarray, "H W 3"], list[dict[str, Any]]]:
    """Pixels with the id of their segment, and what the segments are."""
    pixels = np.zeros((*found.size, 3), dtype=np.uint8)
    segments: list[dict[str, Any]] = []
    for region, colour in zip(found.regions, distinct(len(found.regions)), strict=True):
        pixels[masks.decode(region.rle, found.size)] = colour
        segments.append(_segment(region, found, colour, numbers))
    return pixels, segments


def _segment(
    region: Region, found: Segmentation, colour: Colour, numbers: Numbers
) -> dict[str, Any]:
    red, green, blue = colour
    x1, y1, x2, y2 = masks.corners(region.rle, found.size)
    return {
        "id": red + 256 * green + 65536 * blue,
        "category_id": numbers.classes[region.label],
        "area": masks.area(region.rle, found.size),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "score": region.score,
    }


def _paletted(pixels: UInt8[np.ndarray, "H W"], shown: Sequence[Colour]) -> bytes:
    """A PNG of values with the colour of each."""
    image = Image.fromarray(pixels)
    rest = [(255, 255, 255)] * (256 - len(shown))
    image.putpalette([part for colour in [*shown, *rest] for part in colour])
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
