"""One run of an arm that is a recipe: just what `vitrail train` does, without its report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vitrail.data.dataset import Source
from vitrail.data.open import open_source
from vitrail.model import Model
from vitrail.studies.study import Job, Measure, Plan
from vitrail.train.choose import choose_recipe
from vitrail.train.run import fit

TOP1 = Measure("top1", "test top-1")
SECONDS = Measure("seconds", "computing time, s", percent=False, plotted=False)
MILLISECONDS = Measure("ms", "ms a view", percent=False, plotted=False)
PARAMS = Measure("params", "parameters", percent=False, plotted=False)

ROUNDS = 10
"""Forward passes of which the quickest is told."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A run that is over.

    Attributes:
        model: The best weights.
        source: What it learned from and was tested on.
        figures: What every such run tells: metrics of the test part, `seconds` of training and
            testing (on a CPU those that it computed, so that other programs do not count) and
            `params`, the number of parameters.
    """

    model: Model
    source: Source
    figures: dict[str, float]


def train_arm(job: Job, plan: Plan, metrics: Sequence[str] = ("top1",)) -> Trained:
    """Train and test; an interrupted run goes on from its newest checkpoint.

    Args:
        job: The run.
        plan: What it belongs to.
        metrics: Which metrics of the test part are told.
    """
    source = open_source(job.data, seed=job.seed)
    chosen = choose_recipe(source, name=plan.recipe, overrides=job.overrides(plan))
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    start = clock()
    fitted = fit(source, chosen.recipe, job.run, resume=True)
    seconds = clock() - start
    for checkpoint in (job.run / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)  # the best weights stay beside them
    found = {
        **{name: fitted.evaluation.metrics[name] for name in metrics},
        "seconds": round(seconds, 2),
        "params": float(sum(p.numel() for p in fitted.model.parameters())),
    }
    return Trained(fitted.model.eval(), source, found)


def measure_arm(job: Job, plan: Plan) -> dict[str, float]:
    """Train, test and tell."""
    return train_arm(job, plan).figures


def held_out(
    trained: Trained, batch_size: int = 250
) -> list[tuple[UInt8[Tensor, "B 3 H W"], Int[Tensor, "B"]]]:
    """Prepared images and class indices of the test part, in order."""
    test, device = trained.source.splits["test"], next(trained.model.parameters()).device
    prepare = trained.model.config.preprocess.prepare
    targets = torch.tensor([target for target in test.targets if isinstance(target, int)])
    assert len(targets) == len(test), "studies are about single labels"
    batches: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(test), batch_size):
        places = range(start, min(start + batch_size, len(test)))
        images = torch.stack([prepare(test.read(i).image) for i in places])
        batches.append((images.to(device), targets[start : start + batch_size].to(device)))
    return batches


@torch.no_grad()
def milliseconds(model: Model) -> float:
    """Time of a forward pass of one view; on a CPU computing time, as other programs do not count.

    Args:
        model: In evaluation mode.
    """
    height, width = model.config.backbone.image_size
    device = next(model.parameters()).device
    view = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    seconds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter() if device.type == "cuda" else time.process_time()
        model(view)
        if device.type == "cuda":
            torch.cuda.synchronize()
        end = time.perf_counter() if device.type == "cuda" else time.process_time()
        seconds.append(end - start)
    return 1000 * min(seconds)
