"""Whatever is wrong with one tensor is reported by its name: every key of every case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parity.cases import classifier, every_case
from vitrail.errors import UserError
from vitrail.golden import Case
from vitrail.verify import transposed
from vitrail.weights.checkpoint import Held, Stored
from vitrail.weights.load import Inspected, inspect_opened
from vitrail.weights.mapping import Match

Tensors = dict[str, Stored]


def reported(inspected: Inspected, case: Case, tensors: Mapping[str, Stored]) -> str:
    """All that is said about a file with these tensors."""
    checkpoint = replace(inspected.checkpoint, tensors=dict(tensors))
    try:
        again = inspect_opened(checkpoint, case.given, "file")
    except UserError as error:
        return str(error)
    found: Match = again.match
    return " ".join([*found.missing, *found.unused, *found.wrong, *found.absent])


@pytest.fixture
def subject(name: str, tmp_path: Path) -> tuple[Case, Inspected]:
    case, _, inspected = classifier(name, tmp_path)
    return case, inspected


@every_case
def test_a_dropped_tensor(subject: tuple[Case, Inspected]) -> None:
    case, inspected = subject
    whole = dict(inspected.checkpoint.tensors)
    for key in whole:
        rest = {name: tensor for name, tensor in whole.items() if name != key}
        assert key in reported(inspected, case, rest), key


@every_case
def test_a_renamed_tensor(subject: tuple[Case, Inspected]) -> None:
    case, inspected = subject
    whole = dict(inspected.checkpoint.tensors)
    for key in whole:
        other = {(f"{name}_other" if name == key else name): t for name, t in whole.items()}
        said = reported(inspected, case, other)
        assert key in said.replace(f"{key}_other", ""), key


@every_case
def test_an_extra_tensor(subject: tuple[Case, Inspected]) -> None:
    case, inspected = subject
    whole = dict(inspected.checkpoint.tensors)
    for key, stored in whole.items():
        extra = f"{key}_extra"
        assert extra in reported(inspected, case, whole | {extra: stored}), extra


@every_case
def test_a_transposed_tensor(subject: tuple[Case, Inspected]) -> None:
    """Where the shape shows it; the others are found by their outputs, below."""
    case, inspected = subject
    whole = dict(inspected.checkpoint.tensors)
    for key, stored in whole.items():
        for turned in turns(stored.read()):
            if turned.shape != stored.shape:
                assert key in reported(inspected, case, whole | {key: Held(turned)}), key


@every_case
def test_a_transposed_square(subject: tuple[Case, Inspected]) -> None:
    """No shape tells: `verify` turns each candidate back and sees which makes the outputs right."""
    case, inspected = subject
    whole = dict(inspected.checkpoint.tensors)
    taken = {name for entry in inspected.entries for name in entry.theirs}
    squares = [
        (key, turned)
        for key, stored in whole.items()
        if key in taken
        for turned in turns(stored.read())
        if turned.shape == stored.shape and not torch.equal(turned, stored.read())
    ]
    idle = set(case.table["parameters_without_influence"])
    for key, turned in squares[:: max(1, len(squares) // 6)]:
        tensors = whole | {key: Held(turned)}
        checkpoint = replace(inspected.checkpoint, tensors=tensors)
        again = inspect_opened(checkpoint, case.given, "file")
        assert again.match.whole
        assert key in transposed(again, case) or key in idle, key


def turns(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if tensor.ndim >= 2:
        yield tensor.mT.contiguous()
        yield tensor.permute(*reversed(range(tensor.ndim))).contiguous()
