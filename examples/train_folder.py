"""Train on a folder of images, one folder a class, and say how good the model is.

    python examples/train_folder.py PHOTOS RUN [schedule.epochs=20 ...]

Everything after the run folder is laid over the recipe that vitrail chooses from the data.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vitrail import load_model, train


def main(photos: str, run: str, *overrides: str) -> None:
    """Train, then read the measured metrics back out of the model file."""
    result = train(photos, overrides=overrides, out=Path(run))
    _, provenance = load_model(result.model)
    for name, value in provenance.metrics.items():
        low, high = provenance.intervals.get(name, (value, value))
        interval = f"  (95 %: {low:.3f} to {high:.3f})" if high > low else ""
        print(f"{name:20} {value:.3f}{interval}")
    print(f"best epoch {result.best_epoch + 1}, {result.seconds:.0f} seconds")
    print(f"{result.quarantined} files could not be used; the report says which: {result.report}")


if __name__ == "__main__":
    main(*sys.argv[1:])
