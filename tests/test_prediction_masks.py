from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from masked import SIZE, blobs, objects_of, regions_of
from tiny import ListDataset, photo
from vitrail import masks
from vitrail.data.open import open_labelled
from vitrail.errors import UserError
from vitrail.metrics.segmentation import segmentation_metrics
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers
from vitrail.prediction_files import SEGMENT_COLUMNS, write_predictions
from vitrail.prediction_masks import MaskForm
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import MatchedQueriesReadout
from vitrail.types import VOID, Region, Segmentation, Segments

NAMES = ("ant hill", "cat", "dog")
PATHS = ["in/a.png", "in/b/a.jpg", "in/c.png", "in/bad.png"]


def form_of(answer: str = "semantic", *, background: bool = True, **more: bool) -> MaskForm:
    images = {path: 10 * i for i, path in enumerate(PATHS, 1)}
    things = {"semantic": (), "instance": NAMES, "panoptic": ("cat",)}[answer]
    numbers = Numbers({"ant hill": 12, "cat": 3, "dog": 70}, images)
    return MaskForm(numbers, answer, background, frozenset(things), **more)


def some(low: int = 0) -> tuple[list[np.ndarray], list[Row]]:
    """Values of pixels from `low` on, where 0 is no class, and rows with them."""
    values = [np.maximum(blobs(seed, 3), low) for seed in range(3)]
    values[2][:] = low  # nothing is on it, or one class
    rows = [Row(p, regions_of(v, NAMES), size=SIZE) for p, v in zip(PATHS, values, strict=False)]
    return values, [*rows, Row(PATHS[3], error="truncated")]


def pixels_of(target: Segments, classes: tuple[str, ...]) -> np.ndarray:
    """The class of each pixel: 0 is none, 255 is not judged."""
    found = np.zeros(target.size, dtype=int)
    for number, label in enumerate(target.labels, 1):
        value = 255 if label == VOID else 1 + NAMES.index(classes[label])
        found[(target.ids == number).any(dim=0).numpy()] = value
    return found


@pytest.mark.parametrize("background", [True, False])
def test_beside_the_images_index_pngs_are_a_data_set(background: bool, tmp_path: Path) -> None:
    values, rows = some(low=int(not background))
    folder = tmp_path / "out"
    assert write_predictions(rows, folder, form_of(background=background)) == (4, 1)
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.*")}
    masks_written = {"masks/a.png", "masks/b/a.png", "masks/c.png"}
    assert names == masks_written | {"classes.txt", "errors.jsonl"}
    for place, expected in zip(("a.png", "b/a.png", "c.png"), values, strict=True):
        with Image.open(folder / "masks" / place) as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), expected - (not background))
            # The image itself, beside its mask.
            file = folder / "images" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            mask.convert("RGB").save(file)
    dataset = open_labelled(str(folder), task="segment")
    assert (dataset.segments, dataset.background) == ("semantic", background)
    assert dataset.classes == NAMES
    for name, target in zip(dataset.ids, dataset.targets, strict=True):
        place = name.partition("images/")[2]
        expected = values[("a.png", "b/a.png", "c.png").index(place)]
        assert np.array_equal(pixels_of(target, dataset.classes), expected)


def test_a_pixel_of_no_region_is_nothing(tmp_path: Path) -> None:
    values, rows = some()
    write_predictions(rows[:1], tmp_path / "out", form_of(background=False))
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert np.array_equal(np.array(mask), np.where(values[0] == 0, 255, values[0] - 1))


def test_two_images_with_one_mask_are_refused(tmp_path: Path) -> None:
    found = regions_of(blobs(0, 3), NAMES)
    rows = [Row(path, found, size=SIZE) for path in ("d/a.png", "d/a.jpg")]
    with pytest.raises(UserError, match=r"d/a\.jpg and d/a\.png would both be a\.png"):
        write_predictions(rows, tmp_path / "out", form_of())
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(file: Path, data: bytes) -> int:
        if file.name == "c.png":
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(UserError, match=r"c\.png: cannot write \(No space left on device\)"):
            write_predictions(some()[1], tmp_path / name, form_of())
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "empty").iterdir()), "a folder that was there stays"


def test_more_classes_than_values(tmp_path: Path) -> None:
    images = ListDataset([photo(0)], ids=["a"])
    for background, most in ((True, 254), (False, 255)):
        names = tuple(f"c{i}" for i in range(most + 1))
        task = SegmentConfig(classes=names, background=background)
        with pytest.raises(UserError, match=f"values for {most} classes, .* {most + 1}; write"):
            MaskForm.of(task, images).check(tmp_path / "out")
        MaskForm.of(task, images).check(tmp_path / "out.json")
        MaskForm.of(task, images, polygons=True).check(tmp_path / "out")
        fewer = SegmentConfig(classes=names[1:], background=background)
        MaskForm.of(fewer, images).check(tmp_path / "out")


