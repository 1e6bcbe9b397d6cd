"""Boxes in the formats of other tools: COCO's list of results, and YOLO's folder of text files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.errors import UserError
from vitrail.predict import Row
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Corners, Detection, Grid
from vitrail.weights.modelfile import write_atomically


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a file that knows no names calls classes and images.

    Attributes:
        classes: Number of each class by name, in the order of the model's classes.
        images: Number of each image by path.
    """

    classes: dict[str, int]
    images: dict[str, int]

    @classmethod
    def of(cls, task: DetectConfig | SegmentConfig, dataset: Dataset) -> Numbers:
        """The numbers of the source, where it has any.

        Classes have the data's own numbers where it is labelled, else those of the data that the
        model learned from, else 1, 2, ... in the order of the model. A class that labelled data
        do not know gets a number that they do not use. Images have the data's numbers, else 1, 2,
        ... in order; so give the whole data set, not a part that is predicted alone.
        """
        images = dataset.image_ids or range(1, len(dataset) + 1)
        return cls(_class_numbers(task, dataset), dict(zip(dataset.ids, images, strict=True)))


def write_coco(rows: Sequence[Row], out: Path, numbers: Numbers) -> None:
    """Write COCO's list of results, and what its numbers mean beside it.

    The list has no place for an image without objects or one that could not be read, nor for
    names. They are in `<name>.images.json`: COCO's `images` (with `error` where there is one) and
    `categories`, without annotations.
    """
    results = [
        {
            "image_id": numbers.images[row.path],
            "category_id": numbers.classes[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for row in rows
        for (x1, y1, x2, y2), label, score in _objects(row)
    ]
    write_results(results, rows, out, numbers)


def write_results(
    results: Sequence[dict[str, Any]], rows: Sequence[Row], out: Path, numbers: Numbers
) -> None:
    """Write any list of COCO's results, with `<name>.images.json` beside it."""
    write_atomically(out, json.dumps(results).encode())
    text = json.dumps(coco_table(rows, numbers), ensure_ascii=False)
    write_atomically(out.with_suffix(".images.json"), text.encode())


def coco_table(
    rows: Sequence[Row], numbers: Numbers, annotations: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """A data set as COCO writes it; an image that could not be read has its `error`."""
    return {
        "images": [_image(row, numbers) for row in rows],
        "annotations": list(annotations),
        "categories": [{"id": number, "name": name} for name, number in numbers.classes.items()],
    }


def write_yolo(rows: Sequence[Row], folder: Path, numbers: Numbers) -> None:
    """Write `labels/<image>.txt`, `data.yaml` with the names, and `errors.jsonl` if there are any.

    A line is an object: class from 0, centre x, centre y, width and height as shares of the image,
    score. An image without objects has an empty file, one that could not be read has none.

    Raises:
        UserError: two images would have the same text file.
    """
    index = {name: i for i, name in enumerate(numbers.classes)}
    files = label_files(rows, ".txt")
    with NewFolder(folder) as out:
        for place, row in files.items():
            if row.size is not None:
                lines = [
                    " ".join(map(str, (index[label], *_shares(box, row.size), score))) + "\n"
                    for box, label, score in _objects(row)
                ]
                out.write(Path("labels") / place, "".join(lines).encode())
        write_yolo_names(rows, out, numbers)


def write_yolo_names(rows: Sequence[Row], out: NewFolder, numbers: Numbers) -> None:
    """Write what stands beside the labels of YOLO: names of classes, images without answer."""
    write_errors(rows, out)
    # JSON strings are YAML strings.
    names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(numbers.classes))
    out.write(Path("data.yaml"), f"path: .\nnames:\n{names}".encode())


def write_errors(rows: Sequence[Row], out: NewFolder) -> None:
    """Write `errors.jsonl` if there are any."""
    bad = [json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows if row.error]
    if bad:
        out.write(Path("errors.jsonl"), "".join(bad).encode())


def label_files(rows: Sequence[Row], suffix: str) -> dict[Path, Row]:
    """The file of each row, named as its image.

    Raises:
        UserError: two images would have the same file.
    """
    files: dict[Path, Row] = {}
    for row, place in zip(rows, below([row.path for row in rows]), strict=True):
        file = place.with_suffix(suffix)
        if file in files:
            raise UserError(
                f"{row.path} and {files[file].path} would both be {file}; write .jsonl or .csv"
            )
        files[file] = row
    return files


def below(paths: Sequence[str]) -> list[Path]:
    """Where each file lies below the folder that all have in common."""
    parts = [
        tuple(part for part in Path(path).parts if part not in (Path(path).anchor, ".."))
        for path in paths
    ]
    shared = 0
    for names in zip(*(each[:-1] for each in parts), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return [Path(*each[shared:]) for each in parts]


def new_folder(folder: Path) -> None:
    """Make sure that files in a folder overwrite nothing.

    Raises:
        UserError: it holds something already, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new or empty folder")


class NewFolder:
    """A new or empty folder: what is written stays if all of it could be written.

    Args:
        path: The folder.

    Raises:
        UserError: it holds something already, or is a file.
    """

    def __init__(self, path: Path) -> None:
        new_folder(path)
        self.path = path
        self._written: list[Path] = []
        self._made: list[Path] = []

    def __enter__(self) -> NewFolder:
        """Itself."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Take back what was written, if there was an error."""
        if error is None:
            return
        with suppress(OSError):
            for file in self._written:
                file.unlink(missing_ok=True)
            for folder in reversed(self._made):
                folder.rmdir()

    def write(self, place: Path, data: bytes) -> None:
        """Write one file below the folder.

        Raises:
            UserError: no room on the disk, or the folder cannot be written.
        """
        file = self.path / place
        # Thousands of small files: waiting for the disk after each would take minutes.
        try:
            self._make(file.parent)
            self._written.append(file)
            file.write_bytes(data)
        except OSError as error:
            raise UserError(
                f"{file}: cannot write ({error.strerror}); free space or give another --out"
            ) from error

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            self._make(folder.parent)
            folder.mkdir()
            self._made.append(folder)


def _class_numbers(task: DetectConfig | SegmentConfig, dataset: Dataset) -> dict[str, int]:
    if dataset.category_ids:
        known = dict(zip(dataset.classes, dataset.category_ids, strict=True))
        free = count(max(known.values()) + 1)
        return {name: known[name] if name in known else next(free) for name in task.classes}
    return dict(zip(task.classes, task.category_ids or count(1), strict=False))


def _objects(row: Row) -> list[tuple[Corners, str, float]]:
    if not isinstance(row.prediction, Detection):
        return []
    found = row.prediction
    return list(zip(found.boxes, found.labels, found.scores, strict=True))


def _image(row: Row, numbers: Numbers) -> dict[str, Any]:
    table: dict[str, Any] = {"id": numbers.images[row.path], "file_name": row.path}
    if row.size is not None:
        table |= {"height": row.size[0], "width": row.size[1]}
    return table | ({"error": row.error} if row.error else {})


def _shares(box: Corners, size: Grid) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    height, width = size
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
