"""Is this data fit for training? Every sample is read, and what is wrong is said in plain words."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence

from vitrail.config import Config
from vitrail.data.box_findings import box_findings
from vitrail.data.class_balance import SplitCounts, class_counts, class_findings, label_names
from vitrail.data.dataset import Dataset, Source
from vitrail.data.duplicates import MIN_SIDE, perceptual_hash
from vitrail.data.findings import (
    Fault,
    Finding,
    Seen,
    duplicates,
    many,
    near_duplicates,
    odd_sizes,
    unreadable,
)
from vitrail.data.mask_facts import mask_facts
from vitrail.data.mask_findings import mask_counts, mask_findings, things_of
from vitrail.data.segments import MaskSizeError, MaskValueError
from vitrail.data.workers import Threads, run
from vitrail.errors import BadSampleError
from vitrail.machine import usable_cores
from vitrail.types import Segments

_THREADS = 8  # more of them only wait for each other
_CHUNK = 16


class Report(Config):
    """What `check` found.

    Attributes:
        format: The format that was recognised.
        reason: Why.
        published: The splits that the data brought; the others are cut by the seed.
        counts: Sizes by the name of the split.
        findings: What is wrong, errors first; nothing but `info` for data that are fit.
        notes: What was not looked at, and why.
    """

    format: str
    reason: str
    published: tuple[str, ...]
    counts: dict[str, SplitCounts]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


def check(source: Source, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Look at every sample of a data set for what spoils training or its metrics.

    Args:
        source: The data, cut into splits.
        progress: Called from this thread with the number of samples done and of all samples.

    Returns:
        What was found. Data without errors and warnings are fit for training.
    """
    text = source.splits["train"].text
    seen = _look(source, progress)
    readable = [sample for sample in seen if sample.error is None]
    counts = {
        name: mask_counts(dataset, [sample for sample in readable if sample.split == name])
        if dataset.segments
        else class_counts(dataset)
        for name, dataset in source.splits.items()
    }
    findings = [
        *unreadable(seen),
        *duplicates(readable),
        *near_duplicates(readable),
        *odd_sizes(readable, text=text),
        *class_findings(counts),
        *(box_findings(source, readable) if source.splits["train"].boxes else ()),
        *(mask_findings(source, seen, counts) if source.splits["train"].segments else ()),
    ]
    findings.sort(key=lambda finding: ("error", "warning", "info").index(finding.severity))
    return Report(
        format=source.format,
        reason=source.reason,
        published=source.published,
        counts=counts,
        findings=tuple(findings),
        notes=_notes(readable, text=text),
    )


def _look(source: Source, progress: Callable[[int, int], None] | None) -> list[Seen]:
    jobs = [
        (name, dataset, range(start, min(start + _CHUNK, len(dataset))))
        for name, dataset in source.splits.items()
        for start in range(0, len(dataset), _CHUNK)
    ]
    total = sum(map(len, source.splits.values()))
    seen: list[Seen] = []
    for chunk in run(_look_at_chunk, jobs, Threads(min(_THREADS, math.ceil(usable_cores())))):
        seen += chunk
        if progress is not None:
            progress(len(seen), total)
    return seen


def _look_at_chunk(job: tuple[str, Dataset, range], stop: threading.Event) -> list[Seen]:
    split, dataset, indices = job
    return [_look_at(split, dataset, index) for index in indices if not stop.is_set()]


def _look_at(split: str, dataset: Dataset, index: int) -> Seen:
    name, labels = dataset.ids[index], None
    try:
        if dataset.segments is None:
            labels = label_names(dataset.targets[index], dataset.classes)
        sample = dataset.read(index)
        digest = hashlib.sha256(dataset.read_bytes(index)).digest()
    except BadSampleError as error:
        return Seen(name, split, labels, str(error), _fault(error))
    mask = None
    if isinstance(sample.target, Segments):  # read once, with its image
        labels = label_names(sample.target, dataset.classes)
        mask = mask_facts(sample.target, things_of(dataset))
    looks = None if dataset.text else perceptual_hash(sample.image)
    height, width = sample.image.shape[1:]
    return Seen(
        name, split, labels, None, digest=digest, looks=looks, size=(height, width), mask=mask
    )


def _fault(error: BadSampleError) -> Fault:
    if isinstance(error, MaskSizeError):
        return "wrong-size"
    return "unknown-value" if isinstance(error, MaskValueError) else "unreadable"


def _notes(seen: Sequence[Seen], *, text: bool) -> tuple[str, ...]:
    if text:
        return (
            "not compared for near duplicates: rows of text look alike to a perceptual hash, "
            "whatever they say.",
        )
    skipped = sum(s.looks is None for s in seen)
    if not skipped:
        return ()
    return (
        f"{many(skipped, 'image')} not compared for near duplicates: with a side under "
        f"{MIN_SIDE} pixels, or flat, a perceptual hash means nothing.",
    )
