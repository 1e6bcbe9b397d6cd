"""Does training keep its memory? Resident set of a detector's training over some thousand steps.

    python benchmarks/training_memory.py DATA --steps 2000

The usual recipe for the data is trained in this process; nothing of the run is kept. The first
steps are left out: buffers grow to what the largest batches and a validation need.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vitrail.data.open import open_source
from vitrail.machine import keep_freed_memory
from vitrail.train.choose import choose_recipe
from vitrail.train.loop import Trainer
from vitrail.train.progress import Progress
from vitrail.train.start import first_model

WARM = 500
"""Steps after which everything has been allocated once."""


def resident() -> float:
    """Resident set of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc/self/status: this needs Linux")


def growth(
    data: str, steps: int, overrides: list[str], warm: int = WARM
) -> tuple[list[tuple[int, float]], float]:
    """Resident set by step, and how much it grew at most after the warm beginning, as a share.

    Args:
        data: What to train on.
        steps: Optimizer steps that are measured, about; epochs are whole.
        overrides: Laid over the recipe.
        warm: Steps before these.
    """
    source = open_source(data)
    recipe = choose_recipe(source, overrides=overrides).recipe
    train = source.splits["train"]
    epochs = max(1, round((steps + warm) / (len(train) // recipe.data.batch_size)))
    schedule = recipe.schedule.model_copy(update={"epochs": epochs})
    recipe = recipe.model_copy(update={"schedule": schedule})
    seen: list[tuple[int, float]] = []

    def watch(progress: Progress) -> None:
        step = progress.epoch * progress.batches + progress.batch
        if step % max(1, steps // 40) == 0 and step >= warm:
            seen.append((step, resident()))

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        keep_freed_memory()
        model = first_model(recipe, source, run)
        Trainer(model, train, source.splits["val"], recipe, run, watch).fit()
    sizes = [size for _, size in seen]
    return seen, max(sizes) / sizes[0] - 1


def main() -> None:
    """Print a line a sample and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    seen, more = growth(arguments.data, arguments.steps, arguments.overrides)
    for step, size in seen:
        print(f"{step:6} {size:8.1f} MiB")
    print(f"greatest in these steps: {more:+.2%} of the first")


if __name__ == "__main__":
    main()
