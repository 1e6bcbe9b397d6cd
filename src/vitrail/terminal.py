"""What a person sees in a terminal: sentences, tables, progress. Only the command line uses it.

Results go to standard output; progress and warnings to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vitrail.data.check import Report
    from vitrail.data.class_balance import SplitCounts
    from vitrail.metrics.measured import Measured
    from vitrail.metrics.segmentation import ClassSegmentation
    from vitrail.probe.run import Probe
    from vitrail.train.run import Event, TrainResult
    from vitrail.verification import Verification

SHOWN = 10
"""Examples of a finding that are printed."""


def say(text: str) -> None:
    """One sentence on standard error."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Rows of cells; an empty header is left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, show_header=any(header), pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # Piped, a table is as wide as it needs to be, so that no name is cut.
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    console.print(table)


def print_metrics(metrics: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    """Metrics with their intervals."""
    rows = [
        [
            name,
            f"{value:.4f}",
            "{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else "",
        ]
        for name, value in metrics.items()
    ]
    print_table(["metric", "value", "95 % interval"], rows)


def print_measured(measured: Measured) -> None:
    """Metrics, then a table by class or by length."""
    from vitrail.metrics.classification import ClassificationMetrics
    from vitrail.metrics.detection import DetectionMetrics
    from vitrail.metrics.segmentation import SegmentationMetrics
    from vitrail.metrics.transcription import TranscriptionMetrics

    print_metrics(measured.metrics, measured.intervals)
    match measured:
        case ClassificationMetrics(per_class=classes):
            header = ["class", "images", "precision", "recall", "F1"]
            rows = [
                [c.name, str(c.support), f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}"]
                for c in classes
            ]
            print_table(header, rows)
        case TranscriptionMetrics(per_length=lengths):
            rows = [
                [str(n.length), str(n.count), f"{n.exact_match:.3f}", f"{n.cer:.4f}"]
                for n in lengths
            ]
            print_table(["length", "images", "exact match", "CER"], rows)
        case DetectionMetrics(per_class=found):
            header = ["class", "objects", "AP", "AP50", "recall", "best F1", "from score"]
            rows = [
                [
                    c.name,
                    str(c.support),
                    *("-" if value is None else f"{value:.3f}" for value in (c.ap, c.ap50, c.ar)),
                    f"{c.curve.best.f1:.3f}" if c.curve.best else "-",
                    f"{c.curve.best.threshold:.2f}" if c.curve.best else "-",
                ]
                for c in found
            ]
            print_table(header, rows)
        case SegmentationMetrics(per_class=segmented):
            print_classes(segmented)
        case _:
            raise AssertionError(f"no table for {type(measured).__name__}")


def print_classes(rows: Sequence[ClassSegmentation]) -> None:
    """What is known of each class of a segmenter."""
    names = {
        "pixels": "pixels",
        "objects": "segments",
        "ap": "AP",
        "ap50": "AP50",
        "pq": "PQ",
        "sq": "SQ",
        "rq": "RQ",
        "iou": "IoU",
        "dice": "Dice",
        "precision": "precision",
        "recall": "recall",
    }
    table = [row.model_dump() for row in rows]
    shown = [key for key in names if any(row[key] is not None for row in table)]
    print_table(
        ["class", *(names[key] for key in shown)],
        [[row["name"], *(_figure(row[key]) for key in shown)] for row in table],
    )


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def print_findings(data: str, report: Report) -> None:
    """What `check` found."""
    click.echo(f"{data}: {report.format} ({report.reason})")
    for name, counts in report.counts.items():
        click.echo(f"  {name}: {counts.samples} images")
    _print_shares(report)
    for finding in report.findings:
        click.echo(f"{finding.severity}: {finding.message}")
        for sample in finding.samples[:SHOWN]:
            click.echo(f"    {' '.join(str(sample).split())}")  # names may have line breaks
        if finding.count > SHOWN:
            click.echo(f"    ... {finding.count - SHOWN} more; --json lists up to 20")
    for note in report.notes:
        click.echo(f"note: {note}")
    count = sum(finding.severity != "info" for finding in report.findings)
    click.echo(f"{count} finding{'s' if count != 1 else ''}" if count else "nothing found")


def _print_shares(report: Report) -> None:
    """How much there is of each class in masks."""
    splits = {name: counts for name, counts in report.counts.items() if counts.pixels}
    if not splits:
        return
    names = next(iter(splits.values())).pixels
    header = ["class", *(f"{split}: {what}" for split in splits for what in ("pixels", "images"))]
    rows = [[name, *(cell for c in splits.values() for cell in _share(c, name))] for name in names]
    print_table(header, rows)


def _share(counts: SplitCounts, name: str) -> tuple[str, str]:
    return f"{counts.pixels[name] / max(counts.judged, 1):.2%}", f"{counts.classes[name]:,}"


def print_probe(found: Probe) -> None:
    """What weights are worth, beside fresh ones and the most frequent class."""
    scores = {
        f"logistic probe, C = {found.logistic.chosen:g}": found.logistic,
        f"nearest neighbours, k = {found.neighbours.chosen:g}": found.neighbours,
        "logistic probe of fresh weights": found.random,
        "most frequent class": found.majority,
    }
    print_table(
        ["on test images", "top-1", "95 % interval"],
        [
            [name, f"{score.top1:.4f}", "{:.4f} to {:.4f}".format(*score.interval)]
            for name, score in scores.items()
        ],
    )
    click.echo(f"fine-tune? {found.verdict}")


def print_verification(found: Verification) -> None:
    """What a checkpoint is, which of its tensors are amiss, and how its outputs compare."""
    rows = [
        ["format", found.format + (f", {found.variant}" if found.variant else "")],
        ["licence", found.licence],
        ["tensors", f"{len(found.shapes)}, {len(found.match.used)} used"],
        ["parameters", f"{found.parameters:,}"],
        *(["note", note] for note in found.notes),
        *(["missing", name] for name in found.match.missing),
        *(["unknown", name] for name in found.match.unused),
        *(["wrong", f"{name}: {what}"] for name, what in found.match.wrong.items()),
        *(["absent", f"{name} (not needed)"] for name in found.match.absent),
    ]
    print_table(["", ""], rows)
    if found.comparisons:
        click.echo(f"beside {found.reference}")
        header = ["output", "images", "max abs", "max rel", "allowed", ""]
        print_table(
            header,
            [
                [
                    *(c.output, c.size, f"{c.max_abs:.2e}", f"{c.max_rel:.2e}", f"{c.limit:.2e}"),
                    "" if c.within else "TOO FAR",
                ]
                for c in found.comparisons
            ],
        )
    for name in found.not_compared:
        click.echo(f"not compared: {name}, which this model does not give")
    for name in found.suspects:
        click.echo(f"transposed: with {name} turned back the outputs are right")
    click.echo(f"verdict: {VERDICTS[found.verdict]}")


VERDICTS = {
    "equal": "equal to the reference",
    "whole": "whole: every tensor is accounted for; nothing to compare with was given",
    "partly": "PARTLY: equal as far as it was compared, and the head was not",
    "differs": "DIFFERS from the reference",
    "incomplete": "INCOMPLETE: tensors are missing, unknown or wrong",
}


def print_result(result: TrainResult) -> None:
    """Where training left its results."""
    headline = next(iter(result.metrics))
    click.echo(f"test {headline}: {result.metrics[headline]:.4f}")
    click.echo(f"model:  {result.model}")
    click.echo(f"report: {result.report}")
    if result.quarantined:
        click.echo(f"quarantined: {result.quarantined} samples, see {result.run}/quarantine.csv")


class Bar:
    """A progress bar on standard error; nothing where that is no terminal."""

    def __init__(self, total: int | None, text: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(text, total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda done: self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class Live:
    """Live progress of training on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24))
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("", visible=False)
        self._last = -1

    def __enter__(self) -> Callable[[Event], None]:
        if self._console.is_terminal:
            self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def _tell(self, event: Event) -> None:
        from vitrail.train.run import Said

        if isinstance(event, Said):
            self._bar.update(self._task, visible=False)
            self._console.print(event.text, markup=False, soft_wrap=True)
            return
        value = f"{event.metric} {event.value:.4f}" if event.value is not None else ""
        minutes, seconds = divmod(int(event.seconds_left), 60)
        text = (
            f"epoch {event.epoch + 1}/{event.epochs}  loss {event.loss:.3f}  {value}  "
            f"{event.images_per_second:,.0f} images/s  {minutes}:{seconds:02d} left"
        )
        if self._console.is_terminal:
            total = event.epochs * event.batches
            done = event.epoch * event.batches + event.batch
            self._bar.update(
                self._task, description=text, total=total, completed=done, visible=True
            )
        elif event.batch == event.batches and event.epoch != self._last:
            self._last = event.epoch
            self._console.print(text, markup=False, soft_wrap=True)
