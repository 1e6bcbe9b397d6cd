"""A CSV file of image paths and labels, or of image paths and texts."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vitrail.data.files import FileDataset
from vitrail.data.folder import SPLIT_FOLDERS, is_image
from vitrail.data.storage import Folder, Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Target

PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "class_name")
TEXT_NAMES = ("text", "transcription", "transcript")
SPLIT_NAMES = ("split", "subset", "fold")
SUFFIXES = (".csv", ".tsv")

Row = list[str]


class CsvDataset(FileDataset):
    """Rows of a path (relative to the CSV), a label and, optionally, a split.

    The columns are found by their names, else the first two count. Labels with `;` make the data
    multi-label: `a;b` is two classes, an empty label is none. A missing image is a bad sample.

    A column named `text` (`TEXT_NAMES`), where no column has the name of a label, makes the data
    text: targets are the cells without the blanks around them, in Unicode's composed form (NFC),
    and `classes` is the alphabet.
    """

    @classmethod
    def detect(cls, storage: Storage) -> CsvDataset | None:
        """Use the one CSV near the top whose paths lead to images; None if there is none.

        Raises:
            DataError: several CSV files could be meant, or the one found is wrong.
        """
        tables = [path for path in storage.paths if path.lower().endswith(SUFFIXES)]
        suitable = [path for path in tables if path.count("/") <= 1 and _leads(storage, path)]
        if not suitable:
            return None
        if len(suitable) > 1:
            raise DataError(
                f"{storage.location}: {' and '.join(suitable[:3])} could both be the labels; "
                "give the path of the one that is meant, or merge them with a column 'split'"
            )
        return cls.load(storage, suitable[0])

    @classmethod
    def open(cls, path: Path) -> CsvDataset:
        """Read a CSV file on the disk.

        Raises:
            DataError: no table of paths and labels; the message names the line.
        """
        return cls.load(Folder(path.parent), path.name)

    @classmethod
    def load(cls, storage: Storage, path: str) -> CsvDataset:
        """Read one CSV file of a storage."""
        name = f"{storage.location / path}"
        try:
            header, rows = read_table(storage.read(path), name)
        except BadSampleError as error:
            raise DataError(f"{name}: {error}") from error
        place, label, part = _columns(header, rows, name)
        first = 2 if header else 1
        if not rows:
            raise DataError(f"{name}: no rows; write one 'path,label' a line")
        for number, row in enumerate(rows, first):
            if len(row) <= max(place, label, part) or not row[place].strip():
                raise DataError(f"{name}: row {number} is incomplete; give it a path and a label")
        cells = [row[label] for row in rows]
        text = header is not None and _named(header, label, TEXT_NAMES)
        if text:
            targets, classes, multilabel = *_texts(cells, name, first), False
        else:
            targets, classes, multilabel = _targets(cells, name, first)
        folder = PurePosixPath(path).parent
        ids = [row[place].strip().replace("\\", "/") for row in rows]
        dataset = cls(
            [(storage, str(folder / image)) for image in ids],
            ids,
            targets,
            classes=classes,
            multilabel=multilabel,
            published=_published([row[part] for row in rows], name, first) if part >= 0 else None,
        )
        dataset.text = text
        return dataset


def read_table(data: bytes, name: str) -> tuple[Row | None, list[Row]]:
    """Header (if there is one) and rows; of comma, tab and semicolon the first that fits."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text; save it as UTF-8") from error
    for delimiter in ",\t;":
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = [row for row in reader if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise DataError(f"{name}: not a CSV file ({error})") from error
        if rows and len(rows[0]) >= 2 and all(len(row) >= 2 for row in rows[:20]):
            has_header = not any(is_image(cell.strip()) for cell in rows[0])
            return (rows[0], rows[1:]) if has_header else (None, rows)
    raise DataError(f"{name}: no two columns found; write one 'path,label' a line")


def _columns(header: Row | None, rows: list[Row], name: str) -> tuple[int, int, int]:
    """Positions of path, label and split (-1 if there is none)."""
    names = [cell.strip().lower() for cell in header or []]
    place, label, part = (
        next((names.index(word) for word in words if word in names), -1)
        for words in (PATH_NAMES, LABEL_NAMES + TEXT_NAMES, SPLIT_NAMES)
    )
    if place >= 0 and label >= 0:
        return place, label, part
    free = [i for i in range(len(header or rows[0])) if i not in {place, label, part}]
    if place < 0:
        place = free.pop(0) if free else -1
    if label < 0:
        label = free.pop(0) if free else -1
    if place < 0 or label < 0:
        raise DataError(f"{name}: no columns for path and label; name them 'path' and 'label'")
    return place, label, part


def _named(header: Row, column: int, words: Sequence[str]) -> bool:
    return header[column].strip().lower() in words


def _texts(cells: Sequence[str], name: str, first: int) -> tuple[list[Target], tuple[str, ...]]:
    """The texts and their alphabet."""
    texts = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
    if not all(texts):
        row = texts.index("") + first
        raise DataError(f"{name}: row {row} has no text; write what the image says or take it out")
    return [*texts], tuple(sorted({symbol for text in texts for symbol in text}))


def _targets(
    labels: Sequence[str], name: str, first: int
) -> tuple[list[Target], tuple[str, ...], bool]:
    multilabel = any(";" in label for label in labels)
    sets = [
        [word.strip() for word in (label.split(";") if multilabel else [label]) if word.strip()]
        for label in labels
    ]
    words = {word for found in sets for word in found}
    numeric = all(word.isdecimal() for word in words)
    classes = tuple(sorted(words, key=lambda word: (int(word) if numeric else 0, word)))
    index = {word: number for number, word in enumerate(classes)}
    if multilabel:
        return [tuple(sorted({index[word] for word in found})) for found in sets], classes, True
    for number, found in enumerate(sets, first):
        if not found:
            raise DataError(f"{name}: row {number} has no label; give it one or take it out")
    return [index[found[0]] for found in sets], classes, False


def _published(cells: Sequence[str], name: str, first: int) -> dict[str, list[int]]:
    published: defaultdict[str, list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        part = SPLIT_FOLDERS.get(cell.strip().lower())
        if part is None:
            raise DataError(
                f"{name}: row {index + first} has the split '{cell}'; write train, val or test"
            )
        published[part].append(index)
    return published


def _leads(storage: Storage, path: str) -> bool:
    """Whether at least half of the rows name a file that exists, beside a label column."""
    try:
        header, rows = read_table(storage.read(path), path)
        place, label, _ = _columns(header, rows, path)
    except (DataError, BadSampleError):
        return False
    if header and not _named(header, label, LABEL_NAMES + TEXT_NAMES):
        return False
    folder = PurePosixPath(path).parent
    known = set(storage.paths)
    found = [str(folder / row[place].strip()) in known for row in rows if len(row) > place]
    return bool(found) and 2 * sum(found) >= len(found)
