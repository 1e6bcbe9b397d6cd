"""What can be wrong with boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from vitrail.data.boxes import BoxFiles, shown
from vitrail.data.dataset import Source
from vitrail.data.findings import Example, Finding, Seen, finding, many
from vitrail.data.label_findings import example, file_findings, label_files, similar_names
from vitrail.types import Box, Boxes

TINY = 2.0
"""Pixels of a side below which nobody can say what a box holds."""

HUGE = 0.95
"""Share of an image above which a box says nothing of where its object is."""

MANY_HUGE = 0.1
"""Share of all images with such a box above which it is a finding: close-ups are no fault."""


def box_findings(source: Source, seen: Sequence[Seen]) -> Iterable[Finding]:
    """Findings about boxes: those that were left out or cut off, repeated ones, absurd ones.

    Args:
        source: The data, cut into splits.
        seen: The samples that could be read.
    """
    parts = list(source.splits.values())
    dropped = [example(label) for part in parts for label in part.dropped]
    yield from finding(
        "unusable-box",
        "warning",
        f"{many(len(dropped), 'box')} that cannot be used and will be left out: correct or "
        "delete them.",
        dropped,
    )
    images = [
        (name, part.classes, target)
        for part in parts
        for name, target in zip(part.ids, part.targets, strict=True)
        if isinstance(target, Boxes)
    ]
    yield from _repeated(images)
    yield from _tiny(images)
    yield from _huge(images)
    yield from _wrong_sizes(source, seen)
    yield from similar_names(parts[0].classes)
    files = [each for each in label_files(parts) if isinstance(each, BoxFiles)]
    clipped = [example(label) for each in files for label in each.clipped]
    yield from finding(
        "clipped-box",
        "warning",
        f"{many(len(clipped), 'box')} that reach out of their image and are cut off at its edge: "
        "look whether they belong to it.",
        clipped,
    )
    for each in files:
        yield from file_findings(each, "label")


Image = tuple[str, Sequence[str], Boxes]
"""Id, names of the classes, objects."""


def _repeated(images: Sequence[Image]) -> Iterable[Finding]:
    """Boxes at the same place, to a pixel: of one class, or of two that contradict."""
    cases: list[Example] = []
    for name, classes, target in images:
        places: defaultdict[tuple[int, ...], list[Box]] = defaultdict(list)
        for box in target.items:
            places[tuple(round(corner) for corner in box.corners)].append(box)
        for boxes in places.values():
            if len(boxes) > 1:
                labels = " and ".join(f"'{classes[box.label]}'" for box in boxes[:4])
                cases.append(Example(ids=(name,), note=f"{labels} at {shown(boxes[0].corners)}"))
    yield from finding(
        "repeated-box",
        "warning",
        f"{many(len(cases), 'place')} with more than one box, which a detector finds only once: "
        "keep one of each.",
        cases,
    )


def _tiny(images: Sequence[Image]) -> Iterable[Finding]:
    cases = [
        Example(ids=(name,), note=f"'{classes[box.label]}' at {shown(box.corners)}")
        for name, classes, target in images
        for box in target.items
        if min(_sides(box)) < TINY
    ]
    yield from finding(
        "tiny-box",
        "warning",
        f"{many(len(cases), 'box')} with a side under {TINY:g} pixels: look at them, and delete "
        "slips of the mouse.",
        cases,
    )


def _huge(images: Sequence[Image]) -> Iterable[Finding]:
    cases: list[Example] = []
    for name, classes, target in images:
        if target.size is None:
            continue
        area = HUGE * target.size[0] * target.size[1]
        found = [box for box in target.items if _sides(box)[0] * _sides(box)[1] > area]
        if found:
            cases.append(Example(ids=(name,), note=f"'{classes[found[0].label]}'"))
    if len(cases) > MANY_HUGE * len(images):
        yield from finding(
            "huge-box",
            "warning",
            f"{many(len(cases), 'image')} with a box around more than {HUGE:.0%} of it, which says "
            "nothing of where the object is: look at them; classify may be the better task.",
            cases,
        )


def _wrong_sizes(source: Source, seen: Sequence[Seen]) -> Iterable[Finding]:
    """Images of another size than their label states: the boxes were drawn on another version."""
    stated = {
        (split, name): target.size
        for split, part in source.splits.items()
        for name, target in zip(part.ids, part.targets, strict=True)
        if isinstance(target, Boxes) and target.size is not None
    }
    cases: list[Example] = []
    for sample in seen:
        size = stated.get((sample.split, sample.id), sample.size)
        if size != sample.size:
            note = f"labelled as {_size(size)}, but it is {_size(sample.size)}"
            cases.append(Example(ids=(sample.id,), note=note))
    yield from finding(
        "wrong-size",
        "error",
        f"{many(len(cases), 'image')} of another size than the label says, so that boxes may lie "
        "elsewhere: label the images as they are.",
        cases,
    )


def _sides(box: Box) -> tuple[float, float]:
    x1, y1, x2, y2 = box.corners
    return x2 - x1, y2 - y1


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
