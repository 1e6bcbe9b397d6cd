"""The same images in every format of masks give the same targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.ndimage import label as label_parts

from mask_formats import (
    OBJECTS,
    REGIONS,
    SCENES,
    VALUES,
    Scene,
    objects,
    pieces,
    regions,
    target,
    text_of,
    write_instances,
)
from vitrail.data.dataset import Dataset
from vitrail.data.open import fingerprint, open_labelled, open_source
from vitrail.data.outlines import fill
from vitrail.data.recognise import recognise
from vitrail.types import VOID, Segments

FEW_PIXELS = 2e-4
"""Share of the pixels of an image that an outline may move by where its points are rounded to the
sixth place."""


@pytest.mark.parametrize("kind", REGIONS)
def test_the_class_of_every_pixel(tmp_path: Path, kind: str) -> None:
    REGIONS[kind](tmp_path, SCENES)
    data = open_labelled(str(tmp_path))
    assert data.classes == tuple(VALUES)
    assert data.segments == ("panoptic" if kind == "panoptic" else "semantic")
    assert data.background == (kind != "panoptic")
    for scene in SCENES:
        seen = scene.values()
        truth = {name: (seen == value).tobytes() for name, value in VALUES.items()}
        found = dict(regions(data, target(data, scene.stem)))
        assert found.pop("void", (seen == 0).tobytes()) == (seen == 0).tobytes()
        assert found == {name: mask for name, mask in truth.items() if any(mask)}


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_pixels_of_every_object(tmp_path: Path, kind: str) -> None:
    OBJECTS[kind](tmp_path, SCENES)
    data = open_labelled(str(tmp_path), task="segment")
    assert (data.segments, data.boxes, data.background) == ("instance", False, True)
    assert data.category_ids == tuple(VALUES.values())
    for index, scene in enumerate(SCENES):
        truth = sorted((name, mask.tobytes()) for name, mask in scene.masks())
        assert objects(data, target(data, scene.stem)) == truth
        read = data.read(index).target
        assert isinstance(read, Segments)
        assert read.size == tuple(data.read(index).image.shape[1:])
    assert target(data, "two").ids.shape[0] == 2, "they overlap"
    assert target(data, "one").ids.shape[0] == 1
    assert open_labelled(str(tmp_path)).boxes, "boxes, where nobody asks for masks"


def test_objects_without_a_class(tmp_path: Path) -> None:
    write_instances(tmp_path)
    data = open_labelled(str(tmp_path))
    assert (data.segments, data.classes) == ("instance", ("object",))
    for scene in SCENES:
        truth = sorted(("object", mask.tobytes()) for _, mask in scene.masks())
        assert objects(data, target(data, scene.stem)) == truth


@pytest.mark.parametrize("kind", [*REGIONS, *OBJECTS])
def test_the_fingerprint_names_the_masks(tmp_path: Path, kind: str) -> None:
    write = {**REGIONS, **OBJECTS}[kind]

    def printed(folder: str, scenes: tuple[Scene, ...]) -> str:
        write(tmp_path / folder, scenes)
        return fingerprint(recognise(str(tmp_path / folder), "segment").dataset)

    first = printed("first", SCENES)
    assert first == printed("again", SCENES)
    name, (x1, y1, x2, y2) = SCENES[0].objects[0]
    moved = ((name, (x1, y1, x2, y2 - 1)), *SCENES[0].objects[1:])
    changed = Scene("one", SCENES[0].size, moved)
    assert first != printed("changed", (changed, *SCENES[1:]))


@pytest.mark.parametrize("kind", [*REGIONS, *OBJECTS, "instances"])
def test_they_are_cut_by_the_seed(tmp_path: Path, kind: str) -> None:
    write = {**REGIONS, **OBJECTS, "instances": write_instances}[kind]
    write(
        tmp_path, tuple(Scene(f"{i}{s.stem}", s.size, s.objects) for i in range(5) for s in SCENES)
    )
    splits = open_source(str(tmp_path), seed=3, task="segment").splits
    assert {name: len(part) for name, part in splits.items()} == {"train": 14, "val": 2, "test": 4}
    assert splits["train"].segments is not None
    again = open_source(str(tmp_path), seed=3, task="segment").splits
    assert [part.ids for part in splits.values()] == [part.ids for part in again.values()]
    assert isinstance(splits["val"].targets[1], Segments)


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """COCO's photographs with the masks that were published in four formats."""
    folder = shared_data / "coco60"
    sources = {
        "semantic": ("semantic_masks", "masks", "semantic_segmentation.config.yaml"),
        "panoptic": ("panoptic", "annotations", ""),
        "yolo": ("polygons_yolo", "labels", "instance_segmentation.config.yaml"),
    }
    found: dict[str, Dataset] = {"coco": open_labelled(str(folder), task="segment")}
    for kind, (masks, name, sheet) in sources.items():
        root = tmp_path_factory.mktemp(kind)
        (root / "images").symlink_to(folder / "images")
        (root / name).symlink_to(folder / masks)
        if sheet:
            (root / "data.yaml").write_bytes((folder / sheet).read_bytes())
        found[kind] = open_labelled(str(root), task="segment")
    return found


