"""What `check` says of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Run
from mask_formats import SCENES, Scene, coco_writer
from vitrail.data.check import Report, check
from vitrail.data.open import open_source

SIZE = (32, 40)
COUNT = 12


def write(folder: Path, count: int = COUNT) -> Path:
    """Noise with a square each, all different."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{index:02}.png")
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[2 : 12 + index, 3 : 20 + index] = 255
        put(folder, index, mask)
    return folder


def put(folder: Path, index: int, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(folder / "masks" / f"{index:02}.png")


def report(folder: Path) -> Report:
    return check(open_source(str(folder)))


def named(found: Report, kind: str) -> tuple[str, str]:
    """How bad it is, and everything that is said of it."""
    (finding,) = [one for one in found.findings if one.kind == kind]
    return finding.severity, f"{finding.message} {finding.samples}"


def test_good_masks_have_no_findings(tmp_path: Path) -> None:
    assert report(write(tmp_path / "data")).findings == ()


def test_masks_of_another_size(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    put(data, 3, np.full((10, 10), 255, dtype=np.uint8))
    severity, text = named(report(data), "wrong-size")
    assert severity == "error"
    assert "03.png" in text
    assert "10" in text


def test_values_outside_the_classes(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    (data / "classes.txt").write_text("background\nsquare\n", encoding="utf-8")
    for index in range(COUNT):
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[2 : 12 + index, 3:20] = 1
        put(data, index, mask)
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[:9] = 7
    put(data, 5, mask)
    severity, text = named(report(data), "unknown-value")
    assert severity == "error"
    assert "05.png" in text
    assert "7" in text


def test_empty_masks_are_said_and_no_error(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    put(data, 1, np.zeros(SIZE, dtype=np.uint8))
    severity, text = named(report(data), "empty-mask")
    assert severity == "info"
    assert "01.png" in text


def test_a_mask_of_several_images(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    (data / "masks" / "07.png").write_bytes((data / "masks" / "06.png").read_bytes())
    severity, text = named(report(data), "repeated-mask")
    assert severity == "warning"
    assert "06.png" in text
    assert "07.png" in text


def test_specks(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[2:20, 2:20] = 255
    mask[30, 30] = 255
    put(data, 2, mask)
    severity, text = named(report(data), "speck")
    assert severity == "info"
    assert "02.png" in text


def test_files_without_their_other_half(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    (data / "masks" / "04.png").unlink()
    (data / "images" / "08.png").unlink()
    found = report(data)
    assert "04.png" in named(found, "unlabelled-image")[1]
    assert "08.png" in named(found, "label-without-image")[1]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken"])
def test_masks_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    data = write(tmp_path / "data")
    (data / "masks" / "05.png").write_bytes(content)
    found = report(data)
    assert any("05.png" in str(one.samples) for one in found.findings)
    assert found.counts["train"].samples


def test_a_line_a_case(run: Run, tmp_path: Path) -> None:
    """Names may hold line breaks; what is no fault by itself is no reason to fail."""
    data = write(tmp_path / "data")
    put(data, 3, np.zeros(SIZE, dtype=np.uint8))
    answer = run("check", data)
    assert answer.code == 0, answer.err
    assert "info: 1 mask without any segment" in answer.out
    assert "foreground" in answer.out
    assert answer.out.endswith("nothing found\n")
    for kind in ("images", "masks"):
        (data / kind / "04.png").rename(data / kind / "a\nb.png")
    (data / "masks" / "a\nb.png").write_bytes(b"")
    answer = run("check", data)
    assert answer.code == 1
    assert "    images/a b.png: the mask masks/a b.png: the file is empty\n" in answer.out


def test_outlines_are_what_they_are_wanted_for(run: Run, tmp_path: Path) -> None:
    scenes = [Scene(f"{i}{s.stem}", s.size, s.objects) for i in range(4) for s in SCENES]
    coco_writer("polygon")(tmp_path, scenes)
    found = run("check", tmp_path, "--task", "segment", "--json").json
    assert found["format"] == "COCO JSON of masks"
    counts = found["counts"].values()
    assert sum(part["objects"]["house"] for part in counts) == 12
    assert all(part["pixels"]["house"] > 0 for part in counts if part["classes"]["house"])
    assert run("check", tmp_path, "--json").json["format"] != found["format"]


def test_a_class_that_train_does_not_show(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    source = open_source(str(data))
    for split in ("val", "test"):
        for name in source.splits[split].ids:
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[4:20, 4 : 20 + int(Path(name).stem)] = 2
            put(data, int(Path(name).stem), mask)
    for name in source.splits["train"].ids:
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[5:20, 4 : 20 + int(Path(name).stem)] = 1
        put(data, int(Path(name).stem), mask)
    severity, text = named(report(data), "not-in-train")
    assert severity == "error"
    assert "class 2 (in val and test)" in text


def test_one_picture_with_two_masks(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    first = (data / "images" / "00.png").read_bytes()
    (data / "images" / "01.png").write_bytes(first)
    severity, text = named(report(data), "conflicting-labels")
    assert severity == "error"
    assert "with masks that differ" in text
