"""What a detector predicts, from the command line to every format and back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from boxed import SCENES, ids_of, write_coco
from command_line import Run, refused
from scenes import tiny_detector
from tiny import tiny_model
from vitrail.weights.modelfile import Provenance, save_model

NAMES = ("ant hill", "cat", "dog")
MORE = ("--batch-size", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    return save_model(tiny_detector(NAMES), path, Provenance())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "coco"
    write_coco(folder, SCENES, ids_of(NAMES, "with gaps"))
    return folder


def test_every_format_says_the_same(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    for name in ("p.jsonl", "p.csv", "p.json", "yolo"):
        answer = run("predict", model, data, "--out", tmp_path / name, "--json", *MORE)
        assert answer.json == {"out": str(tmp_path / name), "count": 4, "errors": 0}, answer.err
        assert "its 4 images" in answer.err
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    scores = [score for line in lines for score in line["scores"]]
    assert len(scores) == 4 * 6, "files have all that the model gives"
    with (tmp_path / "p.csv").open(newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == scores
    results = json.loads((tmp_path / "p.json").read_text())
    assert [row["score"] for row in results] == scores
    assert {row["image_id"] for row in results} == {10, 11, 12, 13}
    assert {row["category_id"] for row in results} <= {3, 8, 13}
    written = [file.read_text() for file in sorted((tmp_path / "yolo").rglob("*.txt"))]
    assert sorted(float(line.split()[5]) for text in written for line in text.splitlines()) == (
        sorted(scores)
    )


def test_evaluate_writes_the_same(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    run("predict", model, data, "--out", tmp_path / "a.json", *MORE)
    found = run("evaluate", model, data, "--split", "all", "--out", tmp_path / "b.json", *MORE)
    assert found.code == 0, found.err
    assert "map50" in found.out
    assert "ant hill" in found.out
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_drawn_and_printed_above_the_threshold(
    run: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    images, drawn = data / "images", tmp_path / "drawn"
    answer = run("predict", model, images, "--draw", drawn, "--threshold", 1, *MORE)
    assert answer.code == 0, answer.err
    assert answer.out.count("(nothing)") == 4
    assert "4 drawn images" in answer.err
    for scene in SCENES:
        before, after = (Image.open(f / scene.file) for f in (images, drawn))
        assert before.tobytes() == after.tobytes(), "nothing is sure enough to be drawn"
    out = tmp_path / "p.jsonl"
    run("predict", model, images, "--out", out, "--threshold", 0.999, *MORE)
    assert all(
        score >= 0.999
        for line in out.read_text().splitlines()
        for score in json.loads(line)["scores"]
    )
    refused(run("predict", model, images, "--draw", images, *MORE), "new or empty folder")


def test_tiles(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    one = data / "images" / "one.png"
    plain, large, small = (tmp_path / f"{name}.jsonl" for name in ("plain", "large", "small"))
    run("predict", model, one, "--out", plain, *MORE)
    run("predict", model, one, "--out", large, "--slice", 60, *MORE)
    run("predict", model, one, "--out", small, "--slice", 24, "--overlap", 0.5, *MORE)
    assert plain.read_bytes() == large.read_bytes() != small.read_bytes()
    found = json.loads(small.read_text())
    assert all(0 <= x1 <= x2 <= 60 and 0 <= y1 <= y2 <= 40 for x1, y1, x2, y2 in found["boxes"])


def test_what_a_classifier_cannot(run: Run, data: Path, tmp_path: Path) -> None:
    model = save_model(tiny_model(), tmp_path / "c.safetensors", Provenance())
    for option in (("--draw", tmp_path / "d"), ("--slice", 9), ("--threshold", 0.1)):
        refused(run("predict", model, data / "images", *option), "finds no objects")
    refused(run("predict", model, data / "images", "--out", tmp_path / "p.json"), ".parquet")
    assert not (tmp_path / "d").exists()


def test_what_is_refused_before_any_work(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    refused(run("predict", model, data, "--out", both, "--draw", both), "as --out and as --draw")
    refused(run("predict", model, data, "--threshold", "nan"), "give a score from 0 to 1")
