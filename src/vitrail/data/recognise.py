"""What a path or a name holds: formats are tried in turn, and the first that fits says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitrail.data import planted, roads, shapes, strips
from vitrail.data.arrays import ArrayDataset
from vitrail.data.boxes import BoxFiles
from vitrail.data.boxes_csv import detect_boxes_csv, open_boxes_csv
from vitrail.data.builtin import digits
from vitrail.data.cifar import CifarDataset
from vitrail.data.coco import detect_coco, open_coco
from vitrail.data.coco_masks import detect_coco_masks, open_coco_masks
from vitrail.data.coco_panoptic import detect_coco_panoptic, open_coco_panoptic
from vitrail.data.csv import SUFFIXES, CsvDataset
from vitrail.data.dataset import Dataset
from vitrail.data.download import PUBLISHED, locate
from vitrail.data.folder import ImageFolder, is_image
from vitrail.data.idx import IdxDataset
from vitrail.data.instance_folder import detect_instance_folder
from vitrail.data.mask_csv import detect_mask_csv, open_mask_csv
from vitrail.data.mask_folder import detect_mask_folder
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Storage, is_archive, missing, open_storage
from vitrail.data.voc import detect_voc
from vitrail.data.yolo import detect_yolo, open_yolo
from vitrail.data.yolo_masks import detect_yolo_masks, open_yolo_masks
from vitrail.data.yolo_names import YAML_SUFFIXES
from vitrail.errors import DataError

BUILT_IN = ("digits", strips.NAME, planted.NAME, shapes.NAME, roads.NAME, *PUBLISHED)
"""Names that are no paths; write `./digits` for a folder of that name. `strips:13-20` are strips of
13 to 20 digits, `planted:3` scenes with three patches that belong to no class."""

Wanted = Literal["classify", "transcribe", "detect", "segment"]
"""The task that data are opened for. Outlines are boxes or segments: only `segment` makes segments
of them. Masks are opened for `segment` and where no task is named."""


_Detect = Callable[[Storage], BoxFiles | MaskFiles | None]

_BOXES: tuple[_Detect, ...] = (detect_coco, detect_voc, detect_yolo, detect_boxes_csv)
_WITH_MASKS = (None, "detect", "segment")
_OUTLINES: tuple[_Detect, ...] = (detect_coco_masks, detect_yolo_masks)
_MASKS: tuple[_Detect, ...] = (
    detect_coco_panoptic,
    detect_instance_folder,
    detect_mask_csv,
    detect_mask_folder,
)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is.

    Attributes:
        dataset: All of it.
        format: Name of the format.
        reason: Why it was recognised, for people.
        published: Indices of the splits that it brings.
    """

    dataset: Dataset
    format: str
    reason: str
    published: Mapping[str, Sequence[int]]


def _built_in(data: str, task: Wanted | None) -> Found | None:
    """What comes with the package, or is made by it."""
    if data == "digits":
        return Found(digits(), "built-in", "a built-in name: the digits of scikit-learn", {})
    return _strips(data) or _generated(data, task)


def _strips(data: str) -> Found | None:
    rows = strips.named(data)
    if rows is None:
        return None
    low, high = rows.lengths
    reason = f"a built-in name: rows of {low} to {high} of the digits of scikit-learn"
    return Found(rows, "built-in", reason, rows.published)


def _generated(data: str, task: Wanted | None) -> Found | None:
    scenes = planted.named(data)
    if scenes is not None:
        beside = f" beside {scenes.distractors} patches of no class" if scenes.distractors else ""
        reason = f"a built-in name: a small pattern planted in a busy scene{beside}"
        return Found(scenes, "built-in", reason, scenes.published)
    drawn = shapes.named(data)
    if drawn is not None:
        seen = "masks" if task == "segment" else "boxes"
        whole = shapes.ShapeMasks(drawn) if task == "segment" else drawn
        reason = f"a built-in name: generated scenes of shapes that overlap, with {seen}"
        return Found(whole, "built-in", reason, drawn.published)
    thin = roads.named(data)
    if thin is not None:
        reason = "a built-in name: generated aerial scenes with thin roads, with masks"
        return Found(thin, "built-in", reason, thin.published)
    return None


def recognise(data: str, task: Wanted | None = None) -> Found:
    """Find out what a path or a name holds.

    Args:
        data: As for `open_source`.
        task: What it is wanted for.

    Raises:
        DataError: nothing that can be used; one line with the way out.
    """
    built_in = _built_in(data, task)
    if built_in is not None:
        return built_in
    if data in PUBLISHED:
        path = locate(data)
        found = _detect_storage(open_storage(path), str(path), task)
        return Found(
            found.dataset,
            found.format,
            f"a published name, read from {path}: {found.reason}",
            found.published,
        )
    path = Path(data).expanduser()
    if not path.exists():
        raise missing(path, BUILT_IN)
    labels = _label_file(path, task) if path.is_file() else None
    if labels is not None:
        return _labels(labels)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        table = CsvDataset.open(path)
        return Found(table, "csv", f"a table of paths and labels{_kind(table)}", table.published)
    if path.is_file() and is_image(path.name) and not is_archive(path):
        raise DataError(f"{data}: a single image has no classes; give a folder of class folders")
    return _detect_storage(open_storage(path), data, task)


