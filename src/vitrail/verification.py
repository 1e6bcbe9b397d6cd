"""What a verification found, and how it is sealed into a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

from vitrail.comparison import Comparison
from vitrail.errors import CheckpointError
from vitrail.weights.mapping import Match
from vitrail.weights.modelfile import Certificate, load_model, save_model, versions
from vitrail.weights.origin import own_file

Verdict = Literal["equal", "whole", "partly", "differs", "incomplete"]
"""Equal to the reference; whole, with nothing to compare; equal as far as it was compared, which is
not as far as the head; not equal; tensors amiss."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        format: Name of the format.
        variant: The published variant with these sizes, or empty.
        source: Path or hub id.
        licence: Licence of the weights, and who says so.
        shapes: Shape of every tensor in the file.
        parameters: Number of values that the model takes from it.
        match: Which tensors are used, unknown, missing, wrong, or need not be there.
        notes: What was inferred and from what.
        verdict: The result.
        reference: What the outputs were compared with, or empty.
        comparisons: Output by output.
        not_compared: Outputs of the reference that this model does not give.
        suspects: Square matrices whose transposition would make the outputs right.
    """

    format: str
    variant: str
    source: str
    licence: str
    shapes: Mapping[str, tuple[int, ...]]
    parameters: int
    match: Match
    notes: tuple[str, ...]
    verdict: Verdict
    reference: str = ""
    comparisons: tuple[Comparison, ...] = ()
    not_compared: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    @property
    def max_abs(self) -> float | None:
        """Largest absolute difference of all outputs; None where nothing was compared."""
        return max((c.max_abs for c in self.comparisons), default=None)

    @property
    def max_rel(self) -> float | None:
        """Largest relative difference of all outputs."""
        return max((c.max_rel for c in self.comparisons), default=None)

    @property
    def passed(self) -> bool:
        """Whether nothing falls short."""
        return self.verdict in ("equal", "whole")

    def table(self) -> dict[str, Any]:
        """All of it, for JSON; the lists of tensors stand at the top."""
        own = asdict(self)
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        own |= {"tensors": len(shapes), "shapes": shapes}
        own |= own.pop("match") | {"max_abs": self.max_abs, "max_rel": self.max_rel}
        return cast("dict[str, Any]", _finite(own))


def _finite(value: object) -> object:
    """What JSON can say: it knows neither infinity nor NaN."""
    match value:
        case float():
            return value if isfinite(value) else None
        case dict():
            return {k: _finite(v) for k, v in cast("dict[str, object]", value).items()}
        case list() | tuple():
            return [_finite(v) for v in cast("Sequence[object]", value)]
        case _:
            return value


def insist_sealable(path: Path) -> None:
    """Say before anything is compared that a result has no place.

    Raises:
        CheckpointError: not a model file of ours, or the run folder of one.
    """
    if own_file(str(path)) is None:
        raise CheckpointError(
            f"{path}: --seal writes into a vitrail model file; make one first with "
            f"`vitrail convert {path} --to vitrail`"
        )


def seal_certificate(path: Path, found: Verification) -> None:
    """Write a verification into the header of a model file.

    Raises:
        CheckpointError: not a model file of ours.
    """
    insist_sealable(path)
    path = own_file(str(path)) or path
    model, provenance = load_model(path)
    worst: dict[str, float] = {}
    for row in found.comparisons:  # an output may stand there once a size
        worst[row.output] = max(row.max_abs, worst.get(row.output, 0.0))
    certificate = Certificate(
        verdict=found.verdict, reference=found.reference, max_abs=worst, versions=versions()
    )
    save_model(model, path, provenance.model_copy(update={"certificate": certificate}))
