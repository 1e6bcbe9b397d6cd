"""Cutting a data set into train, validation and test.

The cut is a function of the seed and the ids: each sample is ordered within its class by a hash of
(seed, id), so that adding a class or a worker changes nothing for the others. Samples with the
same bytes stay together: no duplicate crosses the cut.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from vitrail.data.dataset import Dataset, Subset
from vitrail.errors import BadSampleError
from vitrail.types import Boxes, Segments, Target

Group = list[int]
"""Samples with the same bytes."""


def split(dataset: Dataset, *, seed: int, test: float, val: float) -> dict[str, Subset]:
    """Cut test and validation parts out of a data set, class by class.

    Every class keeps at least one training sample; a class with three or more samples (that are
    no duplicates) has one in every part that is asked for. Multi-label data, texts, boxes and
    segments are cut at random; every class or symbol keeps a training sample there too, but for
    segments, whose classes nobody knows before they are drawn: `check` names those that train
    lacks.

    Args:
        dataset: What to cut.
        seed: Another seed, another cut.
        test: Fraction of all samples for `test`; 0 for no such part.
        val: Fraction of the remaining samples for `val`; 0 for no such part.

    Returns:
        `train` and the parts asked for, each in the original order.
    """
    assert 0 <= test < 1 and 0 <= val < 1, "fractions"  # noqa: PT018 one statement
    if not test and not val:
        return {"train": Subset(dataset, range(len(dataset)))}
    strata: defaultdict[Target, list[Group]] = defaultdict(list)
    for group in duplicate_groups(dataset):
        one = dataset.multilabel or dataset.text or dataset.boxes or dataset.segments
        strata[None if one else dataset.targets[group[0]]].append(group)
    parts: dict[str, list[Group]] = {"train": [], "val": [], "test": []}
    for groups in strata.values():
        groups.sort(key=lambda group: min(_order(seed, dataset.ids[i]) for i in group))
        rest = _take(groups, test, parts["test"], least=3)
        least = 2 if len(rest) < len(groups) else 3
        parts["train"] += _take(rest, val, parts["val"], least=least)
    if dataset.segments is None:
        _keep_every_class(parts, dataset.targets)
    asked = {"train": 1.0, "val": val, "test": test}
    return {
        name: Subset(dataset, sorted(i for group in groups for i in group))
        for name, groups in parts.items()
        if asked[name] > 0
    }


def duplicate_groups(dataset: Dataset) -> list[Group]:
    """All samples, those with equal bytes together, each group and the list in rising order.

    Only samples of equal stored size are read; one that cannot be read is alone.
    """
    by_size: defaultdict[int, Group] = defaultdict(list)
    for index in range(len(dataset)):
        by_size[dataset.stored_size(index)].append(index)
    groups: list[Group] = []
    for members in by_size.values():
        if len(members) == 1:
            groups.append(members)
            continue
        by_hash: defaultdict[object, Group] = defaultdict(list)
        for index in members:
            by_hash[_digest(dataset, index)].append(index)
        groups += by_hash.values()
    return sorted(groups)


def _digest(dataset: Dataset, index: int) -> object:
    try:
        return hashlib.sha256(dataset.read_bytes(index)).digest()
    except BadSampleError:
        return index


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()


def _take(
    groups: Sequence[Group], fraction: float, into: list[Group], *, least: int
) -> list[Group]:
    """Move whole groups until the fraction is reached; what is left over is returned.

    Of `least` groups or more at least one is moved, if it is small enough.
    """
    total = sum(map(len, groups))
    wanted = round(total * fraction)
    if fraction > 0 and len(groups) >= least:
        wanted = max(wanted, 1)
    rest: list[Group] = []
    taken = 0
    for group in groups:
        if taken + len(group) <= wanted < total:
            into.append(group)
            taken += len(group)
        else:
            rest.append(group)
    return rest


def _classes(target: Target) -> tuple[int | str, ...]:
    """The classes of a target, or the symbols of a text; nothing is learned from a crowd."""
    if target is None or isinstance(target, Segments):
        return ()
    if isinstance(target, Boxes):
        return tuple(box.label for box in target.items if not box.crowd)
    return (target,) if isinstance(target, int) else tuple(target)


def _keep_every_class(parts: dict[str, list[Group]], targets: Sequence[Target]) -> None:
    """Move groups back to train until no class or symbol is without a training sample."""
    counts = Counter(c for group in parts["train"] for i in group for c in _classes(targets[i]))
    for name in ("val", "test"):
        kept: list[Group] = []
        for group in parts[name]:
            found = [c for i in group for c in _classes(targets[i])]
            if any(counts[c] == 0 for c in found):
                counts.update(found)
                parts["train"].append(group)
            else:
                kept.append(group)
        parts[name] = kept
