"""Which image a label file means, and which split a file belongs to."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from vitrail.data.folder import SPLIT_FOLDERS, is_image
from vitrail.data.storage import Storage
from vitrail.errors import DataError


def split_of_folders(path: str) -> str | None:
    """The split that a folder above a file names: `train`, `valid`, `val2017`."""
    for part in PurePosixPath(path).parts[:-1]:
        split = SPLIT_FOLDERS.get(part.lower().rstrip("0123456789"))
        if split is not None:
            return split
    return None


def split_of_file(path: str) -> str | None:
    """The split that a label file is for: `instances_train2017.json`, `train/_annotations.csv`."""
    words = re.findall("[a-z]+", PurePosixPath(path).stem.lower())
    named = [SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS]
    return named[0] if named else split_of_folders(path)


def one_a_split(
    storage: Storage, paths: Iterable[str], *, preferred: str = ""
) -> dict[str | None, str]:
    """Label files by split; a file that names no split counts where no other does.

    Args:
        storage: Where they lie.
        paths: The candidates.
        preferred: Part of the names of those that go before others.

    Raises:
        DataError: several could be meant.
    """
    by_split: defaultdict[str | None, list[str]] = defaultdict(list)
    for path in paths:
        by_split[split_of_file(path)].append(path)
    if len(by_split) > 1:
        by_split.pop(None, None)
    chosen: dict[str | None, str] = {}
    for split, files in by_split.items():
        first = [path for path in files if preferred and preferred in path.lower()] or files
        if len(first) > 1:
            raise DataError(
                f"{storage.location}: {' and '.join(first[:3])} could both be the labels; "
                "give the path of the one that is meant, or name the files after their splits"
            )
        chosen[split] = first[0]
    return chosen


class ImageFinder:
    """Finds the images that label files name.

    Args:
        storage: Where they lie.
    """

    def __init__(self, storage: Storage) -> None:
        self.images = [path for path in storage.paths if is_image(path)]
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.images:
            pure = PurePosixPath(_composed(path))
            self._by_name[pure.name].append(str(pure))
            self._by_stem[pure.stem].append(path)
        self._as_stored = {_composed(path): path for path in self.images}

    def named(self, names: Sequence[str], folder: str, split: str | None) -> list[str]:
        """Where files lie that one label file names.

        A name leads to a file that ends in it. Of several, one beside the label file goes first,
        then one in the folder that holds most of the others; pictures go before masks of the same
        name. Files of another split are never taken: `val/1.jpg` is not the missing `1.jpg` of
        train.

        Args:
            names: As written; folders of another machine are passed over.
            folder: Of the label file, empty at the top.
            split: Of the label file.

        Returns:
            One path a name; one that leads nowhere stays in the folder of the others.
        """
        tidy = [_tidy(name) for name in names]
        found = [self._ending(name, split) for name in tidy]
        if not any(found):
            tidy = [PurePosixPath(name).name for name in tidy]
            found = [self._ending(name, split) for name in tidy]
        own = f"{_composed(folder)}/" if folder else ""
        votes = Counter(prefix for prefixes in found for prefix in prefixes)
        best = max(votes, key=lambda p: (p == own, votes[p], _pictures(p), -len(p), p), default=own)
        places = [
            (prefixes[0] if len(prefixes) == 1 else best) + name
            for name, prefixes in zip(tidy, found, strict=True)
        ]
        return [self._as_stored.get(place, place) for place in places]

    def of_stem(self, path: str) -> str | None:
        """The image with the name of a label file, whatever its ending, that lies nearest."""
        label = PurePosixPath(path)
        folders, split = set(label.parts[:-1]), split_of_folders(path)
        return max(
            (p for p in self._by_stem[_composed(label.stem)] if _agree(split, split_of_folders(p))),
            key=lambda p: (len(folders & set(PurePosixPath(p).parts[:-1])), _pictures(p)),
            default=None,
        )

    def unnamed(self, named: Iterable[str]) -> list[str]:
        """Images that no label names, beside those that one does; elsewhere lie masks and icons."""
        known = set(named)
        folders = {_folder(path) for path in self.images if path in known}
        return [path for path in self.images if path not in known and _folder(path) in folders]

    def _ending(self, name: str, split: str | None) -> list[str]:
        """What stands before the name in the paths that end in it."""
        return [
            path.removesuffix(name)
            for path in self._by_name[PurePosixPath(name).name]
            if (path == name or path.endswith(f"/{name}")) and _agree(split, split_of_folders(path))
        ]


def _tidy(name: str) -> str:
    name = re.sub(r"^([A-Za-z]:)?/+", "", name.strip().replace("\\", "/"))
    return _composed("/".join(part for part in name.split("/") if part not in {"", ".", ".."}))


def _composed(name: str) -> str:
    """The same letters written in one way: macOS stores accents apart from their letters."""
    return unicodedata.normalize("NFC", name)


def _pictures(path: str) -> bool:
    """Whether the folder says so: `images/`, `JPEGImages/`."""
    return "image" in _folder(path).lower()


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _agree(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other
