"""What every task's measure has in common."""

from __future__ import annotations

from vitrail.config import Config


class Measured(Config):
    """All that is measured on one labelled set; each task adds what is its own.

    Attributes:
        count: Samples measured.
        metrics: Values by their fixed names.
        intervals: Bootstrap 95 % interval of the headline metrics; empty where none was asked for.
    """

    count: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
