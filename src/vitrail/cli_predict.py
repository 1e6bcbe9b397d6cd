"""The verbs that use a model: evaluate, predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitrail.errors import UserError
from vitrail.options import BATCH, DEVICE, JSON
from vitrail.terminal import Bar, print_json, print_measured, say

LEAST = 1e-6
"""A threshold stays so far from 0 and 1."""

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset
    from vitrail.model import Model
    from vitrail.predict import Row
    from vitrail.prediction_boxes import Numbers
    from vitrail.prediction_masks import MaskForm
    from vitrail.tasks.segment import SegmentConfig
    from vitrail.weights.modelfile import Provenance


@click.command()
@click.argument("model")
@click.argument("data")
@click.option(
    "--split",
    type=click.Choice(["auto", "all", "train", "val", "test"]),
    default="auto",
    show_default=True,
    help="auto: the data's own test part, or the part held back in training, else all.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the predictions there.")
@BATCH
@DEVICE
@JSON
def evaluate(
    model: str,
    data: str,
    split: str,
    out: Path | None,
    batch_size: int,
    device: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure MODEL (a model file or run folder) on labelled DATA."""
    from vitrail.data.open import open_labelled
    from vitrail.evaluate import choose_split
    from vitrail.evaluate import evaluate as run
    from vitrail.prediction_files import check_out, write_predictions

    loaded, provenance = _load(model, device)
    chosen, why = choose_split(data, split, provenance, task=loaded.config.task.kind)
    say(why)
    task = loaded.config.task.kind
    dataset = open_labelled(data, split=chosen, seed=provenance.seed, task=task)
    form = _form(loaded, dataset)
    if out is not None:
        check_out(out, form)
    with Bar(len(dataset), "evaluating") as advance:
        result = run(loaded, dataset, batch_size=batch_size, progress=advance)
    if out is not None:
        write_predictions(result.rows, out, form)
    if as_json:
        print_json(
            {
                "model": model,
                "data": data,
                "split": chosen,
                "task": loaded.config.task.kind,
                "count": result.count,
                "metrics": result.metrics,
                "intervals": result.result.intervals,
                "quarantined": len(result.quarantined),
            }
        )
        return
    print_measured(result.result)
    for skipped in result.quarantined:
        say(f"quarantined {skipped.id}: {skipped.reason}")


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .jsonl, .csv or .parquet file. Of boxes or masks also .json (COCO results) or a new "
    "folder: YOLO's files of objects, index PNGs of classes, COCO's PNGs of a panoptic answer.",
)
@click.option(
    "--polygons",
    is_flag=True,
    help="Outlines of masks: --out is .json (COCO data set) or a folder (YOLO).",
)
@click.option("--draw", type=click.Path(path_type=Path), help="New folder for drawn images.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Least score of an object, or, with one class and a background, probability of a pixel. "
    "[default: the model's; files have all objects]",
)
@click.option(
    "--slice",
    "tile",
    type=click.IntRange(min=1),
    help="Of a detector: also predict tiles this wide.",
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Least share of a tile that its neighbour has too.",
)
@click.option("--shard", default="0/1", show_default=True, help="Part i of n, counted from 0.")
@BATCH
@DEVICE
@JSON
def predict(  # noqa: PLR0913, PLR0917 one argument an option
    model: str,
    images: tuple[str, ...],
    out: Path | None,
    polygons: bool,  # noqa: FBT001
    draw: Path | None,
    threshold: float | None,
    tile: int | None,
    overlap: float,
    shard: str,
    batch_size: int,
    device: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Predict IMAGES (files, folders, globs, archives, a COCO data set) with MODEL."""
    from vitrail.predict import open_for, shard_of
    from vitrail.prediction_boxes import new_folder
    from vitrail.prediction_files import check_out, write_predictions
    from vitrail.prediction_pictures import draw_predictions

    loaded, _ = _load(model, device)
    _check_options(loaded, out, draw, threshold, tile, polygons=polygons)
    whole = open_for(loaded, images)
    dataset = shard_of(whole, shard)
    form = _form(loaded, whole, polygons=polygons)
    if out is None and as_json:
        out = Path("predictions.jsonl")
    if out is not None:
        check_out(out, form)
    if draw is not None:
        new_folder(draw)
    loaded, least = _thresholds(loaded, threshold)
    if whole.image_ids is not None:
        say(f"a labelled data set: its {len(whole)} images, with the numbers that it gives them")
    with Bar(len(dataset), "predicting") as advance:
        found = _rows(loaded, dataset, tile, overlap, batch_size)
        rows = list(_watched(found, advance))
    sure = [row.above(least) for row in rows]
    drawn = None if draw is None or form is None else draw_predictions(sure, dataset, draw, form)
    if out is None:
        for row in sure:
            click.echo(f"{row.path}  {row.answer}")
    else:
        count, errors = write_predictions(rows if threshold is None else sure, out, form)
        if as_json:
            pictures = {} if drawn is None else {"drawn": drawn}
            print_json({"out": str(out), "count": count, "errors": errors, **pictures})
            return
        say(f"{count} rows in {out}, {errors} of them errors")
    if drawn is not None:
        say(f"{drawn} drawn images in {draw}")


def _check_options(
    model: Model,
    out: Path | None,
    draw: Path | None,
    threshold: float | None,
    tile: int | None,
    *,
    polygons: bool,
) -> None:
    """What the model has no use for, or what would be found out only after all are predicted."""
    from vitrail.tasks.detect import DetectConfig
    from vitrail.tasks.segment import SegmentConfig

    task = model.config.task
    segments = isinstance(task, SegmentConfig)
    finds = segments or isinstance(task, DetectConfig)
    if not finds and (draw, threshold, tile) != (None, None, None):
        raise UserError("the model finds no objects; --draw, --threshold and --slice need some")
    if polygons and not segments:
        raise UserError("--polygons: the model gives no masks; leave it out")
    if polygons and out is None:
        raise UserError("--polygons: say where with --out, a .json file (COCO) or a folder (YOLO)")
    if segments and tile is not None:
        raise UserError(
            f"--slice {tile}: merges boxes, not masks; a segmenter that works in tiles was trained "
            "so, with preprocess.resize.kind = 'tiles'"
        )
    if segments and threshold is not None and task.answer == "semantic" and not task.binary:
        raise UserError(
            f"--threshold {threshold}: each pixel is of its most probable class; leave it out"
        )
    if threshold is not None and math.isnan(threshold):  # which click takes for one in its range
        raise UserError("--threshold nan: give a score from 0 to 1")
    if out is not None and draw is not None and out.absolute() == draw.absolute():
        raise UserError(f"{out}: given as --out and as --draw; give each its own folder")


def _rows(
    model: Model, dataset: Dataset, tile: int | None, overlap: float, batch_size: int
) -> Iterator[Row]:
    from vitrail.predict import predict as run
    from vitrail.slicing import predict_sliced

    if tile is None:
        return run(model, dataset, batch_size=batch_size)
    return predict_sliced(model, dataset, size=tile, overlap=overlap, batch_size=batch_size)


def _load(model: str, device: str) -> tuple[Model, Provenance]:
    from vitrail.device import pick_device
    from vitrail.weights.modelfile import load_model, resolve_model

    loaded, provenance = load_model(resolve_model(model))
    return loaded.to(pick_device(device)), provenance


def _form(model: Model, dataset: Dataset, *, polygons: bool = False) -> Numbers | MaskForm | None:
    """What files of boxes or masks need to know; None where answers are neither."""
    from vitrail.prediction_boxes import Numbers
    from vitrail.prediction_masks import MaskForm
    from vitrail.tasks.detect import DetectConfig
    from vitrail.tasks.segment import SegmentConfig

    match model.config.task:
        case DetectConfig() as task:
            return Numbers.of(task, dataset)
        case SegmentConfig() as task:
            return MaskForm.of(task, dataset, polygons=polygons)
        case _:
            return None


def _thresholds(model: Model, given: float | None) -> tuple[Model, float]:
    """The model that decides by the threshold given, and the least score of what it finds."""
    from vitrail.tasks.detect import DetectConfig
    from vitrail.tasks.segment import SegmentConfig

    match model.config.task:
        case SegmentConfig(answer="semantic") as task:
            # One class: the threshold makes the regions. More have none.
            return (model if given is None else _decided(model, task, given)), 0.0
        case SegmentConfig(answer="panoptic"):
            return model, given or 0.0
        case DetectConfig(threshold=own) | SegmentConfig(threshold=own):
            return model, own if given is None else given
        case _:
            return model, 0.0


def _decided(model: Model, task: SegmentConfig, threshold: float) -> Model:
    """The same model with another threshold."""
    from vitrail.model import Model
    from vitrail.tasks.segment import SegmentConfig

    fields = {**task.model_dump(), "threshold": min(max(threshold, LEAST), 1 - LEAST)}
    changed = SegmentConfig.model_validate(fields)
    other = Model(model.config.model_copy(update={"task": changed}))
    other.load_state_dict(model.state_dict())
    return other.to(next(model.parameters()).device).eval()


def _watched(rows: Iterable[Row], advance: Callable[[int], None]) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        advance(done)
        yield row
