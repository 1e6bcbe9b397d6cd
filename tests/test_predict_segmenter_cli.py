"""What a segmenter predicts, from the command line to every format and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxed import SCENES, ids_of, write_coco
from command_line import Run, refused
from masked import tiny_segmenter
from vitrail import masks
from vitrail.weights.modelfile import Provenance, save_model

NAMES = ("ant hill", "cat", "dog")
MORE = ("--batch-size", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set, a segmenter of its classes and one of one class."""
    folder = tmp_path_factory.mktemp("segment")
    write_coco(folder / "coco", SCENES, ids_of(NAMES, "with gaps"))
    save_model(tiny_segmenter(NAMES), folder / "m.safetensors", Provenance())
    save_model(tiny_segmenter(("road",)), folder / "one.safetensors", Provenance())
    return folder


def test_every_format_says_the_same(run: Run, folder: Path, tmp_path: Path) -> None:
    model, images = folder / "m.safetensors", folder / "coco" / "images"
    for name in ("p.jsonl", "p.csv", "p.json", "masks"):
        answer = run("predict", model, images, "--out", tmp_path / name, "--json", *MORE)
        assert answer.json == {"out": str(tmp_path / name), "count": 4, "errors": 0}, answer.err
    run("predict", model, images, "--out", tmp_path / "o.json", "--polygons", *MORE)
    run("predict", model, images, "--out", tmp_path / "yolo", "--polygons", *MORE)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    segments = [segment for line in lines for segment in line["segments"]]
    results = json.loads((tmp_path / "p.json").read_text())
    assert [one["segmentation"] for one in results] == [one["rle"] for one in segments]
    outlines = json.loads((tmp_path / "o.json").read_text())["annotations"]
    assert [one["area"] for one in outlines] == [one["area"] for one in segments]
    for line in lines:
        stem = Path(line["path"]).stem
        with Image.open(tmp_path / "masks" / "masks" / f"{stem}.png") as image:
            values = np.array(image)
        for segment in line["segments"]:
            size = segment["rle"]["size"]
            mask = masks.decode(segment["rle"]["counts"].encode(), (size[0], size[1]))
            assert np.array_equal(values == 1 + NAMES.index(segment["label"]), mask)
        rows = (tmp_path / "yolo" / "labels" / f"{stem}.txt").read_text().splitlines()
        assert len(rows) >= len(line["segments"])
    names = (tmp_path / "masks" / "classes.txt").read_text()
    assert names == "background\nant hill\ncat\ndog\n"


def test_drawn_and_printed(run: Run, folder: Path, tmp_path: Path) -> None:
    model, images = folder / "m.safetensors", folder / "coco" / "images"
    answer = run("predict", model, images, "--draw", tmp_path / "drawn", *MORE)
    assert answer.code == 0, answer.err
    assert "%" in answer.out
    for scene in SCENES:
        with Image.open(tmp_path / "drawn" / scene.file) as drawn:
            assert drawn.height > scene.size[0], "the legend is below"


def test_a_threshold_decides_of_one_class(run: Run, folder: Path, tmp_path: Path) -> None:
    model, images = folder / "one.safetensors", folder / "coco" / "images"
    areas: list[int] = []
    for threshold in (0, 0.5, 0.9, 1):
        out = tmp_path / f"{threshold}.json"
        run("predict", model, images, "--out", out, "--threshold", threshold, *MORE)
        sizes = [masks.area(*_rle(one)) for one in json.loads(out.read_text())]
        areas.append(sum(sizes))
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[3] == 0
    run("predict", model, images, "--out", tmp_path / "own.json", *MORE)
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "0.5.json").read_bytes()


def _rle(one: dict) -> tuple[bytes, tuple[int, int]]:
    height, width = one["segmentation"]["size"]
    return one["segmentation"]["counts"].encode(), (height, width)


def test_what_is_refused_before_any_work(run: Run, folder: Path, tmp_path: Path) -> None:
    model, images = folder / "m.safetensors", folder / "coco" / "images"
    refused(run("predict", model, images, "--slice", 9), "resize.kind = 'tiles'")
    refused(run("predict", model, images, "--threshold", 0.5), "most probable class")
    refused(run("predict", model, images, "--polygons"), "say where with --out")
    out = tmp_path / "p.csv"
    refused(run("predict", model, images, "--polygons", "--out", out), "written as .json")
    refused(run("predict", model, images, "--out", tmp_path / "p.txt"), "index PNGs")
    refused(run("predict", model, images, "--out", images), "new or empty folder")


def test_a_coco_data_set_keeps_its_numbers(run: Run, folder: Path, tmp_path: Path) -> None:
    """Its own ids of images and classes, which its own file is scored by."""
    data, model = tmp_path / "data", folder / "m.safetensors"
    write_coco(data, SCENES, ids_of(NAMES, "with gaps"))
    file = data / "annotations" / "boxes.json"
    table = json.loads(file.read_text())
    for row in table["annotations"]:
        x, y, width, height = row["bbox"]
        corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        row["segmentation"] = [[part for corner in corners for part in corner]]
    file.write_text(json.dumps(table))
    for number, given in enumerate((data, file)):
        out = tmp_path / f"{number}.json"
        answer = run("predict", model, given, "--out", out, *MORE)
        assert "its 4 images" in answer.err, answer.err
        results = json.loads(out.read_text())
        assert {one["image_id"] for one in results} == {10, 11, 12, 13}
        assert {one["category_id"] for one in results} <= {3, 8, 13}
    found = run(
        "evaluate", model, data, "--split", "all", "--json", "--out", tmp_path / "e.json", *MORE
    )
    assert found.code == 0, found.err
    assert (tmp_path / "e.json").read_bytes() == (tmp_path / "0.json").read_bytes()
