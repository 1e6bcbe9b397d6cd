"""What the shapes of a file tell: sizes that its tensors agree on, the grid of its positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any, cast

from vitrail.backbones.backbone import BackboneBase
from vitrail.errors import CheckpointError
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.reader import Given

_FREE = frozenset({"image_size", "activation", "eps", "drop_path", "layer_scale"})
"""Fields that change no shape, or only that of the position table, which is then found wrong."""


def agreed(checkpoint: Checkpoint, names: Iterable[str], axis: int = 0) -> int:
    """The size that most of these tensors have along an axis.

    One tensor that was cut, turned or lost is outvoted, so that it is the one which does not fit.

    Raises:
        CheckpointError: none of them is there, or the size is zero.
    """
    names = list(names)
    shapes = [checkpoint.tensors[name].shape for name in names if name in checkpoint.tensors]
    votes = Counter(shape[axis] for shape in shapes if -len(shape) <= axis < len(shape))
    if not votes:
        raise CheckpointError(f"{checkpoint.path}: tensor '{names[0]}' is missing")
    size = votes.most_common(1)[0][0]
    if size < 1:
        raise CheckpointError(f"{checkpoint.path}: tensor '{names[0]}' is empty")
    return size


def insist(
    checkpoint: Checkpoint, name: str, wanted: Sequence[int | None], why: str
) -> tuple[int, ...]:
    """The shape of a tensor that must be there, if it is the one wanted (None: any size above 0).

    Raises:
        CheckpointError: it is missing, or of another shape.
    """
    if name not in checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: tensor '{name}' is missing")
    shape = checkpoint.tensors[name].shape
    fits = len(shape) == len(wanted) and all(
        n == w if w is not None else n > 0 for n, w in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise CheckpointError(
            f"{checkpoint.path}: tensor '{name}' has the shape {list(shape)}, but {why}"
        )
    return shape


def outputs(checkpoint: Checkpoint, names: Iterable[str], axis: int = 0) -> int:
    """Outputs of a linear head, on which weight and bias agree.

    Args:
        checkpoint: The file.
        names: Of the matrix and of the vector.
        axis: Of the matrix, along which the outputs stand.

    Raises:
        CheckpointError: one is missing, or they contradict each other; both are named.
    """
    weight, bias = names
    own = insist(checkpoint, bias, (None,), "a bias has one value an output")[0]
    shape = insist(checkpoint, weight, (None, None), "a head is a matrix")
    if shape[axis] != own:
        raise CheckpointError(
            f"{checkpoint.path}: tensors '{weight}' {list(shape)} and '{bias}' [{own}] "
            "contradict each other"
        )
    return own


def position_grid(
    checkpoint: Checkpoint,
    given: Given,
    stride: int,
    table: str,
    prefixes: Sequence[int],
    tokens: Sequence[str],
) -> tuple[Grid, int]:
    """Rows and columns of a position table, and how many of its entries are of leading tokens.

    The grid is a square unless the given image size has another one of as many places.

    Args:
        checkpoint: The file.
        given: What the user says.
        stride: Pixels from one patch to the next.
        table: Name of the table, whose shape is known to be (1, N, D).
        prefixes: Numbers of entries that leading tokens may have; the first that leaves a grid
            is taken.
        tokens: Tensors of those tokens, for the error.

    Raises:
        CheckpointError: none leaves a grid; table and tokens are named.
    """
    entries, size = checkpoint.tensors[table].shape[1], image_size(given)
    for prefix in prefixes:
        grid = _grid(entries - prefix, size, stride)
        if grid is not None:
            return grid, prefix
    shape = "no square grid" if size is None else f"no image of {size[0]} x {size[1]} pixels"
    here = {True: "", False: " (not there)"}
    beside = " and ".join(f"'{name}'{here[name in checkpoint.tensors]}" for name in tokens)
    raise CheckpointError(
        f"{checkpoint.path}: the {entries} entries of tensor '{table}' fit {shape} at {stride} "
        f"pixels a patch, beside the leading tokens {beside}; for another grid give "
        "--set image_size=[height,width] of the images that it was made for"
    )


def insist_told(
    checkpoint: Checkpoint, config: BackboneBase, known: Mapping[str, Any], unknown: Iterable[str]
) -> None:
    """Refuse what was given against the file, where it changes which tensors there are.

    Args:
        checkpoint: The file.
        config: The configuration with all that was given.
        known: Fields that the file or its format tells.
        unknown: Fields that it does not.

    Raises:
        CheckpointError: a field that follows from the tensors was given otherwise.
    """
    final = config.model_dump()
    free = {*unknown, *_FREE}
    told = type(config).model_validate({**known, **{f: final[f] for f in free & final.keys()}})
    for field, value in told.model_dump().items():
        if field not in free and _shape_of(value) != _shape_of(final[field]):
            raise CheckpointError(
                f"{checkpoint.path}: its tensors say {field} = {value}, "
                f"{final[field]} was given; leave it out"
            )


def image_size(given: Given) -> tuple[int, int] | None:
    """The image size that the user gave, if it is one; whatever else it is, the config refuses."""
    value = given.backbone.get("image_size")
    if not isinstance(value, list | tuple):
        return None
    sides = cast("Sequence[object]", value)
    if len(sides) != 2:
        return None
    height, width = sides
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        return None
    return height, width


def _shape_of(value: object) -> object:
    """What a field says of the tensors, without what it says of resampling and training."""
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return {k: v for k, v in table.items() if k not in ("resampling", "start", "dropout")}
    return value


def _grid(places: int, size: tuple[int, int] | None, stride: int) -> Grid | None:
    if places < 1:
        return None
    if size is not None:
        rows, columns = (-(-side // stride) for side in size)
        return (rows, columns) if rows * columns == places else None
    side = isqrt(places)
    return (side, side) if side * side == places else None
