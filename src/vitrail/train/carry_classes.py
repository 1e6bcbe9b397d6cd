"""Rows of classes: which parts of a head belong to one class each, and go with its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vitrail.tasks.segment import Segment, SegmentConfig


def with_known_classes(
    old: SegmentConfig,
    task: Segment,
    state: Mapping[str, Tensor],
    channels: Sequence[int],
    strides: Sequence[int],
) -> dict[str, Tensor] | None:
    """Weights of a segmenter for other classes: those that it knows by name keep theirs.

    None where the head differs in more than its classes, as it may for patches of another size.

    Args:
        old: The segmenter that the weights are of.
        task: The same head for the classes that are wanted, with fresh weights.
        state: The weights.
        channels: Width of each map of the backbone.
        strides: Their strides.
    """
    classes, fresh = task.config.classes, task.state_dict()
    result, growing = dict(state), _class_rows(task.config, channels, strides)
    expected = {name: list(tensor.shape) for name, tensor in fresh.items()}
    for name, (axis, rows) in growing.items():
        expected[name][axis] += rows * (len(old.classes) - len(classes))
    if expected != {name: list(tensor.shape) for name, tensor in state.items()}:
        return None
    for name, (axis, rows) in growing.items():
        kept, given = fresh[name].movedim(axis, 0).clone(), state[name].movedim(axis, 0)
        for place, label in enumerate(classes):
            if label in old.classes:
                at = old.classes.index(label)
                kept[place * rows : (place + 1) * rows] = given[at * rows : (at + 1) * rows]
        # What stands behind the classes is for none of them ("no segment").
        kept[len(classes) * rows :] = given[len(old.classes) * rows :]
        result[name] = kept.movedim(0, axis)
    return result


def _class_rows(
    config: SegmentConfig, channels: Sequence[int], strides: Sequence[int]
) -> dict[str, tuple[int, int]]:
    """Of each tensor that grows with the classes, the axis and the rows that a class has."""
    sizes = [_sizes(config, count, channels, strides) for count in (2, 3)]
    grown = {
        name: [
            (axis, b - a)
            for axis, (a, b) in enumerate(zip(size, sizes[1][name], strict=True))
            if a != b
        ]
        for name, size in sizes[0].items()
    }
    return {name: axes[0] for name, axes in grown.items() if axes}


def _sizes(
    config: SegmentConfig, count: int, channels: Sequence[int], strides: Sequence[int]
) -> dict[str, torch.Size]:
    changes = {"classes": tuple(str(i) for i in range(count)), "things": None}
    with torch.device("meta"):
        task = Segment(config.model_copy(update=changes), channels, strides)
    return {name: tensor.shape for name, tensor in task.state_dict().items()}
