"""Images without labels: what is given to predict."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vitrail.data.files import FileDataset, Place
from vitrail.data.storage import Folder, is_archive, missing, open_storage
from vitrail.errors import DataError

NOT_IMAGES = frozenset(
    """
    .txt .csv .tsv .json .jsonl .xml .md .markdown .rst .html .htm .css .js .yaml .yml .toml
    .ini .cfg .log .py .pyc .ipynb .sh .zip .gz .tgz .xz .bz2 .zst .7z .rar .parquet
    .safetensors .pt .pth .onnx .npy .npz .mp4 .mov .avi .mkv .mp3 .wav
    """.split()  # noqa: SIM905 one word a suffix
)
"""Endings that are passed over in folders; a file of any other ending is tried as an image."""

_MAGIC = frozenset("*?[")


class ImageFiles(FileDataset):
    """Images by path; `ids` are the paths as a person would write them, `targets` are None."""


def open_images(patterns: Sequence[str]) -> ImageFiles:
    """Find images: files, folders (with all below), globs (`**` too) and archives.

    In folders and archives every file counts but hidden ones and those of `NOT_IMAGES`, which
    `ignored` counts: nothing that may be an image is passed over. A file that is named counts
    always; one that cannot be read is a bad sample. What is found twice counts once.

    Raises:
        DataError: a pattern finds nothing, or an archive is damaged.
    """
    found: dict[str, Place] = {}
    ignored = 0
    for pattern in patterns:
        images = 0
        for name, place in _expand(pattern):
            if place is None:
                ignored += 1
            else:
                images += 1
                found.setdefault(name, place)
        if not images:
            raise DataError(f"{pattern}: no images found; give image files, folders or patterns")
    if not found:
        raise DataError("no images given; name files, folders, archives or patterns like '*.jpg'")
    ids = list(found)
    return ImageFiles(list(found.values()), ids, [None] * len(ids), ignored=ignored)


def _expand(pattern: str) -> Iterator[tuple[str, Place | None]]:
    """Name and place of each file behind a pattern; no place for one that is no image."""
    path = Path(pattern).expanduser()
    if path.exists():
        yield from _expand_path(path, pattern)
        return
    if not _MAGIC & set(pattern):
        raise missing(path)
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 knows `**` and absolute
    for match in map(Path, matches):
        if not match.is_dir() or "**" not in pattern:
            yield from _expand_path(match, str(match))


def _expand_path(path: Path, shown: str) -> Iterator[tuple[str, Place | None]]:
    if path.is_file() and not is_archive(path):
        yield shown, (Folder(path.parent), path.name)
        return
    storage = open_storage(path)
    for inner in storage.paths:
        name = str(PurePosixPath(shown) / inner)
        wanted = PurePosixPath(inner).suffix.lower() not in NOT_IMAGES
        yield name, ((storage, inner) if wanted else None)