def _label_file(path: Path, task: Wanted | None) -> BoxFiles | MaskFiles | None:
    """Boxes or segments, where one file says where everything is."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        panoptic = open_coco_panoptic(path) if task in _WITH_MASKS else None
        return panoptic or (open_coco_masks(path) if task == "segment" else open_coco(path))
    if suffix in YAML_SUFFIXES:
        return open_yolo_masks(path) if task == "segment" else open_yolo(path)
    if suffix not in SUFFIXES:
        return None
    masks = open_mask_csv(path) if task in _WITH_MASKS else None
    return masks or open_boxes_csv(path)


def _detect_storage(storage: Storage, data: str, task: Wanted | None) -> Found:
    if not storage.paths:
        raise DataError(f"{data}: empty; put images into one folder a class, e.g. {data}/cat/1.jpg")
    arrays: ArrayDataset | None = IdxDataset.detect(storage)
    if arrays is not None:
        return Found(arrays, "idx", "pairs of idx image and label files", arrays.published)
    arrays = CifarDataset.detect(storage)
    if arrays is not None:
        return Found(arrays, "cifar binary", "the batches of CIFAR-10", arrays.published)
    for detect in _formats(task):
        labels = detect(storage)
        if labels is not None:
            return _labels(labels)
    table = CsvDataset.detect(storage)
    if table is not None:
        return Found(
            table, "csv", f"holds a CSV of paths and labels{_kind(table)}", table.published
        )
    folder = ImageFolder.detect(storage)
    if folder is not None:
        if task not in _WITH_MASKS and _has_masks(storage):
            raise DataError(
                f"{data}: its folders hold images and their masks, not a class each; leave out "
                "--task, or give --task segment"
            )
        return _folders(folder)
    images = sum(map(is_image, storage.paths))
    if images:
        raise DataError(
            f"{data}: {images} images, but no class folders, no CSV with labels, no boxes (COCO, "
            "VOC, YOLO, CSV) and no masks (folders images and masks, CSV, COCO, YOLO); put the "
            "images into one folder a class, or write a CSV 'path,label' or "
            f"'path,mask'{label_fault(data)}"
        )
    raise DataError(
        f"{data}: no images among {len(storage.paths)} files; give a folder of class folders, "
        "a CSV 'path,label', idx files, boxes (COCO, VOC, YOLO, CSV), folders of images and of "
        "masks, or an archive of these"
    )


def _has_masks(storage: Storage) -> bool:
    try:
        return detect_mask_folder(storage) is not None
    except DataError:  # named like masks, but photographs: classes of that name
        return False


def label_fault(data: str) -> str:
    """Why a label file near the top of a folder was passed over; empty where there is none."""
    top = Path(data).expanduser()
    if not top.is_dir():
        return ""
    endings = (".json", *YAML_SUFFIXES, *SUFFIXES)
    for name in open_storage(top).paths:
        if name.count("/") > 1 or not name.lower().endswith(endings):
            continue
        try:
            if _label_file(top / name, None) is None:
                CsvDataset.open(top / name)
        except DataError as error:
            return f"; no boxes are read since {error}"
        return f"; no boxes are read since {name} names no image that is there"
    return ""


def _formats(task: Wanted | None) -> Sequence[_Detect]:
    """Formats of boxes and masks in the order in which they are tried."""
    if task == "segment":
        return _OUTLINES + _MASKS
    return _BOXES + _MASKS if task in _WITH_MASKS else _BOXES


def _labels(labels: BoxFiles | MaskFiles) -> Found:
    return Found(labels, labels.format, labels.reason, labels.published)


def _folders(folder: ImageFolder) -> Found:
    left = f"; {folder.ignored} other files were left out" if folder.ignored else ""
    shown = ", ".join(folder.classes[:3]) + (", ..." if len(folder.classes) > 3 else "")
    count = len(folder.classes)
    classes = f"{count} class folder{'s' if count != 1 else ''} ({shown})"
    if folder.published:
        parts = ", ".join(folder.published)
        reason = f"{classes} below split folders ({parts}){left}"
        return Found(folder, "folder of classes with splits", reason, folder.published)
    return Found(folder, "folder of classes", f"{classes} that hold images{left}", {})


def _kind(table: CsvDataset) -> str:
    if table.text:
        return f"; the labels are texts, in an alphabet of {len(table.classes)} symbols"
    return "; labels with ';', so several classes an image" if table.multilabel else ""
