"""One output beside its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vitrail.golden import Case


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output beside its reference.

    Attributes:
        size: Height x width of the images, or the lengths of the sequences.
        output: Its name.
        max_abs: Largest absolute difference.
        max_rel: The same over the largest value of the reference.
        limit: Absolute difference that is allowed of its largest value.
        within: Whether all values are.
    """

    size: str
    output: str
    max_abs: float
    max_rel: float
    limit: float
    within: bool


def compare(
    size: str, output: str, found: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0
) -> Comparison:
    """One output; tokens in raster order may stand as a map, places before channels."""
    if found.numel() != expected.numel():
        return Comparison(size, output, float("inf"), float("inf"), atol, within=False)
    expected = expected.float()
    gap = (found.detach().float().reshape(expected.shape) - expected).abs()
    # NaN is within nothing.
    within = bool((gap <= atol + rtol * expected.abs()).all())
    largest, max_abs = expected.abs().max().item(), gap.max().item()
    limit = atol + rtol * largest
    return Comparison(size, output, max_abs, max_abs / max(largest, 1e-30), limit, within)


def compare_case(
    found: Mapping[str, Tensor], case: Case
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Every output of the case that we give, and the names of those that we do not."""
    first = next(iter(case.inputs.values()))
    size = "x".join(map(str, first.shape[2:] if first.ndim == 4 else first.shape[1:]))
    rows = tuple(
        compare(size, name, found[name], expected, atol=case.limit(name), rtol=case.rtol)
        for name, expected in case.expected.items()
        if name in found
    )
    return rows, tuple(name for name in case.expected if name not in found)
