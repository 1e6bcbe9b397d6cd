"""Pascal VOC's XML files, one an image.

Corners are taken as they are written, as edges in pixels. The original devkit counts pixels from 1
and includes the last one, so that its boxes come out one pixel short on the left and above. The
tools that write this format today (LabelImg, CVAT, Roboflow, Label Studio) write edges, and a file
does not say which kind it is; no offset is guessed.

An object marked `difficult` counts as a crowd: neither learned nor missed, as VOC's own evaluation
has it. Parts of objects (`part`) are passed over.

The files have no order of classes. They are sorted by name, so that a new image changes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

from vitrail.data.boxes import LARGEST, Annotations, BoxFiles, Entry, Mark
from vitrail.data.label_files import ImageFinder, split_of_folders
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Grid, Skipped

SPLITS = ("train", "val", "test")

_LOOKED_AT = 5  # files that say whether the others are of this format
_ANNOTATIONS = "Annotations"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def detect_voc(storage: Storage) -> BoxFiles | None:
    """Read all VOC files of a storage; None if there is none.

    Splits are the lists `ImageSets/Main/{train,val,test}.txt` (`trainval` stands for train where
    that is missing), else split folders.

    Raises:
        DataError: they cannot be used; one line with the way out.
    """
    files = [path for path in storage.paths if path.lower().endswith(".xml")]
    if not any(_looks_right(storage, path) for path in files[:_LOOKED_AT]):
        return None
    finder = ImageFinder(storage)
    lists = _lists(storage)
    entries: list[Entry] = []
    for path in files:
        entry = _entry(storage, finder, path)
        if entry is not None:
            entries += _in_splits(entry, lists)
    boxes = [mark for entry in entries for mark in entry.marks]
    classes = tuple(sorted({mark.name for mark in boxes}))
    return BoxFiles(
        Annotations(
            format="Pascal VOC",
            reason=f"{len(files):,} XML files with an annotation each: "
            f"{len(boxes):,} boxes, {len(classes)} classes by name"
            + ("; splits from ImageSets/Main" if lists else ""),
            location=str(storage.location),
            entries=entries,
            classes=classes,
            unlabelled=finder.unnamed(entry.place[1] for entry in entries),
            unmatched=_unknown(lists, entries),
        )
    )


class _Tree(ET.TreeBuilder):
    """Builds no document that declares entities: a few lines of them can fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called where a document type begins, before anything in it is read."""
        del name, pubid, system
        raise BadSampleError("the XML has a document type (DOCTYPE); take it out")


def parse_xml(data: bytes) -> ET.Element:
    """The root of an XML file without a document type.

    Raises:
        BadSampleError: it is damaged, or has one.
    """
    try:
        return ET.fromstring(data, parser=ET.XMLParser(target=_Tree()))  # noqa: S314 see `_Tree`
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, BadSampleError):
            raise
        raise BadSampleError(f"the XML is damaged ({error})") from error


def _looks_right(storage: Storage, path: str) -> bool:
    try:
        return b"<annotation" in storage.read(path)
    except BadSampleError:
        return False


def _entry(storage: Storage, finder: ImageFinder, path: str) -> Entry | None:
    """What one file says; None for XML that is something else."""
    image = finder.of_stem(path)
    try:
        root = parse_xml(storage.read(path))
    except BadSampleError as error:
        place = image or str(PurePosixPath(path).with_suffix(".jpg"))
        return Entry((storage, place), path, broken=f"{path}: {error}")
    if root.tag != "annotation":
        return None
    if image is None:
        # Renamed images are found by what the file calls them.
        name = _text(root, "filename") or PurePosixPath(path).with_suffix(".jpg").name
        image = finder.named([name], path.rpartition("/")[0], split_of_folders(path))[0]
    marks, flaws = _objects(root)
    return Entry((storage, image), path, marks, flaws, _size(root))


def _objects(root: ET.Element) -> tuple[list[Mark], list[str]]:
    """Objects, and those of which no box can be read."""
    marks: list[Mark] = []
    flaws: list[str] = []
    for number, node in enumerate(root.findall("object"), 1):
        name, box = _text(node, "name"), node.find("bndbox")
        if not name:
            flaws.append(f"object {number}: without a name")
        elif box is None:
            flaws.append(f"object {number}: '{name}' without a bndbox")
        else:
            x1, y1, x2, y2 = (_number(_text(box, key)) for key in _CORNERS)
            crowd = _text(node, "difficult") == "1"
            marks.append(Mark((x1, y1, x2, y2), name, f"object {number}", crowd))
    return marks, flaws


def _text(node: ET.Element, key: str) -> str:
    return (node.findtext(key) or "").strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _size(root: ET.Element) -> Grid | None:
    height, width = (_number(_text(root, f"size/{key}")) for key in ("height", "width"))
    usable = 1 <= height <= LARGEST and 1 <= width <= LARGEST
    return (int(height), int(width)) if usable else None  # many tools write 0


Lists = dict[str, dict[str, list[str]]]
"""Splits by the stem of an image, by the folder that holds `Annotations` and `ImageSets`."""


def _lists(storage: Storage) -> Lists:
    found: Lists = {}
    for path in storage.paths:
        pure = PurePosixPath(path)
        if pure.parts[-3:-1] != ("ImageSets", "Main") or pure.suffix != ".txt":
            continue
        if pure.stem in {*SPLITS, "trainval"}:
            words = map(str.split, _read(storage, path).splitlines())
            root = str(pure.parents[2])
            found.setdefault(root, {})[pure.stem] = [line[0] for line in words if line]
    return {root: _by_stem(lists) for root, lists in found.items()}


def _read(storage: Storage, path: str) -> str:
    try:
        return storage.read(path).decode("utf-8", "replace")
    except BadSampleError as error:
        raise DataError(f"{path}: {error}") from error


def _by_stem(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    both = lists.pop("trainval", [])
    if "train" not in lists and both:
        others = {stem for stems in lists.values() for stem in stems}
        lists["train"] = [stem for stem in both if stem not in others]
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for split, stems in lists.items():
        for stem in dict.fromkeys(stems):
            splits[stem].append(split)
    return dict(splits)


def _in_splits(entry: Entry, lists: Lists) -> list[Entry]:
    """The entry once for each split that it was published in."""
    if not lists:
        return [replace(entry, split=split_of_folders(entry.file))]
    pure = PurePosixPath(entry.file)
    parts = pure.parts
    top = parts.index(_ANNOTATIONS) if _ANNOTATIONS in parts else len(parts) - 1
    root = str(PurePosixPath(*parts[:top]))
    splits = lists.get(root, {}).get(pure.stem, [])
    return [replace(entry, split=split) for split in splits] or [entry]


def _unknown(lists: Lists, entries: Sequence[Entry]) -> list[Skipped]:
    """Images that a list names and no annotation describes."""
    known = {PurePosixPath(entry.file).stem for entry in entries}
    return [
        Skipped(stem, f"listed in ImageSets/Main for {' and '.join(splits)}, but has no annotation")
        for by_stem in lists.values()
        for stem, splits in by_stem.items()
        if stem not in known
    ]
