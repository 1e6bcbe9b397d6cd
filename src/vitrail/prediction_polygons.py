"""Outlines of masks for tools that draw and learn from polygons: a COCO data set, YOLO's rows.

Outlines run along the edges of pixels (`contours`), so that a polygon filled by COCO's own tools is
the mask again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail import masks
from vitrail.contours import Ring, one_outline, outlines
from vitrail.predict import Row
from vitrail.prediction_boxes import NewFolder, Numbers, coco_table, label_files, write_yolo_names
from vitrail.prediction_masks import MaskForm, answered
from vitrail.types import Region, Segmentation
from vitrail.weights.modelfile import write_atomically


def write_coco_polygons(rows: Sequence[Row], out: Path, numbers: Numbers) -> None:
    """Write a COCO data set: images, annotations with polygons and `score`, categories.

    Results for COCO's own scoring have run lengths alone; this is what tools for labelling open.
    Each part of a region is a polygon. A hole is joined to the polygon around it by a cut of no
    width.
    """
    annotations = [
        {"id": number, **annotation}
        # COCO's tools take the annotation 0 for none.
        for number, annotation in enumerate(
            (
                {"image_id": numbers.images[row.path], **_annotation(region, found, numbers)}
                for row, found in answered(rows)
                for region in found.regions
            ),
            start=1,
        )
    ]
    text = json.dumps(coco_table(rows, numbers, annotations), ensure_ascii=False)
    write_atomically(out, text.encode())


def write_yolo_polygons(rows: Sequence[Row], folder: Path, form: MaskForm) -> None:
    """Write `labels/<image>.txt`, `data.yaml` with the names, and `errors.jsonl` if there are any.

    A line is an object: class from 0, then x and y of corner after corner as shares of the image;
    there is no place for a score. The format has one outline an object: its parts and holes are
    joined by cuts of no width. Of a class that is no object each part has its own line.

    Raises:
        UserError: two images would have the same text file, or no room on the disk.
    """
    index = {name: i for i, name in enumerate(form.numbers.classes)}
    files = label_files(rows, ".txt")
    with NewFolder(folder) as out:
        for place, row in files.items():
            if not isinstance(row.prediction, Segmentation):
                continue
            found = row.prediction
            lines = [
                " ".join([str(index[region.label]), *_shares(ring, found)]) + "\n"
                for region in found.regions
                for ring in _outlines(region, found, whole=region.label in form.things)
            ]
            out.write(Path("labels") / place, "".join(lines).encode())
        write_yolo_names(rows, out, form.numbers)


def _annotation(region: Region, found: Segmentation, numbers: Numbers) -> dict[str, Any]:
    x1, y1, x2, y2 = masks.corners(region.rle, found.size)
    rings = outlines(masks.decode(region.rle, found.size))
    return {
        "category_id": numbers.classes[region.label],
        "segmentation": [ring.ravel().tolist() for ring in rings],
        "area": masks.area(region.rle, found.size),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "score": region.score,
    }


def _outlines(region: Region, found: Segmentation, *, whole: bool) -> list[Ring]:
    mask = masks.decode(region.rle, found.size)
    rings = [one_outline(mask)] if whole else outlines(mask)
    return [ring for ring in rings if len(ring)]


def _shares(ring: Ring, found: Segmentation) -> list[str]:
    height, width = found.size
    return [str(share) for x, y in ring.tolist() for share in (x / width, y / height)]
