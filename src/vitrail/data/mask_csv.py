"""A CSV file with an image and its mask a row: path, mask and, optionally, split.

Both are relative to the CSV. With it any images, masks and splits can be written down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vitrail.data.csv import PATH_NAMES, SPLIT_NAMES, SUFFIXES, Row, read_table
from vitrail.data.folder import SPLIT_FOLDERS
from vitrail.data.mask_classes import class_files
from vitrail.data.mask_kinds import Pair, semantic
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError

MASK_NAMES = ("mask", "mask_path", "segmentation", "annotation")

_TOP = 1  # folders above a table that is looked at


def detect_mask_csv(storage: Storage) -> MaskFiles | None:
    """Use the one table of masks near the top; None if there is none.

    Raises:
        DataError: several could be meant, or the one found cannot be used.
    """
    tables = [
        path
        for path in storage.paths
        if path.lower().endswith(SUFFIXES) and path.count("/") <= _TOP and _has(storage, path)
    ]
    if len(tables) > 1:
        raise DataError(
            f"{storage.location}: {' and '.join(tables[:3])} could both say which masks are "
            "meant; give the path of one, or merge them with a column 'split'"
        )
    return _load(storage, tables[0]) if tables else None


def open_mask_csv(path: Path) -> MaskFiles | None:
    """Read a table on the disk; None where it has no column for masks.

    Raises:
        DataError: it cannot be used; one line with the way out.
    """
    storage = Folder(path.absolute().parent)
    return _load(storage, path.name) if _has(storage, path.name) else None


def _has(storage: Storage, path: str) -> bool:
    try:
        data = storage.read(path)
    except BadSampleError:
        return False
    try:
        header, _ = read_table(data, path)
    except DataError:
        # A table whose rows are damaged is named when it is read; its first line says what it is.
        first = data.decode("utf-8-sig", "replace").partition("\n")[0]
        header = re.split("[,;\t]", first)
    return header is not None and min(_columns(header)[:2]) >= 0


def _columns(header: Row) -> tuple[int, int, int]:
    """Positions of path, mask and split; -1 for what is not there."""
    names = [cell.strip().lower() for cell in header]
    path, mask, split = (
        next((names.index(word) for word in words if word in names), -1)
        for words in (PATH_NAMES, MASK_NAMES, SPLIT_NAMES)
    )
    return path, mask, split


def _load(storage: Storage, path: str) -> MaskFiles:
    name = str(storage.location / path)
    header, rows = read_table(storage.read(path), name)
    assert header is not None, "looked at before"
    pairs = _pairs(rows, _columns(header), PurePosixPath(path).parent, name)
    return MaskFiles(
        semantic(
            storage,
            pairs,
            class_files(storage),
            name="csv of masks",
            layout=f"{path} with columns for path and mask: {len(pairs):,} masks",
        )
    )


def _pairs(
    rows: Sequence[Row], columns: tuple[int, int, int], folder: PurePosixPath, name: str
) -> list[Pair]:
    place, mask, part = columns
    pairs: dict[str, Pair] = {}
    for number, row in enumerate(rows, 2):
        where = f"{name}: row {number}"
        if len(row) <= max(columns) or not row[place].strip() or not row[mask].strip():
            raise DataError(f"{where} is incomplete; give it a path and a mask")
        split = None
        if part >= 0:
            split = SPLIT_FOLDERS.get(row[part].strip().lower())
            if split is None:
                raise DataError(f"{where} has the split '{row[part]}'; write train, val or test")
        image, own = (str(folder / row[cell].strip().replace("\\", "/")) for cell in (place, mask))
        if image in pairs:
            raise DataError(f"{where} has '{row[place]}' again; give an image one row")
        pairs[image] = Pair(image, own, split)
    if not pairs:
        raise DataError(f"{name}: no rows; write one 'path,mask' a line")
    return list(pairs.values())
