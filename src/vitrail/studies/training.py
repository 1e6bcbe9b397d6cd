"""One run of an arm that is a recipe: just what `vitrail train` does, without its report."""

from __future__ import annotations

import shutil

import torch

from vitrail.data.dataset import Source
from vitrail.data.open import open_source
from vitrail.studies.study import Job, Measure, Plan
from vitrail.train.choose import choose_recipe
from vitrail.train.run import Fitted, fit

TOP1 = Measure("top1", "test top-1")
SECONDS = Measure("seconds", "training, s", percent=False, plotted=False)
PARAMS = Measure("params", "parameters", percent=False, plotted=False)


def train_arm(job: Job, plan: Plan) -> tuple[Fitted, Source]:
    """Train and test; an interrupted run goes on from its newest checkpoint."""
    source = open_source(job.data, seed=job.seed)
    chosen = choose_recipe(source, name=plan.recipe, overrides=job.overrides(plan))
    fitted = fit(source, chosen.recipe, job.run, resume=True)
    for checkpoint in (job.run / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)  # the best weights stay beside them
    return fitted, source


def figures(fitted: Fitted) -> dict[str, float]:
    """What every such run tells: test accuracy, seconds of training, number of parameters."""
    return {
        "top1": fitted.evaluation.metrics["top1"],
        "seconds": fitted.position.seconds,
        "params": float(sum(p.numel() for p in fitted.model.parameters())),
    }


def measure_arm(job: Job, plan: Plan) -> dict[str, float]:
    """Train, test and tell."""
    fitted, _ = train_arm(job, plan)
    return figures(fitted)


def test_batches(
    source: Source, fitted: Fitted, batch_size: int = 250
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Prepared images (B, 3, H, W) in uint8 and class indices (B,) of the test part, in order."""
    test, device = source.splits["test"], next(fitted.model.parameters()).device
    prepare = fitted.model.config.preprocess.prepare
    targets = torch.tensor([target for target in test.targets if isinstance(target, int)])
    assert len(targets) == len(test), "studies are about single labels"
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start in range(0, len(test), batch_size):
        places = range(start, min(start + batch_size, len(test)))
        images = torch.stack([prepare(test.read(i).image) for i in places])
        batches.append((images.to(device), targets[start : start + batch_size].to(device)))
    return batches
