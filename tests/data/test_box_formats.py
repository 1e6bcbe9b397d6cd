"""The same images in every format give the same targets, however classes are numbered."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from boxed import NUMBERINGS, SCENES, WRITERS, Objects, Scene, farthest, ids_of, named
from vitrail.data.dataset import Dataset
from vitrail.data.open import fingerprint, open_labelled, open_source
from vitrail.types import Box, Boxes

CLASSES = ("dog", "cat", "ant hill")
"""Not sorted: the order of numbers is not that of names."""

PAIRS = list(combinations(WRITERS, 2))

Written = dict[tuple[str, str], Dataset]


def write_all(root: Path, scenes: list[Scene], classes: tuple[str, ...]) -> Written:
    found: Written = {}
    for numbering in NUMBERINGS:
        for kind, write in WRITERS.items():
            folder = root / numbering / kind
            write(folder, scenes, ids_of(classes, numbering))
            found[numbering, kind] = open_labelled(str(folder))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_all(tmp_path_factory.mktemp("boxes"), list(SCENES), CLASSES)


TRUTH: dict[str, Objects] = {scene.file: sorted(scene.objects) for scene in SCENES}


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_pair_agrees(written: Written, numbering: str, one: str, other: str) -> None:
    left, right = written[numbering, one], written[numbering, other]
    assert set(left.classes) == set(right.classes)
    assert farthest(named(left), named(right)) < 1e-3
    assert farthest(named(left), TRUTH) < 1e-3
    assert farthest(named(right), TRUTH) < 1e-3


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("kind", WRITERS)
def test_samples_have_the_boxes_of_their_targets(
    written: Written, numbering: str, kind: str
) -> None:
    data = written[numbering, kind]
    assert data.boxes
    assert not data.dropped
    read = [data.read(index) for index in range(len(data))]
    assert farthest(named(data, [sample.target for sample in read]), TRUTH) < 1e-3
    for sample in read:
        assert isinstance(sample.target, Boxes)
        assert sample.target.size == tuple(sample.image.shape[1:])


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_numbers_are_kept_with_their_names(written: Written, numbering: str) -> None:
    ids = ids_of(CLASSES, numbering)
    for kind in ("coco", "yolo"):
        data = written[numbering, kind]
        assert data.classes == CLASSES, "in the order of their numbers"
        assert data.category_ids is not None
        assert dict(zip(data.classes, data.category_ids, strict=True)) == ids
    for kind in ("voc", "csv"):
        data = written[numbering, kind]
        assert data.classes == tuple(sorted(CLASSES))
        assert data.category_ids is None
    assert written[numbering, "coco"].image_ids == [10, 11, 12, 13]
    assert written[numbering, "voc"].image_ids is None


def test_the_format_is_said(tmp_path: Path) -> None:
    said: dict[str, tuple[str, str]] = {}
    for kind, write in WRITERS.items():
        scenes = [Scene(f"{i}{s.file}", s.size, s.objects) for i in range(8) for s in SCENES]
        write(tmp_path / kind, scenes, ids_of(CLASSES, "from 1"))
        source = open_source(str(tmp_path / kind))
        assert sum(map(len, source.splits.values())) == 32
        said[kind] = (source.format, source.reason)
    assert said == {
        "coco": (
            "COCO JSON",
            "annotations/boxes.json with images, annotations and categories: 48 boxes, 3 classes",
        ),
        "voc": (
            "Pascal VOC",
            "32 XML files with an annotation each: 48 boxes, 3 classes by name",
        ),
        "yolo": (
            "YOLO",
            "32 text files of rows with a class and a box, named by data.yaml: 48 boxes, 3 classes",
        ),
        "csv": (
            "csv of boxes",
            "boxes.csv with columns for path, corners and label: 48 boxes, 3 classes by name",
        ),
    }


def test_the_fingerprint_names_the_boxes(tmp_path: Path) -> None:
    def written_as(name: str, scenes: list[Scene], numbering: str = "from 0") -> str:
        WRITERS["coco"](tmp_path / name, scenes, ids_of(CLASSES, numbering))
        return fingerprint(open_labelled(str(tmp_path / name)))

    first = written_as("first", list(SCENES))
    assert first == written_as("numbered", list(SCENES), "with gaps")
    turned = [Scene(s.file, s.size, s.objects[::-1]) for s in SCENES]
    assert first == written_as("turned", turned), "objects of an image have no order"
    moved = [
        Scene(s.file, s.size, [(n, (*c[:3], c[3] - 0.5)) for n, c in s.objects]) for s in SCENES
    ]
    assert first != written_as("moved", moved)
    swap = {"cat": "dog", "dog": "cat", "ant hill": "ant hill"}
    named_other = [Scene(s.file, s.size, [(swap[n], c) for n, c in s.objects]) for s in SCENES]
    assert first != written_as("other", named_other)


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Written]:
    """COCO's photographs as published, and written again in every format."""
    folder = shared_data / "coco60"
    data = open_labelled(str(folder))
    scenes: list[Scene] = []
    for (file, objects), target in zip(named(data).items(), data.targets, strict=True):
        assert isinstance(target, Boxes)
        assert target.size is not None
        scenes.append(Scene(file, target.size, objects, folder / "images/train2017" / file))
    used = tuple(sorted({name for scene in scenes for name, _ in scene.objects}, reverse=True))
    return data, write_all(tmp_path_factory.mktemp("photos"), scenes, used)


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_pair_agrees_on_photographs(
    photos: tuple[Dataset, Written], numbering: str, one: str, other: str
) -> None:
    data, written = photos
    left, right = named(written[numbering, one]), named(written[numbering, other])
    assert farthest(left, right) < 1e-3
    assert farthest(left, named(data)) < 1e-3


def test_published_files_agree(shared_data: Path, tmp_path: Path) -> None:
    """COCO's own JSON against the YOLO files that others made from it, with other numbers."""
    folder = shared_data / "coco60"
    coco = open_labelled(str(folder))
    assert sum(box.crowd for target in coco.targets for box in boxes_of(target)) == 3
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "labels").symlink_to(folder / "labels_yolo")
    (tmp_path / "data.yaml").write_bytes((folder / "object_detection.config.yaml").read_bytes())
    source = open_source(str(tmp_path))
    assert source.published == ("train", "val")
    assert len(source.splits["val"]) == 27
    yolo = open_labelled(str(tmp_path))
    train = {name: found for name, found in named(yolo).items() if name in named(coco)}
    assert farthest(train, named(coco)) < 1e-3
    assert yolo.classes == coco.classes
    assert coco.category_ids is not None
    assert (coco.category_ids[:2], coco.category_ids[-1]) == ((1, 2), 90)
    assert yolo.category_ids == tuple(range(80))


def boxes_of(target: object) -> tuple[Box, ...]:
    assert isinstance(target, Boxes)
    return target.items
