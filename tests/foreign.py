"""Checkpoints of other libraries in memory: read through one format, and spoiled on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tiny import randomise
from vitrail.backbones import BackboneConfig
from vitrail.data.preprocess import HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocess, Squash
from vitrail.errors import CheckpointError, UserError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.load import meta_state
from vitrail.weights.mapping import Match, match, read_all
from vitrail.weights.reader import Described, Given, Reader

Weights = dict[str, Tensor]
_WANTED: dict[str, Weights] = {}


def held(
    weights: Mapping[str, Tensor],
    container: Literal["npz", "safetensors", "torch"] = "torch",
    part: str = "",
) -> Checkpoint:
    """A checkpoint that was never written."""
    tensors = {name: Held(tensor) for name, tensor in weights.items()}
    return Checkpoint(path=Path("file"), container=container, tensors=tensors, part=part)


def matched(kind: type[Reader], checkpoint: Checkpoint, given: Given) -> tuple[Described, Match]:
    """What a format makes of a checkpoint that it must recognise."""
    assert kind.recognises(checkpoint)
    reader = kind(checkpoint)
    described = reader.describe(given)
    entries, derived = reader.entries(described), reader.derived(described)
    return described, match(entries, derived, wanted(described), checkpoint.tensors)


def wanted(described: Described) -> Weights:
    """State on the meta device; building a model once for each name would take most of the time."""
    key = described.model_dump_json()
    if key not in _WANTED:
        _WANTED[key] = meta_state(described)
    return _WANTED[key]


def read(kind: type[Reader], checkpoint: Checkpoint, **given: Any) -> tuple[Described, Weights]:
    """Description and weights under our names; `given` are fields of the backbone.

    Raises:
        CheckpointError: the checkpoint does not match its description.
    """
    described, found = matched(kind, checkpoint, Given(backbone=given))
    if not found.whole:
        raise CheckpointError(found.describe())
    return described, read_all(kind(checkpoint).entries(described), checkpoint.tensors)


def model_of(
    backbone: BackboneConfig, *, classes: int = 5, hidden: int | None = None, half: bool = False
) -> tuple[Described, Weights]:
    """A random model, described as a reader does."""
    preprocess = Preprocess(
        resize=Squash(size=backbone.image_size),
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
    task = ClassifyConfig(classes=tuple(map(str, range(classes))), hidden=hidden)
    model = Model(ModelConfig(backbone=backbone, task=task, preprocess=preprocess))
    state = dict(randomise(model).state_dict())
    return Described(backbone=backbone, task=task, preprocess=preprocess), state


def same(found: Weights, wanted: Weights) -> bool:
    """Whether two states hold the same numbers under the same names."""
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def spoiled(weights: Weights) -> Iterator[tuple[str, Weights]]:
    """Each tensor dropped, renamed, turned where its shape shows it, or there twice.

    Yields:
        The name that must be said, and the weights.
    """
    for name, tensor in weights.items():
        rest = {key: value for key, value in weights.items() if key != name}
        yield name, rest
        yield name, rest | {f"renamed_{len(rest)}": tensor}
        yield f"{name}_twice", weights | {f"{name}_twice": tensor}
        yield "nobody.knows", weights | {"nobody.knows": tensor}
        if tensor.ndim < 2:
            continue
        for turned in (tensor.mT, tensor.permute(*reversed(range(tensor.ndim)))):
            if turned.shape != tensor.shape:
                yield name, weights | {name: turned.contiguous()}


def said(kind: type[Reader], checkpoint: Checkpoint, given: Given) -> str:
    """All that is said about a checkpoint that is not right."""
    try:
        _, found = matched(kind, checkpoint, given)
    except UserError as error:
        return str(error)
    assert not found.whole
    return " ".join([*found.missing, *found.unused, *found.wrong])


def insist_every_fault_is_named(
    kind: type[Reader], checkpoint: Checkpoint, silent: tuple[str, ...] = (), **given: Any
) -> None:
    """Spoil each tensor, and look for its name in what is said.

    Args:
        kind: The format.
        checkpoint: One that matches.
        silent: Tensors without which the file is another whole model.
        given: Fields of the backbone.
    """
    weights = {name: stored.read() for name, stored in checkpoint.tensors.items()}
    count = 0
    for name, worse in spoiled(weights):
        if name in silent and name not in worse:
            continue
        tensors = {key: Held(tensor) for key, tensor in worse.items()}
        text = said(kind, replace(checkpoint, tensors=tensors), Given(backbone=given))
        assert name in text, f"{name}: {text}"
        count += 1
    assert count >= 4 * len(weights) - 2 * len(silent)


def refusal(kind: type[Reader], checkpoint: Checkpoint, **given: Any) -> str:
    """The error of a checkpoint that cannot be read."""
    with pytest.raises(UserError) as caught:
        read(kind, checkpoint, **given)
    return str(caught.value)
