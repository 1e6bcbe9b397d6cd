"""Test images with true and answered segments, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrail.data.dataset import Dataset
from vitrail.errors import BadSampleError
from vitrail.metrics.mask_truth import truth_of
from vitrail.metrics.segment_pairs import pair_segments
from vitrail.metrics.segmentation import ImageSegmentation
from vitrail.metrics.segmentation_maps import ClassMaps, class_maps
from vitrail.palette import Colour, colours
from vitrail.report_pictures import Picture
from vitrail.report_regions import (
    VERDICTS,
    Pixels,
    as_regions,
    class_picture,
    error_picture,
    object_pictures,
    plain_picture,
    verdict_picture,
)
from vitrail.report_samples import percent
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import VOID, Segmentation, Segments, Target


@dataclass(frozen=True, slots=True)
class Shown:
    """One test image that was answered.

    Attributes:
        index: Its number in the split.
        found: What the model says; of objects those that count.
        figures: How well that went.
    """

    index: int
    found: Segmentation
    figures: ImageSegmentation


@dataclass(frozen=True, slots=True)
class Pictures:
    """One image four times: as it is, the truth, the answer, and where both differ."""

    image: Picture
    truth: Picture
    answer: Picture
    errors: Picture


@dataclass(frozen=True, slots=True)
class Case:
    """One test image on the page.

    Attributes:
        id: Name of the sample.
        figure: Name of the figure that ranks it, and its value in words.
        detail: What else there is to say.
        pictures: Image, truth, answer and errors.
        colours: Classes that it shows or is said to show; empty where colours tell objects apart.
    """

    id: str
    figure: tuple[str, str]
    detail: str
    pictures: Pictures
    colours: tuple[tuple[str, Colour], ...]


def ranked(shown: Sequence[Shown], task: SegmentConfig) -> list[Shown]:
    """The worst first; of equal ones that with the most wrong pixels."""
    known = [one for one in shown if _rank(one, task) is not None]
    return sorted(known, key=lambda one: (_rank(one, task), -one.figures.wrong, one.index))


def show_each(
    task: SegmentConfig,
    test: Dataset,
    targets: Sequence[Target],
    shown: Sequence[Shown],
    *,
    most: int,
) -> list[Case]:
    """Draw images in their order; those that cannot be read again are left out.

    Args:
        task: What was asked for.
        test: What was measured.
        targets: Its segments with the model's class numbers.
        shown: Images that were answered.
        most: Images to draw at most.
    """
    cases: list[Case] = []
    for one in shown:
        if len(cases) == most:
            break
        try:
            sample, target = test.read(one.index), targets[one.index]
        except BadSampleError:
            continue
        assert isinstance(target, Segments)
        draw = _objects if task.answer == "instance" else _classes
        pictures, detail = draw(task, sample.image, target, one.found)
        cases.append(
            Case(sample.id, _figure(one, task), detail, pictures, _colours(task, target, one.found))
        )
    return cases


def shuffled(shown: Sequence[Shown], *, seed: int = 0) -> list[Shown]:
    """Images as they come: drawn, not chosen."""
    return [shown[i] for i in np.random.default_rng(seed).permutation(len(shown)).tolist()]


def _rank(one: Shown, task: SegmentConfig) -> float | None:
    figures = one.figures
    if task.answer == "semantic" or figures.pq is None:
        return figures.dice
    return figures.pq


def _figure(one: Shown, task: SegmentConfig) -> tuple[str, str]:
    value = _rank(one, task)
    name = "Dice" if task.answer == "semantic" or one.figures.pq is None else "PQ"
    return name, "–" if value is None else percent(value)


def _classes(
    task: SegmentConfig, image: Pixels, target: Segments, found: Segmentation
) -> tuple[Pictures, str]:
    """Regions in the colours of their classes, and pixels that are wrong."""
    index = {name: i for i, name in enumerate(task.classes)}
    maps = class_maps(found, target, index, background=task.background)
    truth = as_regions(truth_of(target, background=task.background), target.size, task.classes)
    pictures = Pictures(
        plain_picture(image),
        class_picture(image, truth, task.classes),
        class_picture(image, found, task.classes),
        error_picture(image, maps, background=task.background),
    )
    judged = int(maps.judged.sum())
    wrong = int((maps.judged & (maps.truth != maps.answer)).sum())
    words = f"{percent(wrong / judged)} of its pixels wrong" if judged else "nothing is judged"
    return pictures, f"{words}{_held_together(maps)}" if task.binary else words


def _held_together(maps: ClassMaps) -> str:
    """Whether thin things are in one piece."""
    from vitrail.metrics.topology import centrelines, pieces

    truth, answer = maps.masks(0)
    if not truth.any():
        return "; nothing to find"
    inside, ours, covered, theirs = (int(count) for count in centrelines(answer, truth))
    words = f"; in {_count(pieces(answer), 'piece')}, the truth in {pieces(truth)}"
    if covered < theirs:
        words += f"; {percent(1 - covered / theirs, 0)} of its centreline missing"
    if inside < ours:
        words += f"; {percent(1 - inside / ours, 0)} of the answer's centreline beside it"
    return words


def _objects(
    task: SegmentConfig, image: Pixels, target: Segments, found: Segmentation
) -> tuple[Pictures, str]:
    """Each object in its own colour, the same in the answer that found it; what became of it."""
    index = {name: i for i, name in enumerate(task.classes)}
    truth = truth_of(target, background=task.background)
    rles = [region.rle for region in found.regions]
    paired = pair_segments(
        rles, [index[region.label] for region in found.regions], truth, target.size
    )
    whole = as_regions(truth, target.size, task.classes)
    pictures = Pictures(
        plain_picture(image),
        *object_pictures(image, whole, found, paired),
        verdict_picture(image, truth, found, paired),
    )
    counts = Counter(paired.verdicts)
    objects = len(paired.verdicts) - counts["crowd"]
    rest = [f"{counts[name]} {words}" for name, (words, _) in VERDICTS.items() if counts[name]]
    if not counts["found"]:
        rest.insert(0, "none found")
    wrong = _count(len(paired.wrong), "wrong answer")
    return pictures, f"{_count(objects, 'object')}: " + ", ".join([*rest, wrong])


def _colours(
    task: SegmentConfig, target: Segments, found: Segmentation
) -> tuple[tuple[str, Colour], ...]:
    if task.answer == "instance":
        return ()
    named = {task.classes[label] for label in target.labels if label != VOID}
    named |= {region.label for region in found.regions}
    pairs = zip(task.classes, colours(len(task.classes)), strict=True)
    return tuple((name, colour) for name, colour in pairs if name in named)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
