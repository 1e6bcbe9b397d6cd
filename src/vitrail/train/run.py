"""A whole run: data in; model file, logs, evaluation and report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vitrail.config import build, read_toml, write_toml
from vitrail.data.augment import AugmentConfig
from vitrail.data.box_augment import BoxAugmentConfig
from vitrail.data.dataset import Dataset, Source
from vitrail.data.mask_augment import MaskAugmentConfig
from vitrail.data.open import open_source
from vitrail.data.recognise import Wanted
from vitrail.device import pick_device
from vitrail.errors import ModelFileError, UserError
from vitrail.evaluate import Evaluation, evaluate
from vitrail.machine import keep_freed_memory
from vitrail.model import Model
from vitrail.prediction_files import write_predictions
from vitrail.report import write_report
from vitrail.train.calibrate import calibrate
from vitrail.train.checkpoint import Position
from vitrail.train.choose import Chosen, choose_recipe
from vitrail.train.distill import seal_of_teacher
from vitrail.train.log import write_quarantine
from vitrail.train.loop import Trainer, selection_metric
from vitrail.train.objective import build_objective
from vitrail.train.optim import prepare
from vitrail.train.progress import Progress
from vitrail.train.recipe import DetectRecipe, Recipe, SegmentRecipe
from vitrail.train.start import (
    Start,
    first_model,
    fit_to_data,
    keep_start,
    read_origin,
    run_model_config,
)
from vitrail.weights.modelfile import (
    Provenance,
    load_model,
    save_model,
    versions,
    write_atomically,
)

FROM_SCRATCH = "the data owner's; trained from scratch"
"""Licence of weights that came from the data alone."""


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence for people: what was recognised, chosen or found."""

    text: str