def test_what_the_photographs_have(photos: dict[str, Dataset]) -> None:
    kinds = {name: (data.segments, len(data)) for name, data in photos.items()}
    assert kinds == {
        "coco": ("instance", 33),
        "semantic": ("semantic", 53),
        "panoptic": ("panoptic", 53),
        "yolo": ("instance", 60),
    }
    panoptic = photos["panoptic"]
    assert panoptic.things is not None
    assert (len(panoptic.classes), sum(panoptic.things)) == (133, 80)
    assert not panoptic.background
    assert not photos["semantic"].background, "its value 0 is called unlabeled"


def test_index_masks_are_what_is_seen_of_panoptic_ones(photos: dict[str, Dataset]) -> None:
    semantic, panoptic = photos["semantic"], photos["panoptic"]
    for index in range(0, len(semantic), 5):
        segments = semantic.targets[index]
        assert isinstance(segments, Segments)
        name = Path(semantic.ids[index]).stem
        assert regions(semantic, segments) == regions(panoptic, target(panoptic, name))


def test_outlines_and_run_lengths_of_photographs_agree(shared_data: Path, tmp_path: Path) -> None:
    """COCO's own outlines, written again as YOLO's shares of the image and as run lengths."""
    folder = shared_data / "coco60"
    table = json.loads((folder / "instances_train2017.json").read_text())
    table["annotations"] = [  # a row of YOLO has one outline
        row for row in table["annotations"] if not row["iscrowd"] and len(row["segmentation"]) == 1
    ]
    for name in ("coco", "yolo", "text"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images").symlink_to(folder / "images" / "train2017")
    (tmp_path / "coco" / "all.json").write_text(json.dumps(table))
    coco = open_labelled(str(tmp_path / "coco"), task="segment")
    for row in table["annotations"]:
        image = next(image for image in table["images"] if image["id"] == row["image_id"])
        height, width = image["height"], image["width"]
        label = tmp_path / "yolo" / "labels" / f"{image['file_name'][:-4]}.txt"
        label.parent.mkdir(exist_ok=True)
        points = np.reshape(row["segmentation"][0], (-1, 2)) / (width, height)
        with label.open("a") as file:
            file.write(f"{row['category_id']} {' '.join(f'{v:.6f}' for v in points.ravel())}\n")
        mask = fill([tuple(row["segmentation"][0])], (height, width))
        row["segmentation"] = {"size": [height, width], "counts": text_of(mask)}
    (tmp_path / "text" / "all.json").write_text(json.dumps(table))
    names = "".join(f"  {row['id']}: {row['name']}\n" for row in table["categories"])
    (tmp_path / "yolo" / "data.yaml").write_text(f"names:\n{names}")
    text = open_labelled(str(tmp_path / "text"), task="segment")
    yolo = open_labelled(str(tmp_path / "yolo"), task="segment")
    assert coco.classes == text.classes == yolo.classes
    for index in range(0, len(coco), 4):
        own, name = coco.targets[index], Path(coco.ids[index]).stem
        assert isinstance(own, Segments)
        assert objects(text, target(text, name)) == objects(coco, own)
        other = target(yolo, name)
        assert own.labels == other.labels
        for left, right in zip(pieces(own), pieces(other), strict=True):
            assert np.mean(left ^ right) < FEW_PIXELS


def test_outlines_of_yolo_trace_panoptic_objects(photos: dict[str, Dataset]) -> None:
    """They were made from these, through the centres of the pixels at an edge, holes filled."""
    yolo, panoptic = photos["yolo"], photos["panoptic"]
    assert yolo.category_ids is not None
    assert panoptic.category_ids is not None
    near: list[bool] = []
    for index in range(0, len(panoptic), 6):
        segments = panoptic.targets[index]
        assert isinstance(segments, Segments)
        ids = [panoptic.category_ids[label] for label in segments.labels if label != VOID]
        theirs = list(zip(ids, pieces(segments), strict=False))
        outlined = target(yolo, Path(panoptic.ids[index]).stem)
        for label, mask in zip(outlined.labels, pieces(outlined), strict=True):
            same = [other for number, other in theirs if number == yolo.category_ids[label]]
            best = max(same, key=lambda other: (mask & other).sum() / (mask | other).sum())
            edge = best & ~binary_erosion(best)
            if label_parts(best, np.ones((3, 3)))[1] == 1:
                near.append((mask ^ best).sum() <= 1.25 * edge.sum())
    assert len(near) > 25
    assert np.mean(near) > 0.9


def test_objects_lie_where_panoptic_ones_are_seen(photos: dict[str, Dataset]) -> None:
    """Outlines and panoptic masks were drawn apart from each other, but of the same objects."""
    coco, panoptic = photos["coco"], photos["panoptic"]
    index = [Path(name).stem for name in coco.ids].index("000000000030")
    segments = coco.targets[index]
    assert isinstance(segments, Segments)
    ours = np.logical_or.reduce(pieces(segments))
    seen = target(panoptic, "000000000030")
    things = panoptic.things or ()
    theirs = [
        mask
        for label, mask in zip(seen.labels, pieces(seen), strict=True)
        if label != VOID and things[label]
    ]
    union = np.logical_or.reduce(theirs)
    assert (ours & union).sum() / (ours | union).sum() > 0.9
