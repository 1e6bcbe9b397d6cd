"""The verbs that look inside a model: explain, trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click
from click.core import ParameterSource

from vitrail.errors import BadSampleError, ExplainError
from vitrail.options import CLASSES, DEVICE, FIELDS, JSON, PART, VARIANT, given_of
from vitrail.terminal import Bar, print_json, print_table, say

if TYPE_CHECKING:
    from vitrail.explain.method import Method
    from vitrail.explain.open import Opened

PAGE, TRACE = Path("explain.html"), Path("trace.html")

MOST_MB = 100_000
"""Above any page that a browser opens."""

OF_PAGES = {
    "about": "--class",
    "png": "--png",
    "npz": "--npz",
    "curves": "--no-curves",
    "max_mb": "--max-mb",
}
"""Options that --score has no use for, by parameter."""

OF_SCORES = {"samples": "--samples", "split": "--split", "seed": "--seed"}
"""Options that nothing but --score has a use for."""


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help=f"The page. [default: {PAGE}]")
@click.option("--class", "about", metavar="NAME", help="Explain this class, not the predicted one.")
@click.option("--method", "keys", multiple=True, help="Only this method; may be given again.")
@click.option("--png", is_flag=True, help="Also write pictures at print size.")
@click.option("--npz", is_flag=True, help="Also write every map and all attention as arrays.")
@click.option("--curves/--no-curves", default=True, help="Measure deletion and insertion.")
@click.option("--max-mb", default=12.0, show_default=True, help="Most megabytes of the page.")
@click.option(
    "--score", is_flag=True, help="Measure how far to believe the maps, on labelled DATA."
)
@click.option("--samples", default=200, show_default=True, type=click.IntRange(min=2))
@click.option("--split", type=click.Choice(["auto", "all", "train", "val", "test"]), default="auto")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@VARIANT
@FIELDS
@CLASSES
@PART
@DEVICE
@JSON
def explain(  # noqa: PLR0913, PLR0917 one argument an option
    model: str,
    images: tuple[str, ...],
    out: Path | None,
    about: str | None,
    keys: tuple[str, ...],
    png: bool,  # noqa: FBT001
    npz: bool,  # noqa: FBT001
    curves: bool,  # noqa: FBT001
    max_mb: float,
    score: bool,  # noqa: FBT001
    samples: int,
    split: str,
    seed: int,
    variant: str | None,
    sets: tuple[str, ...],
    classes: Path | None,
    part: str | None,
    device: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Look into MODEL at IMAGES: one page of attention and class maps. --score: are they true?

    IMAGES are files, folders, globs or archives; with --score, one labelled data set.
    """
    from vitrail.explain.methods import method_named

    _insist_of_use(score=score)
    if not 0 < max_mb < MOST_MB:
        raise ExplainError(f"--max-mb {max_mb:g}: give a size above 0 and below {MOST_MB:,}")
    if out is not None:
        _insist_file(out)
    methods = tuple(method_named(key) for key in keys) or None
    opened = _open(model, variant, sets, classes, part, device)
    if score:
        _score(opened, images, methods, out, split, samples, seed, as_json=as_json)
        return
    from vitrail.data.findings import many
    from vitrail.data.open import open_images
    from vitrail.explain.page.run import Wanted
    from vitrail.explain.page.run import explain as run

    wanted = Wanted(
        about=about,
        methods=methods,
        curves=curves,
        png=png,
        npz=npz,
        max_bytes=round(max_mb * 1_000_000),
    )
    dataset = open_images(images)
    with Bar(len(dataset), "explaining") as advance:
        found = run(
            opened.model,
            dataset,
            out=out or PAGE,
            name=opened.name,
            wanted=wanted,
            notes=(opened.note,) if opened.note else (),
            progress=advance,
        )
    for note in found.notes:
        if note != opened.note:  # that was said as the model was opened
            say(note)
    for bad in found.skipped:
        say(f"skipped {bad.id}: {bad.reason}")
    if as_json:
        print_json(
            {
                "out": str(found.page),
                "count": len(found.images),
                "left_out": list(found.left_out),
                "skipped": [{"path": bad.id, "error": bad.reason} for bad in found.skipped],
                "files": [str(path) for path in found.files],
                "attention_error": found.error,
            }
        )
        return
    beside = f", {len(found.files)} files beside it" if found.files else ""
    click.echo(f"{found.page}: {many(len(found.images), 'image')}{beside}")


