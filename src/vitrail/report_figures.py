"""The pictures of a report: plots as SVG in the page's own colours, pixels as data URIs."""
# pyright: reportUnknownMemberType=false
# Keyword arguments of matplotlib have no types.

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from vitrail.metrics.calibration import ReliabilityBin
from vitrail.metrics.detection_curves import Curve as ScoreCurve
from vitrail.metrics.transcription import LengthMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, MUTED, GRID, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_INKS = {
    TEXT: "var(--text)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}
"""Stand-ins that matplotlib draws with, and the CSS variable that takes their place."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vitrail",
    "font.size": 10.5,
    "text.color": TEXT,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.pad": 6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over the epochs of a run.

    Attributes:
        x: Epochs done, from 0.
        y: Values.
        label: What it shows; empty where the title says it.
        marked: Whether each value is a measurement at the end of an epoch.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    marked: bool = False


def curve_plot(
    name: str,
    title: str,
    curves: Sequence[Curve],
    *,
    best: float | None = None,
    unit: Literal["plain", "percent"] = "plain",
) -> str:
    """Lines over epochs as inline SVG.

    Args:
        name: Makes the ids of this picture differ from those of the page's others.
        title: Stands above the plot and in its accessible name.
        curves: One line each; the second is drawn faint behind the first.
        best: Epochs done at the best epoch; marked by a dashed line.
        unit: How the values are written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for curve, ink in zip(curves, (FIRST, SECOND), strict=False):
            marker = "o" if curve.marked and len(curve.x) <= 40 else ""
            axes.plot(curve.x, curve.y, color=ink, marker=marker, markersize=3, label=curve.label)
        axes.set_xlim(left=0)
        if best is not None:
            _mark_best(axes, best, curves[0])
        if unit == "percent":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.yaxis.set_major_formatter("{x:g}")
        if any(curve.label for curve in curves):
            axes.legend(loc="best")
        return to_svg(figure, name, title)


def _mark_best(axes: Axes, best: float, curve: Curve) -> None:
    axes.axvline(best, color=MUTED, linestyle=(0, (3, 3)), linewidth=1)
    if curve.marked and best in list(curve.x):
        value = list(curve.y)[list(curve.x).index(best)]
        axes.plot([best], [value], marker="o", markersize=8, color=SECOND, linestyle="")


def reliability_plot(name: str, bins: Sequence[ReliabilityBin], title: str) -> str:
    """Accuracy against confidence above the number of predictions of each bin, as inline SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    used = [b for b in bins if b.count]
    width = bins[0].upper - bins[0].lower
    middle = [(b.lower + b.upper) / 2 for b in used]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        top.set_title(title)
        top.bar(middle, [b.accuracy for b in used], width * 0.86, color=FIRST, alpha=0.75)
        top.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (3, 3)), linewidth=1)
        top.plot(
            [b.confidence for b in used],
            [b.accuracy for b in used],
            color=SECOND,
            marker="o",
            markersize=4,
            linestyle="",
            clip_on=False,
        )
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="right")
        bottom.bar(middle, [b.count for b in used], width * 0.86, color=MUTED, alpha=0.6)
        bottom.set(xlabel="confidence", ylabel="predictions")
        bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        for axis in (top.xaxis, top.yaxis, bottom.xaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        return to_svg(figure, name, title)


def length_plot(name: str, rows: Sequence[LengthMetrics], cer: float, title: str) -> str:
    """Share of texts without an error, by length, above the number of texts, as inline SVG.

    Args:
        name: Makes the ids of this picture differ from those of the page's others.
        rows: Metrics by length.
        cer: Character error rate of all texts: the dashed line is (1 - cer) to the power of the
            length, what would be left if every symbol failed with this chance by itself.
        title: Stands above the plot and in its accessible name.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter
    from scipy.stats import binomtest  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    test = cast("Any", binomtest)
    length, exact = [row.length for row in rows], [row.exact_match for row in rows]
    ranges = [
        test(round(row.exact_match * row.count), row.count).proportion_ci(method="wilson")
        for row in rows
    ]
    below = [max(value - r.low, 0) for value, r in zip(exact, ranges, strict=True)]
    above = [max(r.high - value, 0) for value, r in zip(exact, ranges, strict=True)]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        top.set_title(title)
        top.bar(length, exact, 0.86, color=FIRST, alpha=0.75)
        top.errorbar(length, exact, (below, above), color=TEXT, linestyle="", linewidth=1)
        chance = [max(1 - cer, 0) ** n for n in length]
        top.plot(length, chance, color=SECOND, linestyle=(0, (3, 3)), linewidth=1.4)
        top.set(ylim=(0, 1), ylabel="read right")
        top.yaxis.set_major_formatter(PercentFormatter(1.0))
        bottom.bar(length, [row.count for row in rows], 0.86, color=MUTED, alpha=0.6)
        bottom.set(xlabel="symbols of the true text", ylabel="texts")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return to_svg(figure, name, title)


def precision_recall_plot(name: str, title: str, curve: ScoreCurve, *, small: bool = False) -> str:
    """Precision over recall as inline SVG, with the point of the best F1.

    Args:
        name: Makes the ids of this picture differ from those of the page's others.
        title: Stands above the plot and in its accessible name.
        curve: May be empty: then nothing is right at any score.
        small: Whether it is one of many.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.7, 2.5) if small else (4.3, 4.1), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, parse_math=False)
        recall = [point.recall for point in curve.points]
        axes.plot(recall, [point.precision for point in curve.points], color=FIRST)
        if curve.best is not None:
            best = curve.best
            axes.plot([best.recall], [best.precision], marker="o", color=SECOND, clip_on=False)
            where = "right" if best.recall > 0.5 else "left"
            axes.annotate(
                f"{best.threshold:.2f}",
                (best.recall, best.precision),
                (-6 if where == "right" else 6, -12),
                textcoords="offset points",
                ha=where,
                color=MUTED,
            )
        else:
            axes.text(0.5, 0.5, "nothing found", ha="center", color=MUTED)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        if not small:
            axes.set(xlabel="recall", ylabel="precision")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
            axis.set_ticks([0, 0.5, 1] if small else [0, 0.25, 0.5, 0.75, 1])
        return to_svg(figure, name, f"Precision over recall: {title}")


def threshold_plot(name: str, title: str, curve: ScoreCurve, sealed: float) -> str:
    """Precision, recall and F1 over the threshold as inline SVG.

    Args:
        name: Makes the ids of this picture differ from those of the page's others.
        title: Stands above the plot and in its accessible name.
        curve: May be empty: then nothing is right at any score.
        sealed: The threshold in use; marked by a dashed line.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 4.1), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, parse_math=False)
        x = [point.threshold for point in curve.points]
        lines = {
            "precision": ([point.precision for point in curve.points], FIRST, "-"),
            "recall": ([point.recall for point in curve.points], SECOND, "-"),
            "F1": ([point.f1 for point in curve.points], MUTED, (0, (4, 2))),
        }
        for label, (values, ink, line) in lines.items():
            axes.plot(x, values, color=ink, linestyle=line, label=label)
        axes.axvline(sealed, color=MUTED, linestyle=(0, (2, 3)), linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(loc="lower center", ncols=3)
        return to_svg(figure, name, f"By threshold: {title}")


def distance_plot(
    name: str, layers: Sequence[str], pixels: Sequence[Sequence[float]], title: str
) -> str:
    """Attention distance of every head over the layers, as inline SVG (ViT Fig. 7, right).

    Args:
        name: Makes the ids of this picture differ from those of the page's others.
        layers: Names of the layers, first to last.
        pixels: Mean distance of each head of each layer.
        title: Stands above the plot and in its accessible name.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    places = range(1, len(layers) + 1)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        x = [place for place, heads in zip(places, pixels, strict=True) for _ in heads]
        y = [value for heads in pixels for value in heads]
        axes.plot(x, y, color=FIRST, marker="o", markersize=4, linestyle="", alpha=0.8)
        means = [sum(heads) / len(heads) for heads in pixels]
        axes.plot(places, means, color=SECOND, linewidth=1.2)
        axes.set(ylabel="pixels", ylim=(0, None), xlim=(0.5, len(layers) + 0.5))
        axes.set_xticks(list(places), list(layers), rotation=45, ha="right")
        return to_svg(figure, name, title)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Inline SVG without a size of its own, in the page's font and colours, with ids of its own."""
    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    opening = f'<svg {box[0]} role="img" aria-label="{_attribute(label)}" xmlns:xlink="{_XLINK}">'
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for ink, variable in _INKS.items():
        text = text.replace(ink, variable)
    return text


_XLINK = "http://www.w3.org/1999/xlink"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
