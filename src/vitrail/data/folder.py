"""One folder a class, with or without train, val and test folders above."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from vitrail.data.decode import IMAGE_SUFFIXES
from vitrail.data.files import FileDataset
from vitrail.data.storage import Storage

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names, in lower case, that stand for a split."""

Parts = tuple[str, ...]


class ImageFolder(FileDataset):
    """Images below class folders: `daisy/1.jpg` or `train/daisy/1.jpg`.

    Every file with the ending of an image counts, readable or not; others are counted in
    `ignored`. Folders that hold all the rest (`flowers/daisy/1.jpg`) are looked through. The
    class is the first folder below; deeper folders belong to it. Class names are sorted and
    shared by the splits.
    """

    @classmethod
    def detect(cls, storage: Storage) -> ImageFolder | None:
        """Read the layout; None where no image lies in a class folder."""
        images = [path for path in storage.paths if is_image(path)]
        split: list[Parts] = [PurePosixPath(path).parts for path in images]
        depth = _depth_of_wrapping(split)
        tops = {parts[depth] for parts in split if len(parts) > depth + 1}
        by_split = _has_splits(tops, [parts[depth:] for parts in split])
        if not by_split and all(top.lower() in SPLIT_FOLDERS for top in tops):
            return None  # images lie in split folders, without classes
        level = depth + 1 if by_split else depth
        published: defaultdict[str, list[int]] = defaultdict(list)
        kept: list[str] = []
        names: list[str] = []
        for path, parts in zip(images, split, strict=True):
            if len(parts) <= level + 1:
                continue
            if by_split:
                part = SPLIT_FOLDERS.get(parts[depth].lower())
                if part is None:
                    continue
                published[part].append(len(kept))
            kept.append(path)
            names.append(parts[level])
        if not kept:
            return None
        classes = tuple(sorted(set(names)))
        index = {name: number for number, name in enumerate(classes)}
        return cls(
            [(storage, path) for path in kept],
            kept,
            [index[name] for name in names],
            classes=classes,
            published=published,
            ignored=len(storage.paths) - len(kept),
        )


def is_image(path: str) -> bool:
    """Whether the file name ends like that of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _depth_of_wrapping(images: list[Parts]) -> int:
    """Number of leading folders that hold everything and are neither class nor split."""
    depth = 0
    while images:
        tops = {parts[depth] for parts in images}
        wrapped = len(tops) == 1 and all(len(parts) > depth + 2 for parts in images)
        if not wrapped or next(iter(tops)).lower() in SPLIT_FOLDERS:
            break
        depth += 1
    return depth


def _has_splits(tops: set[str], images: list[Parts]) -> bool:
    """Split folders: `train` is there or nothing else is, and classes lie below them."""
    found = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    has_train = any(SPLIT_FOLDERS[top.lower()] == "train" for top in found)
    deep = any(parts[0] in found and len(parts) > 2 for parts in images)
    return bool(found) and deep and (has_train or found == tops)