@click.command()
@click.argument("model")
@click.argument("image")
@click.option("--out", type=click.Path(path_type=Path), default=TRACE, show_default=True)
@click.option("--layer", type=int, help="Encoder block to look into, from 0. [default: the middle]")
@click.option("--head", type=int, default=0, show_default=True, help="Head of that block.")
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@VARIANT
@FIELDS
@CLASSES
@PART
@DEVICE
@JSON
def trace(  # noqa: PLR0913, PLR0917 one argument an option
    model: str,
    image: str,
    out: Path,
    layer: int | None,
    head: int,
    lang: str,
    variant: str | None,
    sets: tuple[str, ...],
    classes: Path | None,
    part: str | None,
    device: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Follow one IMAGE through MODEL, step by step, with the real numbers: a page to learn from."""
    from vitrail.data.open import open_images
    from vitrail.explain.trace.page import write_trace
    from vitrail.explain.trace.run import trace as run

    _insist_file(out)
    opened = _open(model, variant, sets, classes, part, device)
    dataset = open_images([image])
    if len(dataset) != 1:
        raise ExplainError(f"{image}: {len(dataset)} images; give a single one to trace")
    try:
        pixels = dataset.read(0).image
    except BadSampleError as error:
        raise ExplainError(f"{dataset.ids[0]}: {error}") from error
    found = run(opened.model, pixels, name=opened.name, layer=layer, head=head)
    write_trace(found, out, cast("Literal['en', 'zh']", lang))
    if as_json:
        print_json({"out": str(out), "steps": len(found.steps), "max_abs": found.difference})
        return
    click.echo(f"{out}: {len(found.steps)} steps")


def _insist_of_use(*, score: bool) -> None:
    """Raises an ExplainError where an option was given that would be passed over in silence."""
    context = click.get_current_context()
    useless = OF_PAGES if score else OF_SCORES
    given = [
        option
        for name, option in useless.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        why = "for a page, not together with" if score else "of use only with"
        raise ExplainError(f"{' and '.join(given)}: {why} --score")


def _insist_file(out: Path) -> None:
    """Raises an ExplainError where no file can be: told now, not after minutes of work."""
    if not out.name or out.is_dir():
        raise ExplainError(f"--out {out}: a folder; give a file in it, e.g. {out / PAGE}")
    if out.exists() and not out.is_file():
        raise ExplainError(f"--out {out}: no ordinary file, which it would replace; give another")
    if not out.suffix:  # no browser would know what to do with it
        raise ExplainError(f"--out {out}: a file, not a folder; give it an ending, e.g. {out}.html")


def _open(
    model: str,
    variant: str | None,
    sets: tuple[str, ...],
    classes: Path | None,
    part: str | None,
    device: str,
) -> Opened:
    from vitrail.device import pick_device
    from vitrail.explain.open import open_model

    opened = open_model(model, given_of(variant, sets, classes, part))
    opened.model.to(pick_device(device))
    if opened.note:
        say(opened.note)
    return opened


def _score(
    opened: Opened,
    data: tuple[str, ...],
    methods: tuple[Method, ...] | None,
    out: Path | None,
    split: str,
    samples: int,
    seed: int,
    *,
    as_json: bool,
) -> None:
    from vitrail.data.open import open_labelled
    from vitrail.evaluate import choose_split
    from vitrail.explain.faithfulness.score import score as run
    from vitrail.explain.methods import METHODS
    from vitrail.weights.modelfile import write_atomically

    if len(data) != 1:
        raise ExplainError(f"--score measures on one data set; {len(data)} were given")
    for method in methods or ():
        if refused := method.refuses(opened.model):
            raise ExplainError(f"{method.name}: {refused}")
    task = opened.model.config.task.kind
    chosen, why = choose_split(data[0], split, opened.provenance, task=task)
    say(why)
    dataset = open_labelled(data[0], split=chosen, seed=opened.provenance.seed, task=task)
    with Bar(min(samples, len(dataset)), "scoring") as advance:
        found = run(
            opened.model,
            dataset,
            methods or METHODS,
            samples=samples,
            seed=seed,
            progress=advance,
        )
    for bad in found.skipped:
        say(f"skipped {bad.id}: {bad.reason}")
    for name, reason in found.refused.items():
        say(f"left out {name}: {reason}")
    if out is not None:
        write_atomically(out, found.to_markdown().encode())
    if as_json:
        print_json({"model": opened.name, "data": data[0], "split": chosen, **found.to_dict()})
        return
    print_table(*found.to_rows())
    for row in found.rows:
        if not row.method.baseline:
            click.echo(f"{row.label}: {found.verdict(row)}")
