from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxed import SCENES, ids_of, write_coco
from scenes import guesses
from tiny import ListDataset, photo
from vitrail.data.open import open_labelled
from vitrail.errors import UserError
from vitrail.metrics.detection import detection_metrics
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers, below, new_folder
from vitrail.prediction_files import write_predictions
from vitrail.tasks.detect import DetectConfig
from vitrail.types import Detection

NAMES = ("ant hill", "cat", "dog")
IDS = (12, 3, 70)
TASK = DetectConfig(classes=NAMES, category_ids=IDS)


def labelled(folder: Path, numbering: str = "with gaps") -> tuple:
    """A COCO data set on the disk, and noisy answers for it with names of the classes."""
    write_coco(folder, SCENES, ids_of(NAMES, numbering))
    dataset = open_labelled(str(folder))
    rng = np.random.default_rng(0)
    rows = [
        Row(path, guesses(rng, target, dataset.classes, digits=4), size=target.size)
        for path, target in zip(dataset.ids, dataset.targets, strict=True)
    ]
    return dataset, rows


@pytest.mark.parametrize("numbering", ["from 0", "from 1", "with gaps"])
def test_coco_s_own_tools_score_the_file_equally(numbering: str, tmp_path: Path) -> None:
    """Whatever the classes of the model are called by number, the data's own numbers count."""
    dataset, rows = labelled(tmp_path / "data", numbering)
    out = tmp_path / "found.json"
    turned = DetectConfig(classes=("dog", "ant hill", "cat"), category_ids=(1, 2, 3))
    assert write_predictions(rows, out, Numbers.of(turned, dataset)) == (len(rows), 0)
    file = tmp_path / "data" / "annotations" / "boxes.json"
    table = json.loads(file.read_text())
    for row in table["annotations"]:
        row["id"] += 1  # pycocotools takes the annotation 0 for none
    file.write_text(json.dumps(table))
    truth = COCO(str(file))
    run = COCOeval(truth, truth.loadRes(str(out)), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    predictions = [row.prediction for row in rows]
    found = detection_metrics(predictions, dataset.targets, dataset.classes, intervals=False)
    assert 0.1 < found.metrics["map"] < 1
    figures = [found.metrics[name] for name in ("map", "map50", "map75", "mar_100")]
    assert figures == pytest.approx([run.stats[i] for i in (0, 1, 2, 8)], abs=1e-6)


def test_images_without_numbers_are_counted_and_the_file_says_how(tmp_path: Path) -> None:
    found = Detection(((1.5, 2.0, 4.0, 8.0),), ("cat",), (0.5,))
    rows = [
        Row("a.png", found, size=(20, 30)),
        Row("b.png", Detection((), (), ()), size=(8, 8)),
        Row("c.png", error="truncated"),
    ]
    dataset = ListDataset([photo(i) for i in range(3)], ids=["a.png", "b.png", "c.png"])
    out = tmp_path / "found.json"
    write_predictions(rows, out, Numbers.of(TASK, dataset))
    (result,) = json.loads(out.read_text())
    assert result == {"image_id": 1, "category_id": 3, "bbox": [1.5, 2, 2.5, 6], "score": 0.5}
    legend = json.loads((tmp_path / "found.images.json").read_text())
    assert legend["images"] == [
        {"id": 1, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 2, "file_name": "b.png", "height": 8, "width": 8},
        {"id": 3, "file_name": "c.png", "error": "truncated"},
    ]
    assert {row["name"]: row["id"] for row in legend["categories"]} == dict(
        zip(NAMES, IDS, strict=True)
    )
    coco = COCO(str(tmp_path / "found.images.json"))
    assert coco.loadRes(str(out)).getImgIds() == [1, 2, 3]


def test_numbers_of_classes() -> None:
    plain = ListDataset([photo(0)], ids=["a"])
    assert Numbers.of(TASK, plain).classes == {"ant hill": 12, "cat": 3, "dog": 70}
    unnumbered = DetectConfig(classes=NAMES)
    assert Numbers.of(unnumbered, plain).classes == {"ant hill": 1, "cat": 2, "dog": 3}
    plain.classes, plain.category_ids, plain.image_ids = ("dog", "owl"), (0, 4), [99]
    found = Numbers.of(TASK, plain)
    assert found.classes == {"ant hill": 5, "cat": 6, "dog": 0}, "5 and 6 are nobody else's"
    assert list(found.classes) == list(NAMES)
    assert found.images == {"a": 99}


def test_yolo_s_folder_is_read_back(tmp_path: Path) -> None:
    """Beside the images it is a data set with the same names and boxes."""
    dataset, rows = labelled(tmp_path / "data")
    rows[0] = Row(rows[0].path, error="truncated")
    folder = tmp_path / "out"
    assert write_predictions(rows, folder, Numbers.of(TASK, dataset)) == (4, 1)
    (folder / "images").symlink_to(tmp_path / "data" / "images")
    texts = sorted((folder / "labels").rglob("*.txt"))
    assert [file.stem for file in texts] == sorted(Path(row.path).stem for row in rows[1:])
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert errors == [{"path": rows[0].path, "error": "truncated"}]
    assert (folder / "data.yaml").read_text() == (
        'path: .\nnames:\n  0: "ant hill"\n  1: "cat"\n  2: "dog"\n'
    )
    for row in rows[1:]:
        lines = next(file for file in texts if file.stem == Path(row.path).stem).read_text()
        assert len(lines.splitlines()) == len(row.prediction.boxes)
        for line, box, label, score in zip(
            lines.splitlines(),
            row.prediction.boxes,
            row.prediction.labels,
            row.prediction.scores,
            strict=True,
        ):
            index, cx, cy, w, h, sure = map(float, line.split())
            height, width = row.size
            corners = [(cx - w / 2) * width, (cy - h / 2) * height]
            corners += [(cx + w / 2) * width, (cy + h / 2) * height]
            assert corners == pytest.approx(box)
            assert (NAMES[int(index)], sure) == (label, score)


def test_two_images_with_one_text_file_are_refused(tmp_path: Path) -> None:
    rows = [Row(path, Detection((), (), ()), size=(8, 8)) for path in ("d/a.png", "d/a.jpg")]
    numbers = Numbers({"cat": 0}, {})
    with pytest.raises(UserError, match=r"d/a\.jpg and d/a\.png would both be .*a\.txt"):
        write_predictions(rows, tmp_path / "out", numbers)


@pytest.mark.parametrize("name", ["full", "file"])
def test_a_folder_in_use_is_refused_before_anything_is_predicted(name: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give a new or empty folder"):
        new_folder(tmp_path / name)

    def rows() -> object:
        raise AssertionError("was asked")
        yield

    with pytest.raises(UserError, match="give a new or empty folder"):
        write_predictions(rows(), tmp_path / name, Numbers({}, {}))
    new_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    new_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (["a/b/x.png", "a/c/y.png"], ["b/x.png", "c/y.png"]),
        (["/r/ab/x.png", "/r/a/y.png"], ["ab/x.png", "a/y.png"]),
        (["x.png"], ["x.png"]),
        (["../d/x.png", "../d/e/y.png"], ["x.png", "e/y.png"]),
        (["/d/x.png", "e/y.png"], ["d/x.png", "e/y.png"]),
        ([], []),
    ],
)
def test_places_below_the_common_folder(paths: list[str], wanted: list[str]) -> None:
    assert below(paths) == [Path(path) for path in wanted]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    rows = [Row("a.png", Detection((), (), ()), size=(8, 8))]
    with pytest.raises(UserError, match=r"a\.txt: cannot write \(No space left on device\)"):
        write_predictions(rows, tmp_path / "out", Numbers({}, {}))
