from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from boxed import Scene, write_coco
from vitrail.data.check import Report, check
from vitrail.data.class_balance import class_counts, label_names
from vitrail.data.findings import Finding
from vitrail.data.open import open_source
from vitrail.data.split import split
from vitrail.types import Box, Boxes, Corners

CAT: Corners = (3.0, 4.0, 20.0, 30.0)


def scenes(count: int = 30) -> list[Scene]:
    return [
        Scene(f"{i}.png", (40, 60), [("cat", CAT), ("dog", (i, 1, i + 20, 15))])
        for i in range(count)
    ]


def looked_at(
    root: Path, odd: Sequence[Scene] = (), names: Sequence[str] = ("cat", "dog")
) -> Report:
    ids = {name: number for number, name in enumerate(names)}
    write_coco(root, [*scenes(), *odd], ids)
    return check(open_source(str(root)))


def found(report: Report) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.findings}


def notes(finding: Finding) -> list[str]:
    return [str(example) for example in finding.samples]


def test_clean_boxes_have_no_findings(tmp_path: Path) -> None:
    report = looked_at(tmp_path, [Scene("empty.png", (40, 60), [])])
    assert report.findings == ()
    assert report.format == "COCO JSON"
    assert sum(part.classes["cat"] for part in report.counts.values()) == 30
    assert sum(part.objects["dog"] for part in report.counts.values()) == 30
    assert Report.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("kind", "corners", "note"),
    [
        ("unusable-box", (5, 5, 5, 9), "the box of 'cat' is empty (5, 5, 5, 9)"),
        ("unusable-box", (8, 5, 5, 9), "is inverted"),
        ("unusable-box", (60, 5, 70, 9), "lies outside the image of 60 x 40 pixels"),
        ("unusable-box", (float("nan"), 5, 70, 9), "no finite number"),
        ("clipped-box", (50, 5, 63, 9), "sticks out of the image by 3 pixels"),
        ("tiny-box", (5, 5, 6.5, 9), "'cat' at (5, 5, 6.5, 9)"),
        ("", (50, 5, 60.5, 9), ""),
        ("", (5, 5, 7, 9), ""),
        ("", (0, 0, 60, 40), ""),
    ],
)
def test_absurd_boxes(tmp_path: Path, kind: str, corners: Corners, note: str) -> None:
    finding = found(looked_at(tmp_path, [Scene("odd.png", (40, 60), [("cat", corners)])]))
    assert set(finding) == ({kind} if kind else set())
    if kind:
        (said,) = notes(finding[kind])
        assert said.startswith("images/odd.png: ")
        assert note in said
        assert finding[kind].severity == "warning"


def test_repeated_boxes(tmp_path: Path) -> None:
    moved = (CAT[0] + 0.2, *CAT[1:])
    odd = Scene(
        "odd.png", (40, 60), [("cat", CAT), ("cat", moved), ("dog", CAT), ("dog", (1, 1, 9, 9))]
    )
    finding = found(looked_at(tmp_path, [odd]))
    assert notes(finding["repeated-box"]) == [
        "images/odd.png: 'cat' and 'cat' and 'dog' at (3, 4, 20, 30)"
    ]


def test_boxes_around_everything(tmp_path: Path) -> None:
    odd = [Scene(f"odd{i}.png", (40, 60), [("cat", (0, 0, 60, 39))]) for i in range(5)]
    assert found(looked_at(tmp_path / "many", odd))["huge-box"].count == 5
    assert not found(looked_at(tmp_path / "few", odd[:2]))


def test_names_that_differ_by_case_or_space(tmp_path: Path) -> None:
    odd = [Scene(f"o{i}.png", (40, 60), [(("Cat ", "dog")[i % 2], CAT)]) for i in range(40)]
    finding = found(looked_at(tmp_path, odd, names=("cat", "dog", "Cat ")))["similar-names"]
    assert notes(finding) == ["'cat' and 'Cat '"]
    assert finding.severity == "error"


def test_classes_that_are_not_used(tmp_path: Path) -> None:
    finding = found(looked_at(tmp_path, names=("cat", "dog", "owl")))["empty-class"]
    assert finding.severity == "warning", "COCO's 80 names are kept where five are used"


def test_files(tmp_path: Path) -> None:
    root = tmp_path / "data"
    odd = Scene("odd.png", (40, 60), [("cat", CAT)])
    other = Scene("other.png", (50, 60), [("cat", CAT)])
    write_coco(root, [*scenes(), odd, other], {"cat": 0, "dog": 1})
    images = root / "images"
    (images / "other.png").replace(images / "free.png")
    (images / "odd.png").replace(images / "other.png")
    report = check(open_source(str(root)))
    finding = found(report)
    assert set(finding) == {"unreadable", "wrong-size", "unlabelled-image"}
    assert notes(finding["unreadable"]) == ["images/odd.png: the file is missing"]
    assert notes(finding["wrong-size"]) == [
        "images/other.png: labelled as 60 x 50, but it is 60 x 40"
    ]
    assert finding["wrong-size"].severity == "error"
    assert notes(finding["unlabelled-image"]) == ["images/free.png"]
    assert "left out" in finding["unlabelled-image"].message


def test_names_of_targets() -> None:
    boxes = Boxes((Box(CAT, 1), Box(CAT, 0), Box(CAT, 1), Box(CAT, 0, crowd=True)))
    assert label_names(boxes, ("cat", "dog")) == ("1 cat", "2 dog")
    assert label_names(Boxes(), ("cat", "dog")) == ()


def test_every_class_keeps_a_training_sample(tmp_path: Path) -> None:
    rare = [Scene(f"rare{i}.png", (40, 60), [(f"rare {i}", CAT)]) for i in range(12)]
    names = ["cat", "dog", *(f"rare {i}" for i in range(12))]
    write_coco(tmp_path, [*scenes(), *rare], {name: number for number, name in enumerate(names)})
    for seed in range(4):
        source = open_source(str(tmp_path), seed=seed)
        assert all(class_counts(source.splits["train"]).classes.values())
        assert all(len(part) for part in source.splits.values())
        parts = split(source.splits["train"], seed=seed, test=0.5, val=0.0)
        assert all(class_counts(parts["train"]).classes.values())


def test_blood_cells(shared_data: Path) -> None:
    """The set's two boxes without area, and nothing else that is wrong with boxes."""
    source = open_source(str(shared_data / "bccd"))
    report = check(source)
    finding = found(report)
    assert set(finding) == {"near-leak", "unusable-box"}
    assert finding["unusable-box"].count == 2
    assert {note.split(":")[0] for note in notes(finding["unusable-box"])} == {
        "JPEGImages/BloodImage_00338.jpg",
        "JPEGImages/BloodImage_00343.jpg",
    }
    assert report.counts["train"].objects["RBC"] > 2000
