"""Claims: what was published, as inequalities between the means of arms, and whether they hold.

A claim is judged from mean and standard deviation over the seeds. An inequality holds or fails
only where its margin is more than twice its standard error; else the runs do not resolve it. With
few seeds the standard error is itself uncertain (three seeds: two standard errors are about a
90 % interval), which every page says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import sqrt
from statistics import mean, variance
from typing import Literal

Verdict = Literal["agrees", "contradicts", "not resolved"]

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""Values over the seeds, by arm and measure."""

ERRORS = 2.0
"""Standard errors that a margin must exceed."""


@dataclass(frozen=True, slots=True)
class Term:
    """A weighted mean of an arm."""

    weight: float
    arm: str
    measure: str = "top1"


@dataclass(frozen=True, slots=True)
class Inequality:
    """The sum of the terms and the constant is greater than zero.

    Attributes:
        text: The same for people, e.g. `learned above none`.
        terms: What is added up.
        constant: What is added to it.
    """

    text: str
    terms: tuple[Term, ...]
    constant: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a paper.

    Attributes:
        text: The statement.
        published: The published figures.
        parts: Inequalities that all hold if it is true.
        percent: Whether margins are fractions, to be shown in points.
    """

    text: str
    published: str
    parts: tuple[Inequality, ...]
    percent: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What runs say about a claim.

    Attributes:
        claim: The claim.
        verdict: Whether they agree.
        reason: The margin that decided it, for people.
    """

    claim: Claim
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class _Margin:
    """An inequality with its figures."""

    part: Inequality
    value: float
    error: float
    verdict: Verdict

    @property
    def distance(self) -> float:
        """Standard errors from zero; the sign is that of the margin."""
        if self.error:
            return self.value / self.error
        return self.value and (float("inf") if self.value > 0 else float("-inf"))


def above(
    high: str, low: str, *, by: float = 0.0, measure: str = "top1", than: str | None = None
) -> Inequality:
    """The mean of one arm is above that of another.

    Args:
        high: The better arm.
        low: The worse one.
        by: Least difference.
        measure: Which figure of `high`.
        than: Which figure of `low`, if another.
    """
    terms = (Term(1.0, high, measure), Term(-1.0, low, than or measure))
    extra = f" by more than {by:g}" if by else ""
    names = (high, low) if than is None else (f"{measure} of {high}", f"{than} of {low}")
    return Inequality(f"{names[0]} above {names[1]}{extra}", terms, -by)


def below(low: str, others: Iterable[str], *, measure: str = "top1") -> tuple[Inequality, ...]:
    """One arm is below each of the others."""
    return tuple(above(other, low, measure=measure) for other in others)


def close(
    arms: Sequence[str], *, beside: str, share: float, measure: str = "top1"
) -> tuple[Inequality, ...]:
    """Arms differ among themselves little beside what separates them from another arm.

    For every two of them, a - b is less than `share` of b - beside.
    """
    parts: list[Inequality] = []
    for a, b in permutations(arms, 2):
        terms = (
            Term(-1.0, a, measure),
            Term(1.0 + share, b, measure),
            Term(-share, beside, measure),
        )
        text = f"{a} - {b} less than {share:g} of {b} - {beside}"
        parts.append(Inequality(text, terms))
    return tuple(parts)


def within(arms: Sequence[str], limit: float, *, measure: str = "top1") -> tuple[Inequality, ...]:
    """No two arms differ by as much as the limit."""
    return tuple(
        Inequality(
            f"{a} - {b} less than {limit:g}",
            (Term(-1.0, a, measure), Term(1.0, b, measure)),
            limit,
        )
        for a, b in permutations(arms, 2)
    )


def less_than(arm: str, limit: float, *, measure: str) -> Inequality:
    """A figure of an arm is below a number."""
    return Inequality(f"{arm} less than {limit:g}", (Term(-1.0, arm, measure),), limit)


def judge(claim: Claim, figures: Figures) -> Finding:
    """Whether a claim holds: all parts agree, one contradicts, or the runs do not resolve it."""
    margins = [_measure(part, figures) for part in claim.parts]
    verdict = overall([margin.verdict for margin in margins])
    decisive = min(margins, key=lambda margin: margin.distance)
    open_ones = sum(margin.verdict == "not resolved" for margin in margins)
    count = len(margins)
    reason = _describe(decisive, percent=claim.percent)
    if count > 1:
        reason = f"least sure of {count}: {reason}"
    if verdict == "not resolved" and count > 1:
        reason = f"{open_ones} of {count} are not resolved; {reason}"
    return Finding(claim, verdict, reason)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """One word for several: a contradiction first, then doubt."""
    found = set(verdicts)
    if "contradicts" in found:
        return "contradicts"
    return "not resolved" if "not resolved" in found else "agrees"


def _measure(part: Inequality, figures: Figures) -> _Margin:
    """Margin and standard error; arms count as independent, measures of one arm as they come."""
    by_arm: defaultdict[str, list[Term]] = defaultdict(list)
    for term in part.terms:
        by_arm[term.arm].append(term)
    value, squares, fewest = part.constant, 0.0, 2
    for arm, terms in by_arm.items():
        columns = [[term.weight * x for x in figures[arm][term.measure]] for term in terms]
        sums = [sum(row) for row in zip(*columns, strict=True)]
        value += mean(sums)
        fewest = min(fewest, len(sums))
        squares += variance(sums) / len(sums) if len(sums) > 1 else 0.0
    error = sqrt(squares)
    verdict: Verdict = "not resolved"
    if fewest > 1 and abs(value) > ERRORS * error:
        verdict = "agrees" if value > 0 else "contradicts"
    return _Margin(part, value, error, verdict)


def _describe(margin: _Margin, *, percent: bool) -> str:
    scale, unit = (100.0, " points") if percent else (1.0, "")
    value, error = margin.value * scale, margin.error * scale
    number = f"{value:+.2f} ± {error:.2f}" if percent else f"{value:+.3g} ± {error:.2g}"
    doubt = ", below twice the standard error" if margin.verdict == "not resolved" else ""
    return f"{margin.part.text}: margin {number}{unit}{doubt}"