Event = Progress | Said
"""What a run tells its listener while it goes."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model.

    Attributes:
        model: The best weights, calibrated on the validation part, in evaluation mode.
        evaluation: On the test part.
        position: Where training ended.
        quarantine: Samples that could not be used, with the reason, split by split.
        selection_metric: The metric that chose the weights.
    """

    model: Model
    evaluation: Evaluation
    position: Position
    quarantine: dict[str, dict[str, str]]
    selection_metric: str


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training left behind.

    Attributes:
        run: The run folder.
        task: What was learned: `classify`, `transcribe`, `detect` or `segment`.
        model: The sealed model file.
        report: The HTML report.
        metrics: Metrics on the test split.
        best_epoch: Epoch of the weights that were kept, from 0.
        seconds: Training time, over all interruptions.
        quarantined: Samples of all splits that could not be used.
    """

    run: Path
    task: str
    model: Path
    report: Path
    metrics: dict[str, float]
    best_epoch: int
    seconds: float
    quarantined: int


def train(  # noqa: PLR0913 one argument an option of the command line
    data: str | None = None,
    *,
    task: Wanted | None = None,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    method: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    command: str = "",
    listener: Callable[[Event], None] = lambda _: None,
) -> TrainResult:
    """Train a model on a data set and report on it.

    Args:
        data: A path or a built-in name; `digits` by default, the run's own data on resuming.
        task: `classify`, `transcribe`, `detect` or `segment`; by default what the data's labels
            are made for. Polygons serve `detect` and `segment`.
        recipe: A preset or a TOML file; by default one is chosen from the data.
        model: A variant to train instead of the recipe's own; with `weights`, the variant that
            they are, where they do not tell.
        weights: Weights to go on from: a model file, a run folder, a checkpoint of another
            library, or a hub id. Their head is replaced where the classes differ.
        method: What is trained: `full`, `head`, `lora` or `last-N`.
        overrides: Dotted assignments laid over the recipe.
        out: Run folder; by default below `runs/`, named by data and time.
        resume: Go on with the run in `out`, with its recipe and from its newest checkpoint.
        command: The command line, for the report.
        listener: Told what is going on.

    Raises:
        UserError: wrong data, recipe or folder; nothing was trained.
        NonFiniteLossError: the loss became NaN or infinite.
        InterruptedRunError: stopped by a signal, after saving.
    """
    if resume:
        out = _run_to_resume(out)
        data = data or str(_read_info(out)["data"]["name"])
        if recipe or model or weights or method or overrides:
            raise UserError("--resume goes on with the run's own recipe; leave the options away")
        own = build(Recipe, read_toml(out / "config.toml"), source=str(out / "config.toml"))
        source = open_source(data, seed=own.seed, task=_read_info(out).get("task"))
        return _finish(out, source, own, resume=True, listener=listener)
    data = data or "digits"
    out = out or Path("runs") / f"{Path(data).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if (out / "run.json").exists():
        raise UserError(f"{out}: holds a run already; go on with --resume, or give another --out")
    seed = _seed(recipe, overrides)
    source = open_source(data, seed=seed, task=task)
    _insist_task(task, source)
    listener(Said(f"data: {source.name}: {source.format} ({source.reason}); {_counts(source)}"))
    chosen = choose_recipe(
        source, name=recipe, model=model, weights=weights, method=method, overrides=overrides
    )
    chosen, start = _start_of(chosen, source)
    listener(Said(f"recipe: {chosen.name} ({chosen.reason}); model {chosen.recipe.model.name}"))
    if start is not None:
        listener(Said(start.describe()))
    elif chosen.recipe.optim.method != "full":
        listener(
            Said(
                f"optim.method = '{chosen.recipe.optim.method}' lets fresh weights rest that "
                "nobody has trained; --weights FILE gives others"
            )
        )
    # What cannot be built is said before anything is written.
    with torch.device("meta"):
        planned = Model(run_model_config(chosen.recipe, source, start.origin if start else None))
    build_objective(planned, source.splits["train"], chosen.recipe)
    for part in source.splits.values():
        planned.task.adapt(part)
    selection_metric(planned.task, source.splits["train"], chosen.recipe)
    pick_device(chosen.recipe.run.device)
    prepare(planned, chosen.recipe.optim)
    if start is not None:
        keep_start(start, out)
    _write_start(out, source, chosen, command, start)
    return _finish(out, source, chosen.recipe, resume=False, listener=listener)


def _start_of(chosen: Chosen, source: Source) -> tuple[Chosen, Start | None]:
    """The weights that a recipe goes on from, and the recipe with their name and checksum."""
    recipe = chosen.recipe
    origin = read_origin(recipe)
    if origin is None:
        return chosen, None
    assert recipe.weights is not None
    changes = {
        "weights": recipe.weights.model_copy(update={"sha256": origin.sha256}),
        "model": recipe.model.model_copy(update={"name": origin.name}),
    }
    recipe = recipe.model_copy(update=changes)
    return replace(chosen, recipe=recipe), fit_to_data(origin, recipe, source)


def _finish(
    out: Path, source: Source, recipe: Recipe, *, resume: bool, listener: Callable[[Event], None]
) -> TrainResult:
    """Train from wherever the run stands, then evaluate, seal and report."""
    info = _read_info(out)
    if info["data"]["fingerprint"] != source.fingerprint:
        raise UserError(f"{source.name}: the data has changed since the run began; train afresh")
    _insist_same_teacher(info, recipe)
    fitted = fit(source, recipe, out, resume=resume, listener=listener)
    write_quarantine(out, fitted.quarantine)
    info |= {
        "best_epoch": fitted.position.best_epoch,
        "seconds": round(fitted.position.seconds, 1),
        "selection_metric": fitted.selection_metric,
        "finished": datetime.now(UTC).isoformat(),
    }
    return _seal(out, fitted, source, recipe=recipe, info=info)


def fit(
    source: Source,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    listener: Callable[[Event], None] = lambda _: None,
) -> Fitted:
    """Train and test, without model file and report: what studies and `train` have in common.

    Args:
        source: The data.
        recipe: Complete: its epochs are set.
        out: Folder of checkpoints and logs.
        resume: Go on from the newest checkpoint in `out`.
        listener: Told what is going on.

    Raises:
        UserError: what the recipe asks for cannot be built, or the data cannot be used.
        InterruptedRunError: stopped by a signal, after saving.
    """
    device = pick_device(recipe.run.device)
    keep_freed_memory()
    first = first_model(recipe, source, out).to(device)

    def tell(progress: Progress) -> None:
        nonlocal told
        if not told and trainer.loader.why is not None:
            listener(Said(f"loader: {trainer.loader.why}"))
            told = True
        listener(progress)

    told = False
    trainer = Trainer(first, source.splits["train"], source.splits["val"], recipe, out, tell)
    if resume and trainer.restore():
        at = trainer.position
        listener(Said(trainer.note or f"resuming in epoch {at.epoch + 1} after {at.step} steps"))
    elif resume:
        listener(Said("there is no checkpoint yet: starting from the beginning"))
    position = trainer.fit()
    best, _ = load_model(trainer.best_file)
    best, watched = calibrate(
        best.to(device), source.splits["val"], lambda text: listener(Said(text))
    )
    listener(Said(f"testing on {len(source.splits['test'])} images"))
    evaluation = evaluate(best, source.splits["test"])
    quarantine = {
        "train": position.skipped | _dropped(source),
        "val": {sample.id: sample.reason for sample in watched},
        "test": {sample.id: sample.reason for sample in evaluation.quarantined},
    }
    return Fitted(best, evaluation, position, quarantine, trainer.metric)


def _dropped(source: Source) -> dict[str, str]:
    """Labels that could not be used, by the sample that they belong to."""
    found: dict[str, str] = {}
    for part in source.splits.values():
        for label in part.dropped:
            earlier = f"{found[label.id]}; " if label.id in found else ""
            found[label.id] = earlier + label.reason
    return found


def _seal(
    out: Path, fitted: Fitted, source: Source, *, recipe: Recipe, info: dict[str, Any]
) -> TrainResult:
    """Write model file, predictions, evaluation and report."""
    model, evaluation = fitted.model, fitted.evaluation
    provenance = Provenance(
        data=source.name,
        fingerprint=source.fingerprint,
        seed=recipe.seed,
        metrics=evaluation.metrics,
        intervals=evaluation.result.intervals,
        recipe=recipe.model_dump(mode="json"),
        versions=versions(),
        licence=info["weights"]["licence"] if info.get("weights") else FROM_SCRATCH,
    )
    info |= {"params": sum(p.numel() for p in model.parameters()), "versions": versions()}
    _write_json(out / "run.json", info)
    path = save_model(model, out / "model.safetensors", provenance)
    write_predictions(evaluation.rows, out / "test-predictions.jsonl")
    _write_json(out / "evaluation.json", evaluation.result.model_dump(mode="json"))
    report = write_report(
        out,
        model=model,
        source=source,
        evaluation=evaluation,
        augment=_augment(source.splits["train"], recipe),
        seed=recipe.seed,
    )
    return TrainResult(
        run=out,
        task=model.config.task.kind,
        model=path,
        report=report,
        metrics=evaluation.metrics,
        best_epoch=info["best_epoch"],
        seconds=info["seconds"],
        quarantined=sum(map(len, fitted.quarantine.values())),
    )


def _augment(
    train: Dataset, recipe: Recipe
) -> AugmentConfig | BoxAugmentConfig | MaskAugmentConfig:
    """How training images were varied."""
    if train.segments is not None:
        return (recipe.segment or SegmentRecipe()).augment
    return (recipe.detect or DetectRecipe()).augment if train.boxes else recipe.augment


def _write_start(
    out: Path, source: Source, chosen: Chosen, command: str, start: Start | None
) -> None:
    recipe = chosen.recipe
    write_atomically(out / "config.toml", write_toml(recipe).encode())
    info: dict[str, Any] = {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": chosen.name,
        "recipe_reason": chosen.reason,
        "model": recipe.model.name,
        "versions": versions(),
        "teacher": seal_of_teacher(recipe.distill.teacher) if recipe.distill else None,
        "weights": None if start is None else start.to_dict(),
        "method": recipe.optim.method,
        "task": task_of(source.splits["train"])[0],
        "data": {
            "name": source.name,
            "format": source.format,
            "reason": source.reason,
            "fingerprint": source.fingerprint,
            "counts": {name: len(split) for name, split in source.splits.items()},
            "published": list(source.published),
        },
    }
    _write_json(out / "run.json", info)


def _insist_same_teacher(info: dict[str, Any], recipe: Recipe) -> None:
    """With another teacher a resumed run would not be the one that was begun."""
    if recipe.distill is None:
        return
    try:
        seal = seal_of_teacher(recipe.distill.teacher)
    except (ModelFileError, OSError) as error:
        way_out = "put the teacher back, or train afresh"
        raise UserError(f"distill.teacher: {error}; {way_out}") from error
    if info.get("teacher", seal) != seal:
        raise UserError(
            f"distill.teacher = '{recipe.distill.teacher}': has changed since the run began; "
            "put the old one back, or train afresh"
        )


def _insist_task(task: str | None, source: Source) -> None:
    """Data are made for one task, which a person may name to be sure."""
    fits, labels = task_of(source.splits["train"])
    if task is not None and task != fits:
        raise UserError(
            f"--task {task}: {source.name} is labelled with {labels}, which fits --task {fits}; "
            "a CSV with the columns 'path,text' is read as texts, 'path,label' as classes, "
            "'path,x1,y1,x2,y2,label' as boxes, 'path,mask' as masks"
        )


def task_of(train: Dataset) -> tuple[str, str]:
    """The task that data are made for, and what their labels are called."""
    if train.segments is not None:
        return "segment", "masks"
    if train.boxes:
        return "detect", "boxes"
    return ("transcribe", "texts") if train.text else ("classify", "classes")


def _run_to_resume(out: Path | None) -> Path:
    if out is None:
        runs = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise UserError("no run to resume below runs/; name one with --out RUN")
        out = runs[-1].parent
    if not (out / "run.json").is_file():
        raise UserError(f"{out}: no run to resume there; leave --resume away to begin one")
    return out


def _read_info(out: Path) -> dict[str, Any]:
    try:
        return json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{out / 'run.json'}: damaged ({error}); train afresh") from error


def _write_json(path: Path, table: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode())


def _seed(recipe: str | None, overrides: Sequence[str]) -> int:
    """The seed is needed for the split before a recipe can be chosen from the data."""
    from vitrail.train.recipe import load_recipe

    own = [
        assignment for assignment in overrides if assignment.replace(" ", "").startswith("seed=")
    ]
    return load_recipe(recipe or "small-images", own).seed


def _counts(source: Source) -> str:
    parts = [f"{len(split)} {name}" for name, split in source.splits.items()]
    train = source.splits["train"]
    return ", ".join(parts) + f", {len(train.classes)} {'symbols' if train.text else 'classes'}"
