"""What can be wrong with the names of classes, and with the files that hold boxes or masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from vitrail.data.boxes import BoxFiles
from vitrail.data.dataset import Dataset, Subset
from vitrail.data.findings import Example, Finding, finding, many
from vitrail.data.segments import MaskFiles
from vitrail.types import Skipped


def similar_names(classes: Sequence[str]) -> Iterable[Finding]:
    """Names that differ in case and spaces alone."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups["".join(name.casefold().split())].append(name)
    alike = [" and ".join(f"'{n}'" for n in names) for names in groups.values() if len(names) > 1]
    yield from finding(
        "similar-names",
        "error",
        f"{many(len(alike), 'class')} under names that differ only by case or space, which are "
        "learned as different ones: write each in one way.",
        [Example(ids=(), note=names) for names in alike],
    )


def label_files(parts: Iterable[Dataset]) -> list[BoxFiles | MaskFiles]:
    """The data sets of files that the splits were cut out of, each once."""
    found: dict[int, BoxFiles | MaskFiles] = {}
    for part in parts:
        whole = part
        while isinstance(whole, Subset):
            whole = whole.dataset
        if isinstance(whole, BoxFiles | MaskFiles):
            found[id(whole)] = whole
    return list(found.values())


def file_findings(files: BoxFiles | MaskFiles, noun: Literal["label", "mask"]) -> Iterable[Finding]:
    """Images that no label speaks of, and labels of no image.

    Args:
        files: Where both come from.
        noun: What people call a label there.
    """
    known = set(files.ids)
    used = any(path in known for path in files.unlabelled)
    what = "count as images without objects" if used else "are left out"
    yield from finding(
        "unlabelled-image",
        "warning",
        f"{many(len(files.unlabelled), 'image file')} without a {noun}, which {what}: label them, "
        "or move them away.",
        [Example(ids=(path,)) for path in files.unlabelled],
    )
    yield from finding(
        "label-without-image",
        "warning",
        f"{many(len(files.unmatched), noun)} without an image, which are left out: add the images "
        f"or delete the {noun}s.",
        [example(label) for label in files.unmatched],
    )


def example(label: Skipped) -> Example:
    """A label and the reason why it cannot be used."""
    return Example(ids=(label.id,), note=label.reason)
