"""What can be wrong with classes: empty, tiny, far from balanced, missing in a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from vitrail.config import Config
from vitrail.data.dataset import Dataset
from vitrail.data.findings import Example, Finding, finding, many
from vitrail.types import Target

MAX_IMBALANCE = 10
"""Training samples of the largest class over those of the smallest above which it is a finding."""

MIN_SAMPLES = 5
"""Training samples that a class should have."""


class SplitCounts(Config):
    """Size of one split.

    Attributes:
        samples: Samples, readable or not.
        classes: Samples of every class, the empty ones too; a multi-label sample counts in each.
    """

    samples: int
    classes: dict[str, int]


def label_names(target: Target, classes: Sequence[str]) -> tuple[str, ...] | None:
    """The names of a target's classes; None for a sample without a label."""
    if target is None:
        return None
    return tuple(classes[i] for i in (target if isinstance(target, tuple) else (target,)))


def class_counts(dataset: Dataset) -> SplitCounts:
    """Count the samples of every class, without reading one."""
    found = Counter(
        name for target in dataset.targets for name in label_names(target, dataset.classes) or ()
    )
    return SplitCounts(
        samples=len(dataset), classes={name: found[name] for name in dataset.classes}
    )


def class_findings(counts: Mapping[str, SplitCounts]) -> Iterable[Finding]:
    """Findings about classes, from the sizes of the splits."""
    splits = {name: split.classes for name, split in counts.items() if split.samples}
    names = list(dict.fromkeys(name for split in splits.values() for name in split))
    homes = {name: [s for s, split in splits.items() if split.get(name)] for name in names}
    empty = [Example(ids=(), note=name) for name in names if not homes[name]]
    yield from finding(
        "empty-class",
        "error",
        f"{many(len(empty), 'class')} without any sample: add images or remove the class.",
        empty,
    )
    alone = [
        Example(ids=(), note=f"{name} (only in {homes[name][0]})")
        for name in names
        if len(homes[name]) == 1 < len(splits)
    ]
    unlearnable = any(homes[name] and "train" not in homes[name] for name in names)
    yield from finding(
        "label-in-one-split",
        "error" if unlearnable else "warning",
        f"{many(len(alone), 'class')} in one split only, so that it cannot be both learned and "
        "measured: add images of it to the other splits.",
        alone,
    )
    train = {name: n for name, n in splits.get("train", {}).items() if n}
    few = [
        Example(ids=(), note=f"{name} ({many(n, 'training sample')})")
        for name, n in train.items()
        if n < MIN_SAMPLES
    ]
    yield from finding(
        "few-samples",
        "warning",
        f"{many(len(few), 'class')} with fewer than {MIN_SAMPLES} training samples: "
        "add images or merge classes.",
        few,
    )
    yield from _imbalance(train)


def _imbalance(train: dict[str, int]) -> Iterable[Finding]:
    if not train or max(train.values()) <= MAX_IMBALANCE * min(train.values()):
        return
    least, most = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    yield from finding(
        "imbalance",
        "warning",
        f"The largest class has {train[most] / train[least]:.1f} times as many training samples "
        "as the smallest: train with class weights and watch balanced_accuracy.",
        [Example(ids=(), note=f"{name} ({train[name]:,})") for name in (most, least)],
    )
