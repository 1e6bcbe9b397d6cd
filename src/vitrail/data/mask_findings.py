"""What can be wrong with masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from vitrail.data.class_balance import SplitCounts
from vitrail.data.dataset import Dataset, Source
from vitrail.data.findings import Example, Finding, Seen, faulty, finding, many
from vitrail.data.label_findings import example, file_findings, label_files, similar_names
from vitrail.data.mask_facts import COVERED, MANY_PARTS, SPECK, MaskFacts

RARE = 0.001
"""Share of the pixels of train under which a class is easily lost."""

_SHOWN_IDS = 8


def things_of(dataset: Dataset) -> tuple[bool, ...]:
    """Whether the segments of each class are objects."""
    return dataset.things or (dataset.segments == "instance",) * len(dataset.classes)


def mask_counts(dataset: Dataset, seen: Sequence[Seen]) -> SplitCounts:
    """Size of one split from what was seen of it.

    Args:
        dataset: The split.
        seen: Its samples that could be read.
    """
    facts = [sample.mask for sample in seen if sample.mask is not None]
    images = Counter(label for mask in facts for label in mask.pixels)
    pixels, objects = Counter[int](), Counter[int]()
    for mask in facts:
        pixels.update(mask.pixels)
        objects.update(mask.objects)
    own = [label for label, thing in enumerate(things_of(dataset)) if thing]
    names = dataset.classes
    return SplitCounts(
        samples=len(dataset),
        classes={name: images[label] for label, name in enumerate(names)},
        objects={names[label]: objects[label] for label in own},
        pixels={name: pixels[label] for label, name in enumerate(names)},
        judged=sum(mask.judged for mask in facts),
    )


def mask_findings(
    source: Source, seen: Sequence[Seen], counts: Mapping[str, SplitCounts]
) -> Iterable[Finding]:
    """Findings about masks: those that fit no image or no class, empty ones, slips of the hand.

    Args:
        source: The data, cut into splits.
        seen: All samples.
        counts: Of `mask_counts`, by split.
    """
    train = source.splits["train"]
    masks = [(sample, sample.mask) for sample in seen if sample.mask is not None]
    yield from _faults(seen)
    yield from _no_foreground(counts)
    yield from _empty(masks)
    yield from _repeated_masks(masks)
    yield from _objects(masks, train.classes)
    yield from _specks(masks, train.classes)
    if train.segments != "instance":
        yield from _rare(counts["train"])
    yield from similar_names(train.classes)
    yield from _file_findings(source)


Mask = tuple[Seen, MaskFacts]


def _faults(seen: Sequence[Seen]) -> Iterable[Finding]:
    sizes = faulty(seen, "wrong-size")
    yield from finding(
        "wrong-size",
        "error",
        f"{many(len(sizes), 'mask')} of another size than the image, which will be skipped: export "
        "the masks for the images as they are.",
        sizes,
    )
    values = faulty(seen, "unknown-value")
    yield from finding(
        "unknown-value",
        "error",
        f"{many(len(values), 'mask')} with values or colours that stand for no class, which will "
        "be skipped: name them in the file of the classes, or correct the masks.",
        values,
    )


def _no_foreground(counts: Mapping[str, SplitCounts]) -> Iterable[Finding]:
    without = [name for name, split in counts.items() if not any(split.pixels.values())]
    yield from finding(
        "no-foreground",
        "error",
        f"{many(len(without), 'split')} without a pixel of any class, so that nothing can be "
        "learned or measured there: add images that show one.",
        [Example(ids=(), note=name) for name in without],
    )


def _empty(masks: Sequence[Mask]) -> Iterable[Finding]:
    empty = [Example(ids=(sample.id,)) for sample, mask in masks if not mask.pixels and mask.judged]
    yield from finding(
        "empty-mask",
        "info",
        f"{many(len(empty), 'mask')} without any segment; they teach what is background, if "
        "nothing was forgotten.",
        empty,
    )
    void = [Example(ids=(sample.id,)) for sample, mask in masks if not mask.judged]
    yield from finding(
        "void-mask",
        "warning",
        f"{many(len(void), 'mask')} of void pixels alone, of which nothing is learned or measured: "
        "label them, or take them out.",
        void,
    )


def _repeated_masks(masks: Sequence[Mask]) -> Iterable[Finding]:
    """One mask for several pictures; the same picture twice is reported elsewhere."""
    groups: defaultdict[bytes, list[Seen]] = defaultdict(list)
    for sample, mask in masks:
        if not mask.plain:
            groups[mask.digest].append(sample)
    cases: list[Example] = []
    for group in groups.values():
        if len({sample.digest for sample in group}) > 1:
            left = len(group) - _SHOWN_IDS
            ids = tuple(sample.id for sample in group[:_SHOWN_IDS])
            cases.append(Example(ids=ids, note=f"and {left:,} more" if left > 0 else ""))
    yield from finding(
        "repeated-mask",
        "warning",
        f"{many(len(cases), 'mask')} that several different images share to a pixel: look which "
        "image each was drawn on.",
        cases,
    )


def _objects(masks: Sequence[Mask], classes: Sequence[str]) -> Iterable[Finding]:
    tiny = _each(masks, classes, lambda mask: mask.tiny, "pixel")
    yield from finding(
        "tiny-object",
        "warning",
        f"{many(len(tiny), 'object')} of fewer than {SPECK} pixels: look at them, and delete slips "
        "of the mouse.",
        tiny,
    )
    broken = _each(masks, classes, lambda mask: mask.broken, "part")
    yield from finding(
        "many-parts",
        "warning",
        f"{many(len(broken), 'object')} in more than {MANY_PARTS} parts: look whether each is one.",
        broken,
    )
    repeated = [
        Example(ids=(sample.id,), note=f"'{classes[one]}' and '{classes[other]}'")
        for sample, mask in masks
        for one, other in mask.repeated
    ]
    yield from finding(
        "repeated-object",
        "warning",
        f"{many(len(repeated), 'object')} drawn twice at the same place: keep one of each.",
        repeated,
    )
    covered = [
        Example(ids=(sample.id,), note=many(mask.covered, "pair"))
        for sample, mask in masks
        if mask.covered
    ]
    yield from finding(
        "overlap",
        "info",
        f"{many(len(covered), 'image')} in which objects share more than {COVERED:.0%} of the "
        "smaller one; each is learned whole.",
        covered,
    )


def _each(
    masks: Sequence[Mask],
    classes: Sequence[str],
    found: Callable[[MaskFacts], Sequence[tuple[int, int]]],
    noun: str,
) -> list[Example]:
    return [
        Example(ids=(sample.id,), note=f"'{classes[label]}' of {many(count, noun)}")
        for sample, mask in masks
        for label, count in found(mask)
    ]


def _specks(masks: Sequence[Mask], classes: Sequence[str]) -> Iterable[Finding]:
    cases: list[Example] = []
    for sample, mask in masks:
        if mask.specks:
            names = ", ".join(dict.fromkeys(classes[label] for label, _ in mask.specks))
            note = f"{many(len(mask.specks), 'speck')} of {names}"
            cases.append(Example(ids=(sample.id,), note=note))
    yield from finding(
        "speck",
        "info",
        f"{many(len(cases), 'mask')} with patches of fewer than {SPECK} pixels; many of them speak "
        "for masks that were resized or stored with loss.",
        cases,
    )


def _rare(train: SplitCounts) -> Iterable[Finding]:
    shares = {name: count / max(train.judged, 1) for name, count in train.pixels.items() if count}
    rare = [
        Example(ids=(), note=f"{name} ({share:.3%}, {many(train.classes[name], 'image')})")
        for name, share in shares.items()
        if share < RARE
    ]
    yield from finding(
        "rare-class",
        "warning",
        f"{many(len(rare), 'class')} with less than {RARE:.1%} of the pixels of train: add images "
        "of it, and watch its own figures instead of the mean.",
        rare,
    )


def _file_findings(source: Source) -> Iterable[Finding]:
    parts = list(source.splits.values())
    dropped = [example(label) for part in parts for label in part.dropped]
    yield from finding(
        "unusable-object",
        "warning",
        f"{many(len(dropped), 'object')} that cannot be used and will be left out: correct or "
        "delete them.",
        dropped,
    )
    for files in label_files(parts):
        yield from file_findings(files, "mask")
