"""What the report of a transcriber shows: figures by length, confused symbols, worst errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset, Source
from vitrail.evaluate import Evaluation
from vitrail.explain.reading import read_text
from vitrail.metrics.alignment import Pair, align
from vitrail.metrics.calibration import expected_calibration_error, reliability
from vitrail.metrics.transcription import TranscriptionMetrics
from vitrail.model import Model
from vitrail.report_figures import length_plot, reliability_plot
from vitrail.report_pictures import Picture, picture, reading_picture
from vitrail.report_samples import as_pixels, prepared
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.types import Transcription

MATRIX_SYMBOLS, PAIRS = 30, 12
"""Most symbols of a matrix, and pairs of confused symbols, that are shown."""

METRICS = {
    "exact_match": ("Exact match", "the whole text is right, symbol by symbol"),
    "cer": (
        "Character error rate (CER)",
        "symbols wrong, missing or too many, over all symbols; less is better",
    ),
}
"""Plain names and meanings of the metrics, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Misread:
    """One text that was read wrong.

    Attributes:
        id: Name of the sample.
        true: The text.
        read: What the model wrote.
        pairs: Both, symbol by symbol.
        score: Probability that the model gave to what it wrote.
        image: As the model saw it.
        looked: Which columns each symbol looked at, the end mark last.
    """

    id: str
    true: str
    read: str
    pairs: tuple[Pair, ...]
    score: float
    image: Picture
    looked: Picture

    @property
    def edits(self) -> int:
        """Edit distance."""
        return sum(a != b for a, b in self.pairs)


@dataclass(frozen=True, slots=True)
class _Read:
    """One answer beside the truth."""

    index: int
    true: str
    read: str
    score: float
    pairs: tuple[Pair, ...]


def transcription_context(
    model: Model, source: Source, evaluation: Evaluation, result: TranscriptionMetrics
) -> dict[str, Any]:
    """What `transcribe.html` needs beyond what every report has."""
    task = model.config.task
    assert isinstance(task, TranscribeConfig)
    test = source.splits["test"]
    answers = _answers(test, evaluation)
    symbols = Counter(pair for answer in answers for pair in answer.pairs)
    bars = reliability(
        np.array([answer.score for answer in answers]),
        np.array([answer.true == answer.read for answer in answers]),
    )
    cer = result.metrics["cer"]
    return {
        "task": task,
        "result": result,
        "content": f"texts of {len(task.alphabet)} symbols",
        "headline": _headline(result, answers),
        "by_length": length_plot("length", result.per_length, cer, "Exact match by length"),
        "confusion": _confusion(symbols, task.alphabet),
        "pairs": _confused_pairs(symbols),
        "edits": _edits(symbols),
        "reliability": reliability_plot("reliability", bars, "Reliability"),
        "ece": expected_calibration_error(bars),
        "mistakes": worst_misread(model, test, answers),
    }


def _answers(test: Dataset, evaluation: Evaluation) -> list[_Read]:
    answers: list[_Read] = []
    for i, row in enumerate(evaluation.rows):
        true = test.targets[i]
        if isinstance(row.prediction, Transcription) and isinstance(true, str):
            read = row.prediction.text
            answers.append(_Read(i, true, read, row.prediction.score, tuple(align(true, read))))
    return answers


def _headline(result: TranscriptionMetrics, answers: Sequence[_Read]) -> dict[str, Any]:
    """The one figure, its interval, and what they mean in words."""
    right = round(result.metrics["exact_match"] * result.count)
    wrong = [answer for answer in answers if answer.true != answer.read]
    return {
        "label": METRICS["exact_match"][0],
        "value": result.metrics["exact_match"],
        "interval": result.intervals["exact_match"],
        "digits": 1 if result.count < 2000 else 2,
        "right": right,
        "wrong": result.count - right,
        "one_edit": sum(sum(a != b for a, b in answer.pairs) == 1 for answer in wrong),
        "mean_length": mean(len(answer.true) for answer in answers),
    }


def _edits(symbols: Counter[Pair]) -> dict[str, int]:
    """How many symbols were replaced, missing and too many, and how many there are."""
    return {
        "replaced": sum(n for (a, b), n in symbols.items() if a and b and a != b),
        "missing": sum(n for (_, b), n in symbols.items() if b is None),
        "added": sum(n for (a, _), n in symbols.items() if a is None),
        "symbols": sum(n for (a, _), n in symbols.items() if a is not None),
    }


def _confusion(symbols: Counter[Pair], alphabet: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the matrix: true symbol, and for each symbol read its count and share.

    The last column counts what was missed; the last row what was read where nothing stands, as
    shares of all symbols read so.
    """
    if len(alphabet) > MATRIX_SYMBOLS:
        return []
    rows: list[dict[str, Any]] = []
    for true in (*alphabet, None):
        counts = [symbols[true, read] for read in alphabet]
        counts.append(symbols[true, None] if true is not None else 0)
        whole = max(sum(counts), 1)
        rows.append({"name": true or "nothing", "cells": [(n, n / whole) for n in counts]})
    return rows


def _confused_pairs(symbols: Counter[Pair]) -> list[dict[str, Any]]:
    """True symbol and what was read for it, with counts, most first; None is no symbol."""
    seen = Counter[str | None]()
    for (true, _), count in symbols.items():
        seen[true] += count
    return [
        {"true": true, "read": read, "count": count, "of": seen[true] if true else None}
        for (true, read), count in symbols.most_common()
        if true != read
    ][:PAIRS]


def worst_misread(
    model: Model, test: Dataset, answers: Sequence[_Read], *, most: int = 12
) -> list[Misread]:
    """The most confident errors.

    Args:
        model: Whose preprocessing is used.
        test: What was evaluated; the samples shown are read again.
        answers: All of them, right ones too.
        most: Errors to show at most.
    """
    wrong = [answer for answer in answers if answer.true != answer.read]
    shown: list[Misread] = []
    for answer in sorted(wrong, key=lambda answer: -answer.score):
        if len(shown) == most:
            break
        image = prepared(model, test, answer.index)
        if image is None:
            continue
        seen = read_text(model, image[None].to(next(model.parameters()).device))[0]
        shown.append(
            Misread(
                id=test.ids[answer.index],
                true=answer.true,
                read=answer.read,
                pairs=answer.pairs,
                score=answer.score,
                image=picture(as_pixels(image)),
                looked=reading_picture(seen.maps.numpy(force=True), image.shape[2]),
            )
        )
    return shown
