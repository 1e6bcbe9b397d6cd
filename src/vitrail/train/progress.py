"""How far a run is, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, for whoever shows it.

    Attributes:
        epoch: Epoch, from 0.
        epochs: Epochs of the run.
        batch: Batches of this epoch that are done.
        batches: Batches of an epoch.
        loss: Mean training loss of this epoch so far.
        lr: Learning rate.
        images_per_second: Over the last steps.
        seconds_left: Estimate for the rest of the run.
        metric: Name of the selection metric.
        value: Its last value on the validation part, or None before the first.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float
    metric: str
    value: float | None


class Clock:
    """Time spent in a run, over all interruptions, and images a second since the last look.

    Args:
        before: Seconds that the run had taken before this start of it.

    Attributes:
        images: Images shown since this start.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.images = 0
        self._before, self._start = before, time.monotonic()
        self._save = self._look = self._start
        self._rate, self._seen = 0.0, 0

    def total(self) -> float:
        """Seconds of the whole run."""
        return self._before + time.monotonic() - self._start

    def since_save(self) -> float:
        """Seconds since the last checkpoint."""
        return time.monotonic() - self._save

    def saved(self) -> None:
        """A checkpoint was written."""
        self._save = time.monotonic()

    def images_per_second(self) -> float:
        """Rate of the last second or more."""
        now = time.monotonic()
        if now - self._look >= 1 or self._rate == 0:
            self._rate = (self.images - self._seen) / max(now - self._look, 1e-9)
            self._look, self._seen = now, self.images
        return self._rate
