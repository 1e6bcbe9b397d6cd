"""From what a person gives (a path, a built-in name) to a data set cut into splits."""

from __future__ import annotations

import hashlib
from typing import Literal

from vitrail.data.dataset import Dataset, Source, Subset
from vitrail.data.images import open_images
from vitrail.data.recognise import Wanted, label_fault, recognise
from vitrail.data.segments import SegmentDataset, hashed
from vitrail.data.split import split
from vitrail.errors import DataError
from vitrail.types import Boxes, Segments, Target

__all__ = ["Split", "Wanted", "fingerprint", "open_images", "open_labelled", "open_source"]

TEST_FRACTION = 0.2
VAL_FRACTION = 0.1
VAL_LIMIT = 10_000
"""What is cut off where the data bring no split; more validation images tell nothing new."""

Split = Literal["all", "train", "val", "test"]


def open_source(data: str, *, seed: int = 0, task: Wanted | None = None) -> Source:
    """Open a data set for training: detect its format and cut the splits that it lacks.

    Without a test part 20 % of train are cut off for it; without a validation part 10 % of what
    is left (at most 10,000). Both cuts are stratified, keep duplicates together and depend on the
    seed and the ids only. Published test and validation parts are never changed.

    Args:
        data: A folder, an archive, a CSV, COCO or YAML file, or one of `recognise.BUILT_IN`.
        seed: Of the cuts.
        task: What the data are for, where they can be opened in several ways.

    Raises:
        DataError: there is nothing to train on; one line with the way out.
    """
    found = recognise(data, task)
    whole = found.dataset
    if found.published and "train" not in found.published:
        raise DataError(f"{data}: has {' and '.join(found.published)}, but no train part")
    one_label = not (whole.text or whole.boxes or whole.segments)
    if one_label and len(whole.classes) < 2 and task == "segment":
        raise DataError(
            f"{data}: images, but no masks; put these into a folder 'masks' beside 'images', under "
            "the names of the images"
        )
    if one_label and len(whole.classes) < 2:
        raise DataError(
            f"{data}: only one class ('{''.join(whole.classes)}'); a classifier needs at least "
            f"two: add a folder or a label for each{label_fault(data)}"
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
            least = "at least 3 a class" if one_label else f"some more of every {kind}"
            raise DataError(f"{data}: too few images for a {name} part; give {least}")
    return Source(
        name=data,
        format=found.format,
        reason=found.reason,
        splits={name: splits[name] for name in ("train", "val", "test")},
        published=tuple(name for name in ("train", "val", "test") if name in found.published),
        fingerprint=fingerprint(whole),
    )


def open_labelled(
    data: str, *, split: Split = "all", seed: int = 0, task: Wanted | None = None
) -> Dataset:
    """Open labelled data for evaluation.

    Args:
        data: As for `open_source`; a single class and missing splits are allowed with `all`.
        split: `all` is everything in its original order; another name is that split, as published
            or as `open_source` cuts it.
        seed: Of the cut.
        task: As for `open_source`.

    Raises:
        DataError: there is nothing there that has labels.
    """
    found = recognise(data, task)
    if split == "all":
        return found.dataset
    uncut = split != "train" or {"val", "test"} <= set(found.published)
    if split in found.published and uncut:
        return Subset(found.dataset, found.published[split])
    return open_source(data, seed=seed, task=task).splits[split]


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the sorted ids, labels and stored sizes: names the data, in any order.

    Of masks in files the stored bytes count, which is quicker than to draw them.
    """
    lines = sorted(
        f"{name}\t{_label(dataset, index)}\t{dataset.stored_size(index)}\n"
        for index, name in enumerate(dataset.ids)
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _label(dataset: Dataset, index: int) -> str:
    """The label of a sample as it is hashed."""
    if isinstance(dataset, Subset):
        return _label(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, SegmentDataset):
        return dataset.digest(index)
    return _shown(dataset.targets[index])


def _shown(target: Target) -> str:
    """A label as it is hashed; boxes in any order, to a thousandth of a pixel."""
    if isinstance(target, Segments):
        return hashed(target.ids.numpy().tobytes(), str((target.labels, target.crowds)))
    if not isinstance(target, Boxes):
        return str(target)
    return " ".join(
        sorted(
            "{}{}:{:.3f},{:.3f},{:.3f},{:.3f}".format(box.label, "*" * box.crowd, *box.corners)
            for box in target.items
        )
    )
