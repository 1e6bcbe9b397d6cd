"""Findings that boxes and masks share."""

from __future__ import annotations

from pathlib import Path

from boxed import Scene, write_yolo
from vitrail.data.label_findings import file_findings, label_files, similar_names
from vitrail.data.open import open_source

SCENES = [Scene(f"{i:02}.png", (40, 60), [("cat", (3.0, 4.0, 20.0, 30.0))]) for i in range(12)]


def test_names_that_differ_by_case_or_space() -> None:
    (finding,) = similar_names(["cat", "owl", "Cat ", "c a t", "OWL"])
    assert [str(one) for one in finding.samples] == [
        "'cat' and 'Cat ' and 'c a t'",
        "'owl' and 'OWL'",
    ]
    assert finding.count == 2
    assert not list(similar_names(["cat", "cats", "owl"]))


def test_files_of_all_parts_are_told_once(tmp_path: Path) -> None:
    write_yolo(tmp_path, SCENES, {"cat": 0})
    (label,) = tmp_path.rglob("03.txt")
    (image,) = tmp_path.rglob("05.png")
    label.rename(label.with_name("odd.txt"))
    image.unlink()
    (files,) = label_files(open_source(str(tmp_path)).splits.values())
    found = {one.kind: one for one in file_findings(files, "label")}
    alone = found["unlabelled-image"]
    assert [Path(one.ids[0]).name for one in alone.samples] == ["03.png"]
    assert "1 image file without a label" in alone.message
    lost = found["label-without-image"]
    assert sorted(Path(one.ids[0]).name for one in lost.samples) == ["05.txt", "odd.txt"]
    assert "2 labels without an image" in lost.message
    assert "delete the labels" in lost.message
    (masks,) = (one for one in file_findings(files, "mask") if one.kind == "label-without-image")
    assert "delete the masks" in masks.message
