"""How the mask files of a data set are to be read: looked at, decided, said."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vitrail.data.decode import FORMATS
from vitrail.data.mask_classes import ClassFile, Named, named
from vitrail.data.mask_values import FileMask, Kind, is_lossy, mask_values, smeared, unnamed
from vitrail.data.segments import MaskAnnotations, MaskEntry
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.machine import usable_cores
from vitrail.types import VOID, Skipped

FOREGROUND = "foreground"
CUT = 128
"""Grey from which on a binary mask with soft edges is foreground."""

_SOFT = 48
"""Greys that lossy files make of black and of white."""
_MANY = 32
_MOST_COLOURS = 512
_FEW = 0.1
"""Slips among binary masks, as a share of these: in more of them other values are classes."""
_LOOKED_AT = 20  # masks that say what the others are, where a file names the classes
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask, both in one storage, with the split that they were published in."""

    image: str
    mask: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one mask file holds.

    Attributes:
        path: Of the file.
        values: Those that occur; empty where it has colours.
        soft: Share of its pixels that are nearly 0 or nearly 255.
        colours: Those that occur, of a file with colours or a palette.
        palette: Whether values are indices of a palette.
        lossy: Whether values are near those that were meant.
        error: Why it cannot be read; empty where it can.
    """

    path: str
    values: frozenset[int] = frozenset()
    soft: float = 0.0
    colours: frozenset[int] = frozenset()
    palette: bool = False
    lossy: bool = False
    error: str = ""


def semantic(
    storage: Storage,
    pairs: Sequence[Pair],
    files: Sequence[ClassFile],
    *,
    name: str,
    layout: str,
    unlabelled: Sequence[str] = (),
    unmatched: Sequence[Skipped] = (),
) -> MaskAnnotations:
    """Data of images with masks of classes.

    Args:
        storage: Where everything lies.
        pairs: Images with their masks.
        files: What may name the classes.
        name: Of the format.
        layout: Why it was recognised.
        unlabelled: As in `MaskAnnotations`.
        unmatched: As in `MaskAnnotations`.

    Raises:
        DataError: nothing says what the masks mean, or they show nothing.
    """
    kind, classes = kind_of(storage, [pair.mask for pair in pairs], files)
    by = f", named by {kind.source}" if kind.source else ""
    many = f"{len(classes.classes)} class{'es' if len(classes.classes) != 1 else ''}"
    ground = "and background" if classes.background else "without background"
    return MaskAnnotations(
        format=name,
        reason=f"{layout}: {kind.name}, {many} {ground}{by}",
        location=str(storage.location),
        entries=[
            MaskEntry((storage, p.image), FileMask(storage, p.mask, kind), p.mask, split=p.split)
            for p in pairs
        ],
        classes=classes.classes,
        segments="semantic",
        background=classes.background,
        category_ids=classes.values if not kind.colours and kind.cut is None else None,
        unlabelled=unlabelled,
        unmatched=unmatched,
    )


def kind_of(
    storage: Storage, masks: Sequence[str], files: Sequence[ClassFile]
) -> tuple[Kind, Named]:
    """How mask files are read, and the classes that they show.

    Where a file names the classes a few masks say which kind they are; else all are read, since
    only they say which classes there are.

    Raises:
        DataError: nothing says what the masks mean, or they show nothing.
    """
    looked = masks[:: max(1, len(masks) // _LOOKED_AT)] if files else masks
    every = _looks(storage, looked)
    looks = [look for look in every if not look.error]
    if not looks:
        raise DataError(
            f"{storage.location}: no mask can be read: {every[0].path} {every[0].error}"
        )
    binary = _binary(looks)
    lossy = [look.path for look in looks if look.lossy]
    unsure = binary is None or binary.cut is None
    if unsure and lossy and (not files or len(lossy) == len(looks)):
        raise DataError(f"{storage.location}: {smeared(lossy[0])} from their source")
    kind, classes = _decided(storage, looks, files, binary)
    rest = set(masks) - set(looked)
    if not any(_shows(look, kind) for look in looks) and not _any_shows(storage, rest, kind):
        names = ", ".join(classes.classes[:3]) + ", ..." * (len(classes.classes) > 3)
        names = names or "a class"
        raise DataError(
            f"{storage.location}: every mask is empty or void: no pixel of {names} in "
            f"{len(masks):,} files; check what wrote them"
        )
    return kind, classes


def _shows(look: Look, kind: Kind) -> bool:
    """Whether a mask has a pixel of a class."""
    if kind.cut is not None:
        return any(value >= kind.cut for value in look.values)
    labels = map(kind.meaning.get, look.colours if kind.colours else look.values)
    return any(label is not None and label != VOID for label in labels)


def _any_shows(storage: Storage, masks: Iterable[str], kind: Kind) -> bool:
    """Whether one of the masks that nobody looked at has; they are read until one does."""
    return any(_shows(look_at(storage, path), kind) for path in sorted(masks))


def _decided(
    storage: Storage, looks: Sequence[Look], files: Sequence[ClassFile], binary: Kind | None
) -> tuple[Kind, Named]:
    palettes = [file for file in files if file.colours]
    rgb = any(look.colours and not look.palette for look in looks)
    if rgb and (palettes or not all(look.values for look in looks)):
        return _coloured(storage, looks, palettes)
    if palettes and len(palettes) == len(files) and all(look.palette for look in looks):
        known = set[int]().union(*(file.colours for file in palettes))
        if all(look.colours <= known for look in looks):
            return _coloured(storage, looks, palettes)
    if not files and binary is not None:
        _insist_background(storage, looks)
        return binary, _of_two((FOREGROUND,), binary)
    if all(255 not in file.names and len(file.names) <= 2 for file in files):
        _insist_one_white(storage, looks)
    if not files:
        return _indices(storage, looks)
    return _named_values(storage, looks, files, binary)


def _looks(storage: Storage, masks: Sequence[str]) -> list[Look]:
    with ThreadPoolExecutor(min(_THREADS, 2 * math.ceil(usable_cores()))) as threads:
        return list(threads.map(partial(look_at, storage), masks))


def look_at(storage: Storage, path: str) -> Look:
    """What one file holds."""
    try:
        data = storage.read(path)
        mode = _mode(data)
        colours = frozenset[int]()
        if mode in {"P", "RGB", "RGBA"}:
            colours = frozenset(np.unique(mask_values(data, colours=True)).tolist())
            if mode != "P" and not all(_is_grey(colour) for colour in colours):
                return Look(path, colours=colours, lossy=is_lossy(data))
        values, counts = np.unique(mask_values(data), return_counts=True)
        near = (values <= _SOFT) | ((values >= 255 - _SOFT) & (values <= 255))
        soft = float(counts[near].sum() / counts.sum())
        found = frozenset(values.tolist())
        return Look(path, found, soft, colours, mode == "P", is_lossy(data))
    except BadSampleError as error:
        return Look(path, error=str(error))


def _mode(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.mode
    except Exception:  # noqa: BLE001 whatever is wrong is said when the values are read
        return ""


def _is_grey(colour: int) -> bool:
    return colour >> 16 == (colour >> 8 & 255) == (colour & 255)


def _coloured(
    storage: Storage, looks: Sequence[Look], palettes: Sequence[ClassFile]
) -> tuple[Kind, Named]:
    if not palettes:
        colours = frozenset[int]().union(*(look.colours for look in looks))
        first = next(look.path for look in looks if not look.values)
        raise DataError(
            f"{storage.location}: masks with {len(colours):,} colours ({first}), but no file says "
            "which is which; add a palette.csv with the columns name,r,g,b"
        )
    file = max(palettes, key=lambda file: sum(look.colours <= set(file.colours) for look in looks))
    classes = named(file.colours)
    kind = Kind("colours", classes.meaning, colours=True, source=file.path)
    _check_covered(looks, [look.colours for look in looks], kind)
    return kind, classes


def _binary(looks: Sequence[Look]) -> Kind | None:
    """Two values, or the greys that soft edges make of them; None where there are more."""
    seen = frozenset[int]().union(*(look.values for look in looks))
    meaning = {0: None, 1: 0}
    for most in (1, 255, 65_535):
        if most in seen and seen <= {0, most} and (most != 65_535 or 0 in seen):
            cut = None if most == 1 else CUT
            return Kind(f"binary masks of 0 and {most}", meaning, cut=cut)
    if not seen:
        return None
    odd = sum(not look.values <= {0, 255} for look in looks)
    plain = sum(255 in look.values and look.values <= {0, 255} for look in looks)
    if 0 < odd <= _FEW * plain:
        # One that was resized must not make the 255 of all others void.
        return Kind("binary masks of 0 and 255", {0: None, 255: 0})
    soft = min(look.soft for look in looks)
    blurred = len(seen) > _MANY or any(look.lossy for look in looks)
    if blurred and 255 - _SOFT <= max(seen) <= 255 and soft >= 0.9 and min(seen) <= _SOFT:
        return Kind(f"binary masks with soft edges, cut at {CUT}", meaning, cut=CUT)
    return None


def _of_two(names: tuple[str, ...], binary: Kind) -> Named:
    """The one class of binary masks."""
    values = tuple(value for value, label in binary.meaning.items() if label == 0)
    return Named(names, values, binary.meaning)


def _insist_background(storage: Storage, looks: Sequence[Look]) -> None:
    """Masks of 255 alone may be all foreground or all void."""
    if all(set(look.values) == {255} for look in looks):
        raise DataError(
            f"{storage.location}: every pixel of all {len(looks):,} masks is 255, so nothing tells "
            "a class from void; add a classes.txt that names the values, or correct the masks"
        )


def _insist_one_white(storage: Storage, looks: Sequence[Look]) -> None:
    """Where some masks have 1 for foreground and others 255, the 255 must not become void."""
    ones = [look.path for look in looks if 1 in look.values and look.values <= {0, 1}]
    whites = [look.path for look in looks if 255 in look.values and look.values <= {0, 255}]
    rest = any(look.values - {0} for look in looks if look.path not in {*ones, *whites})
    if ones and whites and not rest:
        raise DataError(
            f"{storage.location}: {len(ones):,} masks have 0 and 1 ({ones[0]}), {len(whites):,} "
            f"have 0 and 255 ({whites[0]}); write all in one way, or add a classes.txt that names "
            "255 void"
        )


def _indices(storage: Storage, looks: Sequence[Look]) -> tuple[Kind, Named]:
    seen = sorted(frozenset[int]().union(*(look.values for look in looks)))
    void = 255 if seen[-1] <= 255 else 65_535
    if seen[0] < 0 or len(seen) > _MOST_COLOURS:
        raise DataError(
            f"{storage.location}: masks with {len(seen):,} values ({looks[0].path}); masks of "
            "classes have a few, and photographs are none: add a classes.txt that names the values"
        )
    kinds = [value for value in seen if value not in {0, void}]
    if not kinds:
        raise DataError(
            f"{storage.location}: every mask is empty: no value but {', '.join(map(str, seen))} in "
            f"{len(looks):,} files; check what wrote them"
        )
    names = {value: f"class {value}" for value in kinds} if kinds != [1] else {1: FOREGROUND}
    classes = named({0: "background", **names, void: "void"})
    return Kind("masks of indices", classes.meaning), classes


def _named_values(
    storage: Storage, looks: Sequence[Look], files: Sequence[ClassFile], binary: Kind | None
) -> tuple[Kind, Named]:
    """Values by the names of the file that fits most masks."""
    plain = [file for file in files if not file.colours] or files
    meant = [file for file in plain if "semantic" in file.path] or plain
    fits = {f.path: sum(look.values <= set(_whole(f.names)) for look in looks) for f in meant}
    best = [file for file in meant if fits[file.path] == max(fits.values())]
    if len({tuple(file.names.items()) for file in best}) > 1:
        raise DataError(
            f"{storage.location}: {' and '.join(file.path for file in best[:3])} could both name "
            "the classes; take out all but one"
        )
    file = best[0]
    own = named(file.names)
    if binary is not None and len(own.classes) == 1 and VOID not in own.meaning.values():
        kind = Kind(binary.name, binary.meaning, cut=binary.cut, source=file.path)
        return kind, _of_two(own.classes, binary)
    classes = named(_whole(file.names))
    kind = Kind("masks of indices", classes.meaning, source=file.path)
    _check_covered(looks, [look.values for look in looks], kind)
    return kind, classes


def _whole(names: Mapping[int, str]) -> dict[int, str]:
    """Names with those of the values that go without saying."""
    return {0: "background", 255: "void", 65_535: "void", **names}


def _check_covered(looks: Sequence[Look], values: Sequence[frozenset[int]], kind: Kind) -> None:
    """At least one mask must have values with meanings alone; the others are bad samples."""
    unknown = [sorted(found - set(kind.meaning)) for found in values]
    if all(unknown):
        raise DataError(unnamed(looks[0].path, unknown[0][0], kind))
