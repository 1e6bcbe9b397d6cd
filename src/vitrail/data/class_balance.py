"""What can be wrong with classes, or the symbols of texts: none, few, unbalanced, in one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from vitrail.config import Config
from vitrail.data.dataset import Dataset
from vitrail.data.findings import Example, Finding, finding, many
from vitrail.types import VOID, Boxes, Segments, Target

MAX_IMBALANCE = 10
"""Training samples of the largest class over those of the smallest above which it is a finding."""

MIN_SAMPLES = 5
"""Training samples that a class should have."""


class SplitCounts(Config):
    """Size of one split.

    Attributes:
        samples: Samples, readable or not.
        classes: Samples of every class, the empty ones too; a multi-label sample counts in each.
            Of texts: how often every symbol occurs. Of boxes and masks: images that show it.
        objects: Objects of every class, without crowds; empty where targets are no objects.
        lengths: How many texts have each number of symbols; empty where targets are no texts.
        pixels: Of every class; empty where targets are no masks.
        judged: Pixels of masks that are not void.
    """

    samples: int
    classes: dict[str, int]
    objects: dict[str, int] = Field(default_factory=dict[str, int])
    lengths: dict[int, int] = Field(default_factory=dict[int, int])
    pixels: dict[str, int] = Field(default_factory=dict[str, int])
    judged: int = 0


def label_names(target: Target, classes: Sequence[str]) -> tuple[str, ...] | None:
    """The names of a target's classes, or the text it is; None for a sample without a label.

    Of boxes and segments: how many of each class, `12 RBC`, in the order of their names.
    """
    if target is None:
        return None
    if isinstance(target, Boxes):
        counts = object_counts(target, classes)
        return tuple(f"{count} {name}" for name, count in sorted(counts.items()))
    if isinstance(target, str):
        return (target,)
    if isinstance(target, Segments):
        counts = Counter(classes[label] for label in target.labels if label != VOID)
        return tuple(f"{count} {name}" for name, count in sorted(counts.items()))
    return tuple(classes[i] for i in (target if isinstance(target, tuple) else (target,)))


def object_counts(target: Boxes, classes: Sequence[str]) -> Counter[str]:
    """How many objects of each class an image shows, without crowds, by name."""
    return Counter(classes[box.label] for box in target.items if not box.crowd)


def class_counts(dataset: Dataset) -> SplitCounts:
    """Count the samples of every class, or the symbols of texts, without reading one."""
    if dataset.text:
        texts = [target for target in dataset.targets if isinstance(target, str)]
        found = Counter(symbol for text in texts for symbol in text)
        return SplitCounts(
            samples=len(dataset),
            classes={symbol: found[symbol] for symbol in dataset.classes},
            lengths=dict(sorted(Counter(map(len, texts)).items())),
        )
    if dataset.boxes:
        boxes = [target for target in dataset.targets if isinstance(target, Boxes)]
        shown = [object_counts(target, dataset.classes) for target in boxes]
        images = Counter(name for counts in shown for name in counts)
        objects = Counter[str]()
        for counts in shown:
            objects.update(counts)
        return SplitCounts(
            samples=len(dataset),
            classes={name: images[name] for name in dataset.classes},
            objects={name: objects[name] for name in dataset.classes},
        )
    if dataset.segments:
        return SplitCounts(samples=len(dataset), classes={})  # nobody knows before they are drawn
    found = Counter(
        name for target in dataset.targets for name in label_names(target, dataset.classes) or ()
    )
    return SplitCounts(
        samples=len(dataset), classes={name: found[name] for name in dataset.classes}
    )


def class_findings(counts: Mapping[str, SplitCounts]) -> Iterable[Finding]:
    """Findings about classes or symbols, from the sizes of the splits."""
    text = any(split.lengths for split in counts.values())
    scenes = any(split.objects or split.pixels for split in counts.values())
    noun = "symbol" if text else "class"
    splits = {name: split.classes for name, split in counts.items() if split.samples}
    names = list(dict.fromkeys(name for split in splits.values() for name in split))
    homes = {name: [s for s, split in splits.items() if split.get(name)] for name in names}
    empty = [Example(ids=(), note=name) for name in names if not homes[name]]
    yield from finding(
        "empty-class",
        "warning" if scenes else "error",  # COCO's list is kept where a few of its classes are used
        f"{many(len(empty), noun)} without any sample: add images or remove the class.",
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
        f"{many(len(alone), noun)} in one split only, so that it cannot be both learned and "
        "measured: add images of it to the other splits.",
        alone,
    )
    elsewhere = [
        Example(ids=(), note=f"{name} (in {' and '.join(homes[name])})")
        for name in names
        if len(homes[name]) > 1 and "train" not in homes[name]
    ]
    yield from finding(
        "not-in-train",
        "error",
        f"{many(len(elsewhere), noun)} that train does not show, so that nobody learns what is "
        "measured: add images of it to train, or cut with another --seed.",
        elsewhere,
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
        f"{many(len(few), noun)} with fewer than {MIN_SAMPLES} training samples: "
        f"add images{'' if text else ' or merge classes'}.",
        few,
    )
    # Neither symbols of a language nor what scenes show is ever balanced.
    if not scenes:
        yield from _long_texts(counts) if text else _imbalance(train)


def _long_texts(counts: Mapping[str, SplitCounts]) -> Iterable[Finding]:
    longest = {name: max(split.lengths, default=0) for name, split in counts.items()}
    trained = longest.pop("train", 0)
    yield from finding(
        "long-text",
        "warning",
        f"A model learns texts of up to {many(trained, 'symbol')}, but there are longer ones to "
        "measure it: add long texts to train.",
        [
            Example(ids=(), note=f"{name} ({many(length, 'symbol')})")
            for name, length in longest.items()
            if 0 < trained < length
        ],
    )


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
