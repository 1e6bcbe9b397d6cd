"""From what a person gives (a path, a built-in name) to a data set cut into splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitrail.data import planted, shapes, strips
from vitrail.data.arrays import ArrayDataset
from vitrail.data.boxes import BoxFiles
from vitrail.data.boxes_csv import detect_boxes_csv, open_boxes_csv
from vitrail.data.builtin import digits
from vitrail.data.cifar import CifarDataset
from vitrail.data.coco import detect_coco, open_coco
from vitrail.data.csv import SUFFIXES, CsvDataset
from vitrail.data.dataset import Dataset, Source, Subset
from vitrail.data.download import PUBLISHED, locate
from vitrail.data.folder import ImageFolder, is_image
from vitrail.data.idx import IdxDataset
from vitrail.data.images import open_images
from vitrail.data.split import split
from vitrail.data.storage import Storage, is_archive, missing, open_storage
from vitrail.data.voc import detect_voc
from vitrail.data.yolo import detect_yolo, open_yolo
from vitrail.data.yolo_names import YAML_SUFFIXES
from vitrail.errors import DataError
from vitrail.types import Boxes, Target

__all__ = ["fingerprint", "open_images", "open_labelled", "open_source"]

TEST_FRACTION = 0.2
VAL_FRACTION = 0.1
VAL_LIMIT = 10_000
"""What is cut off where the data bring no split; more validation images tell nothing new."""

BUILT_IN = ("digits", strips.NAME, planted.NAME, shapes.NAME, *PUBLISHED)
"""Names that are no paths; write `./digits` for a folder of that name. `strips:13-20` are strips of
13 to 20 digits, `planted:3` scenes with three patches that belong to no class."""

Split = Literal["all", "train", "val", "test"]


@dataclass(frozen=True, slots=True)
class _Found:
    dataset: Dataset
    format: str
    reason: str
    published: Mapping[str, Sequence[int]]


def open_source(data: str, *, seed: int = 0) -> Source:
    """Open a data set for training: detect its format and cut the splits that it lacks.

    Without a test part 20 % of train are cut off for it; without a validation part 10 % of what
    is left (at most 10,000). Both cuts are stratified, keep duplicates together and depend on the
    seed and the ids only. Published test and validation parts are never changed.

    Args:
        data: A folder, an archive, a CSV, COCO or YAML file, or one of `BUILT_IN`.
        seed: Of the cuts.

    Raises:
        DataError: there is nothing to train on; one line with the way out.
    """
    found = _detect(data)
    whole = found.dataset
    if found.published and "train" not in found.published:
        raise DataError(f"{data}: has {' and '.join(found.published)}, but no train part")
    if len(whole.classes) < 2 and not whole.text and not whole.boxes:
        raise DataError(
            f"{data}: only one class ('{''.join(whole.classes)}'); a classifier needs at least "
            f"two: add a folder or a label for each{_label_fault(data)}"
        )
    splits: dict[str, Dataset] = {
        name: Subset(whole, found.published[name])
        for name in ("train", "val", "test")
        if name in found.published
    }
    train = splits.pop("train", whole)
    test = 0.0 if "test" in splits else TEST_FRACTION
    rest = len(train) * (1 - test)
    val = 0.0 if "val" in splits else min(VAL_FRACTION, VAL_LIMIT / max(rest, 1))
    splits = {**splits, **split(train, seed=seed, test=test, val=val)}
    for name, part in splits.items():
        if not len(part):
            # What has a symbol or a class that no other has stays in train.
            kind = "symbol" if whole.text else "class"
            many = whole.text or whole.boxes
            least = f"some more of every {kind}" if many else "at least 3 a class"
            raise DataError(f"{data}: too few images for a {name} part; give {least}")
    return Source(
        name=data,
        format=found.format,
        reason=found.reason,
        splits={name: splits[name] for name in ("train", "val", "test")},
        published=tuple(name for name in ("train", "val", "test") if name in found.published),
        fingerprint=fingerprint(whole),
    )


def open_labelled(data: str, *, split: Split = "all", seed: int = 0) -> Dataset:
    """Open labelled data for evaluation.

    Args:
        data: As for `open_source`; a single class and missing splits are allowed with `all`.
        split: `all` is everything in its original order; another name is that split, as published
            or as `open_source` cuts it.
        seed: Of the cut.

    Raises:
        DataError: there is nothing there that has labels.
    """
    found = _detect(data)
    if split == "all":
        return found.dataset
    uncut = split != "train" or {"val", "test"} <= set(found.published)
    if split in found.published and uncut:
        return Subset(found.dataset, found.published[split])
    return open_source(data, seed=seed).splits[split]


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the sorted ids, labels and stored sizes: names the data, in any order."""
    lines = sorted(
        f"{name}\t{_shown(target)}\t{dataset.stored_size(index)}\n"
        for index, (name, target) in enumerate(zip(dataset.ids, dataset.targets, strict=True))
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _shown(target: Target) -> str:
    """A label as it is hashed; boxes in any order, to a thousandth of a pixel."""
    if not isinstance(target, Boxes):
        return str(target)
    return " ".join(
        sorted(
            "{}{}:{:.3f},{:.3f},{:.3f},{:.3f}".format(box.label, "*" * box.crowd, *box.corners)
            for box in target.items
        )
    )


def _built_in(data: str) -> _Found | None:
    """What comes with the package, or is made by it."""
    if data == "digits":
        return _Found(digits(), "built-in", "a built-in name: the digits of scikit-learn", {})
    rows = strips.named(data)
    if rows is not None:
        low, high = rows.lengths
        reason = f"a built-in name: rows of {low} to {high} of the digits of scikit-learn"
        return _Found(rows, "built-in", reason, rows.published)
    scenes = planted.named(data)
    if scenes is not None:
        beside = f" beside {scenes.distractors} patches of no class" if scenes.distractors else ""
        reason = f"a built-in name: a small pattern planted in a busy scene{beside}"
        return _Found(scenes, "built-in", reason, scenes.published)
    drawn = shapes.named(data)
    if drawn is not None:
        reason = "a built-in name: generated scenes of shapes that overlap, with boxes"
        return _Found(drawn, "built-in", reason, drawn.published)
    return None


def _detect(data: str) -> _Found:
    built_in = _built_in(data)
    if built_in is not None:
        return built_in
    if data in PUBLISHED:
        path = locate(data)
        found = _detect_storage(open_storage(path), str(path))
        return _Found(
            found.dataset,
            found.format,
            f"a published name, read from {path}: {found.reason}",
            found.published,
        )
    path = Path(data).expanduser()
    if not path.exists():
        raise missing(path, BUILT_IN)
    labels = _detect_label_file(path) if path.is_file() else None
    if labels is not None:
        return _boxes(labels)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        table = CsvDataset.open(path)
        return _Found(table, "csv", f"a table of paths and labels{_kind(table)}", table.published)
    if path.is_file() and is_image(path.name) and not is_archive(path):
        raise DataError(f"{data}: a single image has no classes; give a folder of class folders")
    return _detect_storage(open_storage(path), data)


def _detect_label_file(path: Path) -> BoxFiles | None:
    """Boxes, where one file says where everything is."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return open_coco(path)
    if suffix in YAML_SUFFIXES:
        return open_yolo(path)
    return open_boxes_csv(path) if suffix in SUFFIXES else None


def _detect_storage(storage: Storage, data: str) -> _Found:
    if not storage.paths:
        raise DataError(f"{data}: empty; put images into one folder a class, e.g. {data}/cat/1.jpg")
    arrays: ArrayDataset | None = IdxDataset.detect(storage)
    if arrays is not None:
        return _Found(arrays, "idx", "pairs of idx image and label files", arrays.published)
    arrays = CifarDataset.detect(storage)
    if arrays is not None:
        return _Found(arrays, "cifar binary", "the batches of CIFAR-10", arrays.published)
    for detect in (detect_coco, detect_voc, detect_yolo, detect_boxes_csv):
        labels = detect(storage)
        if labels is not None:
            return _boxes(labels)
    table = CsvDataset.detect(storage)
    if table is not None:
        return _Found(
            table, "csv", f"holds a CSV of paths and labels{_kind(table)}", table.published
        )
    folder = ImageFolder.detect(storage)
    if folder is not None:
        return _folders(folder)
    images = sum(map(is_image, storage.paths))
    if images:
        raise DataError(
            f"{data}: {images} images, but no class folders, no CSV with labels and no boxes "
            "(COCO, VOC, YOLO, CSV); put the images into one folder a class, or write a CSV "
            f"'path,label'{_label_fault(data)}"
        )
    raise DataError(
        f"{data}: no images among {len(storage.paths)} files; give a folder of class folders, "
        "a CSV 'path,label', idx files, boxes (COCO, VOC, YOLO, CSV) or an archive of these"
    )


def _label_fault(data: str) -> str:
    """Why a label file near the top of a folder was passed over; empty where there is none."""
    top = Path(data).expanduser()
    if not top.is_dir():
        return ""
    endings = (".json", *YAML_SUFFIXES, *SUFFIXES)
    for name in open_storage(top).paths:
        if name.count("/") > 1 or not name.lower().endswith(endings):
            continue
        try:
            if _detect_label_file(top / name) is None:
                CsvDataset.open(top / name)
        except DataError as error:
            return f"; no boxes are read since {error}"
        return f"; no boxes are read since {name} names no image that is there"
    return ""


def _boxes(labels: BoxFiles) -> _Found:
    return _Found(labels, labels.format, labels.reason, labels.published)


def _folders(folder: ImageFolder) -> _Found:
    left = f"; {folder.ignored} other files were left out" if folder.ignored else ""
    shown = ", ".join(folder.classes[:3]) + (", ..." if len(folder.classes) > 3 else "")
    count = len(folder.classes)
    classes = f"{count} class folder{'s' if count != 1 else ''} ({shown})"
    if folder.published:
        parts = ", ".join(folder.published)
        reason = f"{classes} below split folders ({parts}){left}"
        return _Found(folder, "folder of classes with splits", reason, folder.published)
    return _Found(folder, "folder of classes", f"{classes} that hold images{left}", {})


def _kind(table: CsvDataset) -> str:
    if table.text:
        return f"; the labels are texts, in an alphabet of {len(table.classes)} symbols"
    return "; labels with ';', so several classes an image" if table.multilabel else ""
