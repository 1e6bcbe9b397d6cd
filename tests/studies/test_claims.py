"""Verdicts from means and standard deviations, on figures made up for the purpose."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.studies.claims import (
    Claim,
    Figures,
    Inequality,
    Term,
    Verdict,
    above,
    below,
    close,
    judge,
    less_than,
    overall,
    within,
)


def figures(**arms: list[float]) -> Figures:
    return {name: {"top1": values} for name, values in arms.items()}


def verdict(found: Figures, *parts: Inequality) -> Verdict:
    return judge(Claim("claim", "published", parts), found).verdict


def test_a_clear_difference_decides_either_way() -> None:
    found = figures(good=[0.90, 0.91, 0.92], bad=[0.80, 0.81, 0.82])
    assert verdict(found, above("good", "bad")) == "agrees"
    assert verdict(found, above("bad", "good")) == "contradicts"


def test_the_border_is_two_standard_errors() -> None:
    """Standard deviation 0.01 and three runs each: the error is 0.01 * sqrt(2 / 3)."""
    error = 0.01 * math.sqrt(2 / 3)
    for margin, expected in ((1.99, "not resolved"), (2.01, "agrees"), (-2.01, "contradicts")):
        mean = 0.5 + margin * error
        found = figures(a=[mean - 0.01, mean, mean + 0.01], b=[0.49, 0.5, 0.51])
        assert verdict(found, above("a", "b")) == expected
    finding = judge(Claim("c", "p", (above("a", "b"),)), figures(a=[0.5, 0.52], b=[0.5, 0.5]))
    assert finding.verdict == "not resolved"
    assert finding.reason == (
        "a above b: margin +1.00 ± 1.00 points, below twice the standard error"
    )


def test_a_single_run_resolves_nothing() -> None:
    assert verdict(figures(a=[0.9], b=[0.1]), above("a", "b")) == "not resolved"


def test_by_moves_the_border() -> None:
    found = figures(a=[0.60, 0.60], b=[0.50, 0.50])
    assert verdict(found, above("a", "b", by=0.09)) == "agrees"
    assert verdict(found, above("a", "b", by=0.11)) == "contradicts"


def test_below_is_about_every_other_arm() -> None:
    found = figures(none=[0.50, 0.51], a=[0.6, 0.61], b=[0.505, 0.506])
    assert verdict(found, *below("none", ["a"])) == "agrees"
    finding = judge(Claim("c", "p", below("none", ["a", "b"])), found)
    assert finding.verdict == "not resolved"
    assert finding.reason.startswith("1 of 2 are not resolved; least sure of 2: b above none")


def test_close_is_measured_by_what_separates_them_from_another() -> None:
    far = figures(none=[0.5, 0.5], a=[0.60, 0.60], b=[0.62, 0.62], c=[0.61, 0.61])
    assert verdict(far, *close(("a", "b", "c"), beside="none", share=0.5)) == "agrees"
    near = figures(none=[0.59, 0.59], a=[0.60, 0.60], b=[0.62, 0.62], c=[0.61, 0.61])
    assert verdict(near, *close(("a", "b", "c"), beside="none", share=0.5)) == "contradicts"


def test_within_is_an_absolute_limit() -> None:
    found = figures(a=[0.60, 0.60], b=[0.605, 0.605])
    assert verdict(found, *within(("a", "b"), 0.01)) == "agrees"
    assert verdict(found, *within(("a", "b"), 0.001)) == "contradicts"


def test_measures_of_one_arm_are_compared_run_by_run() -> None:
    """Runs differ much, but in each the first figure is 0.01 above the second."""
    found: Figures = {"a": {"x": [0.1, 0.5, 0.9], "y": [0.09, 0.49, 0.89]}}
    assert verdict(found, above("a", "a", measure="x", than="y")) == "agrees"
    assert above("a", "a", measure="x", than="y").text == "x of a above y of a"
    assert verdict(found, less_than("a", 0.05, measure="x")) == "not resolved"


def test_equal_figures_without_spread_resolve_nothing() -> None:
    assert verdict(figures(a=[0.5, 0.5], b=[0.5, 0.5]), above("a", "b")) == "not resolved"


@given(st.lists(st.sampled_from(["agrees", "contradicts", "not resolved"]), min_size=1))
def test_one_contradiction_outweighs_all_else(verdicts: list[Verdict]) -> None:
    found = overall(verdicts)
    assert (found == "contradicts") == ("contradicts" in verdicts)
    assert (found == "agrees") == all(verdict == "agrees" for verdict in verdicts)


@pytest.mark.parametrize("percent", [True, False])
def test_the_reason_has_a_unit(percent: bool) -> None:
    part = Inequality("chain grows", (Term(1.0, "a"),), -0.5)
    finding = judge(Claim("c", "p", (part,), percent=percent), figures(a=[0.7, 0.7]))
    assert finding.reason == (
        "chain grows: margin " + ("+20.00 ± 0.00 points" if percent else "+0.2 ± 0")
    )
