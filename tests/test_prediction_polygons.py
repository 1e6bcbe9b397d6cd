from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as tools
from pycocotools.coco import COCO

from masked import SIZE, objects_of
from tiny import photo
from vitrail import masks
from vitrail.data.open import open_labelled
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers
from vitrail.prediction_files import write_predictions
from vitrail.prediction_masks import MaskForm

NAMES = ("ant hill", "cat")
PATHS = ["in/a.png", "in/b/c.png"]


def form_of(*, things: bool = True) -> MaskForm:
    numbers = Numbers(dict(zip(NAMES, (12, 3), strict=True)), dict(zip(PATHS, (7, 8), strict=True)))
    return MaskForm(numbers, "instance", things=frozenset(NAMES * things), polygons=True)


def rows() -> list[Row]:
    return [Row(p, objects_of(i, 6, NAMES), size=SIZE) for i, p in enumerate(PATHS)]


def test_coco_s_tools_fill_the_outlines_to_the_same_masks(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    write_predictions(rows(), out, form_of())
    coco = COCO(str(out))
    for image, row in zip((7, 8), rows(), strict=True):
        found = coco.loadAnns(coco.getAnnIds(image))
        for one, region in zip(found, row.prediction.regions, strict=True):
            assert np.array_equal(coco.annToMask(one), masks.decode(region.rle, SIZE))
            assert one["area"] == coco.annToMask(one).sum()
            assert coco.cats[one["category_id"]]["name"] == region.label
            assert one["score"] == region.score


@pytest.mark.parametrize("things", [True, False])
def test_yolo_s_rows(things: bool, tmp_path: Path) -> None:
    """An object is a row, whatever its parts; a class has a row for each part."""
    folder = tmp_path / "out"
    bad = Row("in/bad.png", error="truncated")
    write_predictions([*rows(), bad], folder, form_of(things=things))
    assert json.loads((folder / "errors.jsonl").read_text())["path"] == "in/bad.png"
    for place, row in zip(("a.txt", "b/c.txt"), rows(), strict=True):
        lines = (folder / "labels" / place).read_text().splitlines()
        regions = row.prediction.regions
        assert len(lines) == len(regions) if things else len(lines) > len(regions)
        union = {name: np.zeros(SIZE, dtype=bool) for name in NAMES}
        for number, line in enumerate(lines):
            index, *shares = line.split()
            points = (np.array(shares, dtype=float).reshape(-1, 2) * SIZE[::-1]).ravel().tolist()
            mask = tools.decode(tools.frPyObjects([points], *SIZE))[..., 0].astype(bool)
            union[NAMES[int(index)]] |= mask
            if things:
                assert np.array_equal(mask, masks.decode(regions[number].rle, SIZE))
        for name in NAMES:
            every = [region.rle for region in regions if region.label == name]
            assert np.array_equal(union[name], masks.decode(masks.union(every, SIZE), SIZE))


def test_the_folder_is_read_back(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "out"
    write_predictions(rows(), folder, form_of())
    for i, place in enumerate(("a.png", "b/c.png")):
        file = folder / "images" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i, *SIZE).permute(1, 2, 0).numpy()).save(file)
    dataset = open_labelled(str(folder), task="segment")
    assert dataset.segments == "instance"
    for name, target in zip(dataset.ids, dataset.targets, strict=True):
        found = rows()[0 if name.endswith("a.png") else 1].prediction
        expected = sorted((r.label, masks.decode(r.rle, SIZE).tobytes()) for r in found.regions)
        ours = sorted(
            (dataset.classes[label], (target.ids == number).any(dim=0).numpy().tobytes())
            for number, label in enumerate(target.labels, 1)
        )
        assert ours == expected
