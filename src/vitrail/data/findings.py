"""What can be wrong with samples: unreadable, there twice, of odd size."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Literal

from vitrail.config import Config
from vitrail.data.duplicates import NEAR, exact_groups, near_groups
from vitrail.data.mask_facts import MaskFacts

Kind = Literal[
    "unreadable",
    "leak",
    "conflicting-labels",
    "duplicate",
    "near-leak",
    "near-duplicate",
    "odd-size",
    "empty-class",
    "label-in-one-split",
    "few-samples",
    "long-text",
    "imbalance",
    "unusable-box",
    "clipped-box",
    "repeated-box",
    "tiny-box",
    "huge-box",
    "wrong-size",
    "similar-names",
    "unlabelled-image",
    "label-without-image",
    "not-in-train",
    "unknown-value",
    "no-foreground",
    "empty-mask",
    "void-mask",
    "repeated-mask",
    "unusable-object",
    "tiny-object",
    "repeated-object",
    "many-parts",
    "overlap",
    "speck",
    "rare-class",
]

Severity = Literal["error", "warning", "info"]

Fault = Literal["unreadable", "wrong-size", "unknown-value"]
"""Why a sample cannot be used."""

MAX_ASPECT = 5.0
"""Longer side over shorter side above which an image is odd; a row of text may be of any length."""

MAX_SCALE = 4
"""Factor between an image's scale (root of its area) and the median above which it is odd."""

MIN_PIXELS = 16
"""Shorter side below which an image is odd, unless half of the images are that small."""

SHOWN = 20
"""Examples that a finding carries at most."""

_SHOWN_IDS = 8


class Example(Config):
    """One case of a finding.

    Attributes:
        ids: The samples that it is about, at most eight; empty where it is about a class.
        note: What is the matter with them, in a few words; may be empty.
    """

    ids: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (" and ".join(self.ids), self.note) if part)