def test_coco_s_own_tools_read_and_score_run_lengths(tmp_path: Path) -> None:
    """Objects against themselves score 1; a legend says what numbers mean."""
    rows = [Row(p, objects_of(i, 5, NAMES), size=SIZE) for i, p in enumerate(PATHS[:3])]
    rows.append(Row(PATHS[3], error="truncated"))
    out, truth = tmp_path / "found.json", tmp_path / "truth.json"
    assert write_predictions(rows, out, form_of("instance")) == (4, 1)
    results = json.loads(out.read_text())
    regions = [region for row in rows[:3] for region in row.prediction.regions]
    assert [one["segmentation"]["counts"] for one in results] == [r.rle.decode() for r in regions]
    write_predictions(rows, truth, form_of("instance", polygons=True))
    table = json.loads(truth.read_text())
    for image in table["images"]:
        image.setdefault("height", 1), image.setdefault("width", 1)
    truth.write_text(json.dumps(table))
    coco = COCO(str(truth))
    run = COCOeval(coco, coco.loadRes(str(out)), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert run.stats[0] == pytest.approx(1)
    legend = json.loads((tmp_path / "found.images.json").read_text())
    assert legend["images"][0] == {"id": 10, "file_name": "in/a.png", "height": 20, "width": 30}
    assert legend["images"][3] == {"id": 40, "file_name": "in/bad.png", "error": "truncated"}


def test_coco_s_own_tools_score_the_file_as_we_do(tmp_path: Path) -> None:
    """Objects of a COCO data set, read by us; answers near them, as our file and as our rows."""
    true = [Row(p, objects_of(i, 6, NAMES), size=SIZE) for i, p in enumerate(PATHS[:3])]
    truth, out = tmp_path / "in" / "truth.json", tmp_path / "found.json"
    write_predictions(true, truth, form_of("instance", polygons=True))
    for i, path in enumerate(PATHS[:3]):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i, *SIZE).permute(1, 2, 0).numpy()).save(file)
    dataset = open_labelled(str(tmp_path / "in"), task="segment")
    assert dataset.segments == "instance"
    rows = [
        Row(name, _near(target, dataset.classes, i), size=SIZE)
        for i, (name, target) in enumerate(zip(dataset.ids, dataset.targets, strict=True))
    ]
    task = SegmentConfig(classes=NAMES, answer="instance", readout=MatchedQueriesReadout())
    write_predictions(rows, out, MaskForm.of(task, dataset))
    coco = COCO(str(truth))
    run = COCOeval(coco, coco.loadRes(str(out)), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    found = segmentation_metrics(
        [row.prediction for row in rows],
        list(dataset.targets),
        dataset.classes,
        answer="instance",
        background=True,
        intervals=False,
    )
    assert 0.1 < found.metrics["mask_map"] < 1
    figures = [found.metrics["mask_map"], found.metrics["mask_map50"]]
    assert figures == pytest.approx(run.stats[:2].tolist(), abs=1e-6)


def _near(target: Segments, classes: tuple[str, ...], seed: int) -> Segmentation:
    """Answers that miss some pixels of the objects, and sometimes their class."""
    rng = np.random.default_rng(seed)
    found: list[Region] = []
    for number, label in enumerate(target.labels, 1):
        mask = (target.ids == number).any(dim=0).numpy()
        said = classes[label if rng.random() < 0.8 else rng.integers(len(classes))]
        kept = mask & (rng.random(mask.shape) < rng.uniform(0.5, 1))
        found.append(Region(said, round(float(rng.random()), 3), masks.encode(kept)))
    return Segmentation(target.size, tuple(found))


def test_panoptic_pngs(tmp_path: Path) -> None:
    values, rows = some()
    folder = tmp_path / "out"
    write_predictions(rows, folder, form_of("panoptic"))
    table = json.loads((folder / "panoptic.json").read_text())
    assert {row["name"]: row["isthing"] for row in table["categories"]} == {
        "ant hill": 0,
        "cat": 1,
        "dog": 0,
    }
    assert [row["image_id"] for row in table["annotations"]] == [10, 20, 30]
    numbers = {12: 1, 3: 2, 70: 3}
    for annotation, expected in zip(table["annotations"], values, strict=True):
        with Image.open(folder / "panoptic" / annotation["file_name"]) as image:
            ids = np.array(image).astype(int) @ [1, 256, 65536]
        found = np.zeros(SIZE, dtype=int)
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            assert mask.sum() == segment["area"] > 0
            left, top, width, height = map(int, segment["bbox"])
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            found[mask] = numbers[segment["category_id"]]
        assert np.array_equal(found, expected)
    assert json.loads((folder / "errors.jsonl").read_text())["path"] == "in/bad.png"


def test_beside_the_images_panoptic_pngs_are_a_data_set(tmp_path: Path) -> None:
    values, rows = some(low=1)
    rows = [replace(row, path=row.path.replace("b/a", "b/d")) for row in rows[:3]]
    images = {row.path: number for row, number in zip(rows, (10, 20, 30), strict=True)}
    form = form_of("panoptic")
    form = replace(form, numbers=replace(form.numbers, images=images))
    write_predictions(rows, tmp_path / "out", form)
    for i, place in enumerate(("a.png", "b/d.jpg", "c.png")):
        file = tmp_path / "out" / "images" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i, *SIZE).permute(1, 2, 0).numpy()).save(file)
    dataset = open_labelled(str(tmp_path / "out"), task="segment")
    assert dataset.segments == "panoptic"
    assert set(zip(dataset.classes, dataset.things, strict=True)) == {
        ("ant hill", False),
        ("cat", True),
        ("dog", False),
    }
    assert list(dataset.image_ids) == [10, 20, 30]
    for target, expected in zip(dataset.targets, values, strict=True):
        assert np.array_equal(pixels_of(target, dataset.classes), expected)


