"""The page of a study: verdict, tables and plot, and how to repeat it."""
# pyright: reportUnknownMemberType=false
# Keyword arguments of matplotlib have no types.

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from vitrail.studies.claims import Figures, Finding, Verdict
from vitrail.studies.study import Arm, Measure, Plan, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _LINE = "#1b1f24", "#5b6570", "#d6dbe0"
_COLOURS: tuple[str, ...] = (
    "#1f5fa8",
    "#c4531b",
    "#2e7d4f",
    "#7a3f9d",
    "#a8801f",
    "#3c8f9c",
    "#b03060",
)
_STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
}

Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page says.

    Attributes:
        study: The study.
        plan: Its arms and claims at the scale that was run.
        values: Figures over the seeds, by arm and measure.
        findings: What they say about each claim.
        commands: How to repeat each arm, with the first seed.
        facts: Command, machine, date, versions, data, seeds, budget and time.
        appendix: What the study adds, as Markdown.
    """

    study: Study
    plan: Plan
    values: Figures
    findings: Sequence[Finding]
    commands: Mapping[str, str]
    facts: Facts
    appendix: str = ""


@dataclass(frozen=True, slots=True)
class _Chart:
    """One table and, where it is plotted, one picture: a measure, or all of a panel without x."""

    title: str
    arms: tuple[Arm, ...]
    measures: tuple[Measure, ...]
    lines: bool


def markdown(page: Page, verdict: Verdict) -> str:
    """The page as Markdown; its plot lies beside it as NAME.png."""
    study, facts = page.study, page.facts
    text = [
        f"# {study.title}",
        study.question,
        f"Verdict against what was published: **{verdict}**.",
        "## Published",
        study.published,
        "## Claims",
        _table(
            ["claim", "published", "verdict", "measured here"],
            [
                [f.claim.text, f.claim.published, f"**{f.verdict}**", f.reason]
                for f in page.findings
            ],
        ),
        "A claim is judged from mean and standard deviation over the seeds, arms taken as "
        "independent: a margin counts where it exceeds twice its standard error, else it is not "
        "resolved. With three seeds two standard errors are about a 90 % interval; a claim made of "
        "many comparisons meets by chance one that looks worse than it is.",
        f"![{study.title}]({study.name}.png)",
        "## Results",
        "Mean ± standard deviation over the seeds.",
    ]
    for chart in _charts(page):
        text += [f"### {chart.title}"] if chart.title else []
        text.append(_lines_table(chart, page.values) if chart.lines else _arms_table(chart, page))
    text += [
        *([page.appendix] if page.appendix else []),
        "## How it was made",
        _table(["", ""], [[k, f"`{v}`" if k == "command" else v] for k, v in facts.items()]),
        *_repeat(page),
    ]
    return "\n\n".join(text) + "\n"


def plot(page: Page) -> bytes:
    """All plotted measures as one PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    charts = [
        _Chart(chart.title, chart.arms, (measure,), chart.lines)
        for chart in _charts(page)
        for measure in chart.measures
        if measure.plotted
    ]
    series = dict.fromkeys(arm.series for arm in page.plan.arms)
    colours = dict(zip(series, _COLOURS * len(series), strict=False))
    columns = min(len(charts), 2)
    rows = -(-len(charts) // columns)
    tallest = max(1 if chart.lines else len(chart.arms) / 11 for chart in charts)
    size = (5.6 * columns, 3.7 * rows * max(tallest, 1))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, chart in zip(grid.flat, charts, strict=False):
            if chart.lines:
                _draw_lines(axes, chart, page.values, colours)
            else:
                _draw_dots(axes, chart, page.values)
        for axes in grid.flat[len(charts) :]:
            axes.set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _charts(page: Page) -> Iterator[_Chart]:
    """Panels in the order of the arms; a panel with an x axis has a chart a measure."""
    for panel in dict.fromkeys(arm.panel for arm in page.plan.arms):
        arms = tuple(arm for arm in page.plan.arms if arm.panel == panel)
        known = {key for arm in arms for key in page.values[arm.name]}
        measures = tuple(m for m in page.study.measures if m.name in known)
        if arms[0].x is None:
            yield _Chart(panel, arms, measures, lines=False)
            continue
        for measure in measures:
            title = f"{panel}: {measure.title}" if panel else measure.title
            yield _Chart(title, arms, (measure,), lines=True)


def _arms_table(chart: _Chart, page: Page) -> str:
    rows = [
        [arm.name, *(_cell(page.values[arm.name].get(m.name), m) for m in chart.measures)]
        for arm in chart.arms
    ]
    return _table(["arm", *(_headline(m) for m in chart.measures)], rows)


def _lines_table(chart: _Chart, values: Figures) -> str:
    (measure,) = chart.measures
    places = sorted({arm.x for arm in chart.arms if arm.x is not None})
    rows: list[list[str]] = []
    for series in dict.fromkeys(arm.series for arm in chart.arms):
        found = {arm.x: values[arm.name] for arm in chart.arms if arm.series == series}
        cells = [_cell(found[x].get(measure.name) if x in found else None, measure) for x in places]
        rows.append([series, *cells])
    return _table([_headline(measure), *(f"{x:g}" for x in places)], rows)


def _headline(measure: Measure) -> str:
    return f"{measure.title}, %" if measure.percent else measure.title


def _cell(values: Sequence[float] | None, measure: Measure) -> str:
    if values is None:
        return "-"
    middle = mean(values)
    spread = stdev(values) if len(values) > 1 else 0.0
    if measure.percent:
        return f"{100 * middle:.2f} ± {100 * spread:.2f}"
    plain = f"{middle:,.0f}" if abs(middle) >= 1000 else f"{middle:.3g}"
    return f"{plain} ± {spread:.2g}" if spread else plain


def _repeat(page: Page) -> Iterator[str]:
    """What arms share and where they differ; one command in full."""
    yield "## Repeat one run"
    yield (
        f"Each run is `vitrail train` with recipe `{page.plan.recipe}`, its seed, what all arms "
        "share and its own keys. The first run, for example:"
    )
    yield f"```sh\n{page.commands[page.plan.arms[0].name]}\n```"
    rows = [
        [arm.name, " ".join(f"`--set {shlex.quote(o)}`" for o in arm.overrides) or "nothing"]
        for arm in page.plan.arms
    ]
    yield _table(["arm", "its own keys"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _draw_dots(axes: Axes, chart: _Chart, values: Figures) -> None:
    """One row an arm: mean with standard deviation, and each seed as a small dot."""
    from matplotlib.ticker import PercentFormatter

    (measure,) = chart.measures
    arms = [arm for arm in chart.arms if measure.name in values[arm.name]]
    for row, arm in enumerate(arms):
        found = values[arm.name][measure.name]
        spread = stdev(found) if len(found) > 1 else 0.0
        axes.plot(found, [row] * len(found), "o", color=_COLOURS[0], alpha=0.35, markersize=4)
        axes.errorbar(
            [mean(found)], [row], xerr=[spread], fmt="o", color=_COLOURS[0], capsize=3, markersize=6
        )
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_title(f"{chart.title}: {measure.title}" if chart.title else measure.title)
    if measure.log:
        axes.set_xscale("log")
    if measure.percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_lines(axes: Axes, chart: _Chart, values: Figures, colours: Mapping[str, str]) -> None:
    """One line a series over x, with the standard deviation at each point."""
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

    (measure,) = chart.measures
    places = sorted({arm.x for arm in chart.arms if arm.x is not None})
    for series in dict.fromkeys(arm.series for arm in chart.arms):
        arms = [a for a in chart.arms if a.series == series and measure.name in values[a.name]]
        found = [values[arm.name][measure.name] for arm in arms]
        axes.errorbar(
            [arm.x or 0 for arm in arms],
            [mean(row) for row in found],
            yerr=[stdev(row) if len(row) > 1 else 0.0 for row in found],
            marker="o",
            markersize=4,
            capsize=3,
            color=colours[series],
            label=series,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.set_xlabel("length of the sequence")
    axes.set_title(chart.title)
    if measure.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    if measure.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="best")