class Finding(Config):
    """One thing that is wrong with the data.

    Attributes:
        kind: What it is, as a fixed word.
        severity: `error` makes training or its metrics wrong, `warning` makes them worse, `info`
            is no fault by itself.
        message: One sentence with the way out.
        count: How many cases there are.
        samples: The first cases, at most `SHOWN`.
    """

    kind: Kind
    severity: Severity
    message: str
    count: int
    samples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of one sample: a few hundred bytes, never its pixels."""

    id: str
    split: str
    labels: tuple[str, ...] | None
    error: str | None
    fault: Fault = "unreadable"
    digest: bytes | None = None
    looks: int | None = None
    size: tuple[int, int] = (0, 0)
    mask: MaskFacts | None = None


def finding(
    kind: Kind, severity: Severity, message: str, examples: Sequence[Example]
) -> Iterable[Finding]:
    """One finding over these cases, or nothing where there are none."""
    if examples:
        yield Finding(
            kind=kind,
            severity=severity,
            message=message,
            count=len(examples),
            samples=tuple(examples[:SHOWN]),
        )


def faulty(seen: Sequence[Seen], fault: Fault) -> list[Example]:
    """The samples that cannot be used for one reason, each with what was said."""
    return [
        Example(ids=(s.id,), note=s.error) for s in seen if s.error is not None and s.fault == fault
    ]


def unreadable(seen: Sequence[Seen]) -> Iterable[Finding]:
    """Files that cannot be decoded, each with its reason."""
    bad = faulty(seen, "unreadable")
    yield from finding(
        "unreadable",
        "error",
        f"{many(len(bad), 'file')} of {len(seen):,} cannot be read and will be skipped: "
        "replace or delete them.",
        bad,
    )


def duplicates(seen: Sequence[Seen]) -> Iterable[Finding]:
    """Equal bytes: across splits, under different labels, within a split."""
    groups = [[seen[i] for i in group] for group in exact_groups([s.digest for s in seen])]
    crossing = [_example(group) for group in groups if _crosses(group)]
    yield from finding(
        "leak",
        "error",
        f"{many(len(crossing), 'image')} in more than one split, byte for byte, which makes "
        "metrics too good: delete the copies from train.",
        crossing,
    )
    disputed = [_example(group) for group in groups if _disagree(group)]
    yield from finding(
        "conflicting-labels",
        "error",
        f"{many(len(disputed), 'image')} with different labels for the same bytes: "
        "keep the copy with the right label.",
        disputed,
    )
    inside = [_example(group) for group in groups if _repeats(group)]
    yield from finding(
        "duplicate",
        "warning",
        f"{many(len(inside), 'image')} more than once within a split, byte for byte: "
        "delete the copies.",
        inside,
    )


def near_duplicates(seen: Sequence[Seen]) -> Iterable[Finding]:
    """Different bytes that look the same: across splits, within a split."""
    copies: dict[bytes | None, list[Seen]] = {}
    for sample in seen:
        copies.setdefault(sample.digest, []).append(sample)
    # Exact copies were reported above; here each image counts once, with all its copies.
    images = list(copies.values())
    found = near_groups([image[0].looks for image in images])
    groups = [[sample for i in group for sample in images[i]] for group in found]
    how = f"(perceptual hash, at most {NEAR} of 64 bits apart)"
    crossing = [_example(group) for group in groups if _crosses(group)]
    yield from finding(
        "near-leak",
        "warning",
        f"{many(len(crossing), 'picture')} in more than one split in almost the same form {how}: "
        "look at them, and keep one of each.",
        crossing,
    )
    inside = [_example(group) for group in groups if not _crosses(group)]
    yield from finding(
        "near-duplicate",
        "warning",
        f"{many(len(inside), 'picture')} more than once within a split in almost the same form "
        f"{how}: look at them, and keep one of each.",
        inside,
    )


def odd_sizes(seen: Sequence[Seen], *, text: bool = False) -> Iterable[Finding]:
    """Strips (but not of text), and images far smaller or larger than the others."""
    if not seen:
        return
    scale = statistics.median(_scale(s.size) for s in seen)
    side = float(statistics.median(min(s.size) for s in seen))
    aspect = math.inf if text else MAX_ASPECT
    odd = [
        Example(ids=(s.id,), note=f"{s.size[1]} x {s.size[0]} ({why})")
        for s in seen
        if (why := _oddity(s.size, scale, side, aspect))
    ]
    yield from finding(
        "odd-size",
        "warning",
        f"{many(len(odd), 'image')} of odd size (the typical one is about {scale:.0f} x "
        f"{scale:.0f}): look at them, crop or delete those that show nothing.",
        odd,
    )


def _oddity(size: tuple[int, int], scale: float, side: float, aspect: float) -> str:
    if max(size) > aspect * min(size):
        return f"{max(size) / min(size):.1f} times as long as wide"
    if min(size) < MIN_PIXELS <= side:
        return "tiny"
    if _scale(size) * MAX_SCALE < scale:
        return "far smaller than the others"
    return "far larger than the others" if _scale(size) > MAX_SCALE * scale else ""


def _scale(size: tuple[int, int]) -> float:
    return (size[0] * size[1]) ** 0.5


def _example(group: Sequence[Seen]) -> Example:
    notes: list[str] = []
    if len(group) > _SHOWN_IDS:
        notes.append(f"and {len(group) - _SHOWN_IDS:,} more")
    if _crosses(group):
        notes.append(f"in {', '.join(dict.fromkeys(s.split for s in group))}")
    if _disagree(group):
        labels = dict.fromkeys(";".join(s.labels) for s in group if s.labels is not None)
        same = len(labels) == 1
        notes.append("with masks that differ" if same else f"labelled {', '.join(labels)}")
    by_split: defaultdict[str, list[str]] = defaultdict(list)
    for sample in group:
        by_split[sample.split].append(sample.id)
    # In turn from each split, so that a case that crosses shows both sides.
    turns = chain.from_iterable(zip_longest(*by_split.values()))
    ids = tuple(islice((name for name in turns if name is not None), _SHOWN_IDS))
    return Example(ids=ids, note="; ".join(notes))


def _crosses(group: Sequence[Seen]) -> bool:
    return len({s.split for s in group}) > 1


def _repeats(group: Sequence[Seen]) -> bool:
    return len({s.split for s in group}) < len(group)


def _disagree(group: Sequence[Seen]) -> bool:
    labels = {(s.labels, s.mask and s.mask.digest) for s in group if s.labels is not None}
    return len(labels) > 1


def many(count: int, noun: str) -> str:
    """`1 image`, `2,000 images`, `3 boxes`."""
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