def test_many_segments_have_ids_of_their_own(tmp_path: Path) -> None:
    size = (20, 30)
    pixels = np.arange(600).reshape(size)
    found = Segmentation(
        size, tuple(Region("cat", 0.5, masks.encode(pixels == i)) for i in range(600))
    )
    write_predictions([Row("in/a.png", found, size=size)], tmp_path / "out", form_of("panoptic"))
    with Image.open(tmp_path / "out" / "panoptic" / "a.png") as image:
        ids = np.array(image).astype(int) @ [1, 256, 65536]
    assert len(np.unique(ids)) == 600
    assert ids.min() > 0


def test_json_lines_and_tables(tmp_path: Path) -> None:
    """Rows hold all that there is; what a row says of a region follows from its pixels."""
    values, rows = some()
    write_predictions(rows, tmp_path / "rows.jsonl", form_of())
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row, line, expected in zip(rows, lines[:3], values, strict=False):
        whole = line["mask"]
        assert np.array_equal(masks.decode(whole["counts"].encode(), SIZE), expected > 0)
        assert whole["size"] == [20, 30]
        for region, segment in zip(row.prediction.regions, line["segments"], strict=True):
            assert (segment["label"], segment["score"]) == (region.label, region.score)
            mask = masks.decode(segment["rle"]["counts"].encode(), SIZE)
            assert np.array_equal(mask, expected == 1 + NAMES.index(region.label))
            assert segment["area"] == mask.sum()
            x, y, width, height = segment["bbox"]
            assert np.flatnonzero(mask.any(axis=0))[[0, -1]].tolist() == [x, x + width - 1]
            assert np.flatnonzero(mask.any(axis=1))[[0, -1]].tolist() == [y, y + height - 1]
    assert lines[2]["segments"] == []
    assert lines[3] == {"path": "in/bad.png", "error": "truncated"}

    from pyarrow import parquet

    write_predictions(rows, tmp_path / "rows.parquet", form_of())
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert tuple(table.column_names) == SEGMENT_COLUMNS
    written = table.to_pylist()
    segments = [segment for line in lines for segment in line.get("segments", ())]
    assert [one["rle"] for one in written if one["label"]] == [
        segment["rle"]["counts"] for segment in segments
    ]
    assert {one["path"] for one in written} == set(PATHS)
    assert [one["error"] for one in written if one["path"] == PATHS[3]] == ["truncated"]


def test_what_a_person_reads() -> None:
    values = np.zeros((10, 10), dtype=int)
    values[:5], values[9] = 2, 3
    found = regions_of(values, NAMES)
    row = Row("a.png", found, size=(10, 10))
    assert row.answer == "1 cat 50.0%, 1 dog 10.0%"
    assert row.above(1.1).answer == "(nothing)"
    assert row.above(0.0) == row
    low = min(region.score for region in found.regions)
    assert len(row.above(low + 1e-6).prediction.regions) == 1


@pytest.mark.parametrize(
    ("form", "name", "match"),
    [
        (form_of(), "rows.txt", r"\.json \(COCO\) or into a folder \(index PNGs\)"),
        (form_of("instance"), "rows.txt", r"into a folder \(YOLO\)"),
        (form_of("panoptic"), "rows.txt", r"into a folder \(panoptic PNGs\)"),
        (form_of(polygons=True), "rows.csv", r"--polygons are written as \.json"),
    ],
)
def test_formats_are_named(form: MaskForm, name: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        write_predictions([], tmp_path / name, form)
