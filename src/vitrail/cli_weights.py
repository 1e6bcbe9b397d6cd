"""The verbs for checkpoints: probe, convert, verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, cast

import click

from vitrail.options import BATCH, CLASSES, DEVICE, FIELDS, JSON, PART, VARIANT, given_of, size_of
from vitrail.terminal import Bar, print_json, print_probe, print_verification, say


@click.command()
@click.argument("weights")
@click.argument("data")
@click.option("--seed", type=click.IntRange(min=0), help="Of the split. [default: the run's, or 0]")
@VARIANT
@FIELDS
@PART
@BATCH
@DEVICE
@JSON
def probe(  # noqa: PLR0913, PLR0917 one argument an option
    weights: str,
    data: str,
    seed: int | None,
    variant: str | None,
    sets: tuple[str, ...],
    part: str | None,
    batch_size: int,
    device: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Tell in minutes what WEIGHTS are worth on DATA, without training them."""
    from vitrail.probe.run import probe as run

    given = given_of(variant, sets, None, part)
    with Bar(None, "features") as advance:
        result = run(
            weights,
            data,
            given=given,
            seed=seed,
            batch_size=batch_size,
            device=device,
            progress=lambda done, _: advance(done),
        )
    if as_json:
        print_json(result.to_dict())
    else:
        print_probe(result)


@click.command()
@click.argument("checkpoint")
@click.option(
    "--to",
    required=True,
    type=click.Choice(["vitrail", "timm", "hf", "google", "official", "torchvision"]),
    help="vitrail: the sealed file; official: as the authors of the family publish.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="File or folder. [default: in this folder]"
)
@VARIANT
@FIELDS
@CLASSES
@PART
@JSON
def convert(
    checkpoint: str,
    to: str,
    out: Path | None,
    variant: str | None,
    sets: tuple[str, ...],
    classes: Path | None,
    part: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Write a CHECKPOINT (file, folder, run or hf-hub:owner/name) in another format."""
    from vitrail.weights.convert import convert as run
    from vitrail.weights.convert import default_out

    out = out or default_out(checkpoint, to)
    written = run(checkpoint, to, out, given_of(variant, sets, classes, part))
    if as_json:
        print_json({"out": str(out), "format": to, "files": [str(path) for path in written]})
        return
    for path in written:
        say(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@click.command()
@click.argument("checkpoint")
@click.option("--golden", type=click.Path(path_type=Path), help="Folder of golden outputs.")
@click.option("--against", type=click.Choice(["timm", "transformers"]), help="An installed peer.")
@click.option("--size", "sizes", multiple=True, metavar="HxW", help="Of images for --against.")
@click.option("--seal", is_flag=True, help="Write the result into CHECKPOINT, a vitrail file.")
@VARIANT
@FIELDS
@PART
@JSON
def verify(  # noqa: PLR0913, PLR0917 one argument an option
    checkpoint: str,
    golden: Path | None,
    against: str | None,
    sizes: tuple[str, ...],
    seal: bool,  # noqa: FBT001
    variant: str | None,
    sets: tuple[str, ...],
    part: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Account for every tensor of a CHECKPOINT, and compare outputs with a reference."""
    from vitrail.verification import insist_sealable, seal_certificate
    from vitrail.verify import verify as run

    peer = cast("Literal['timm', 'transformers'] | None", against)
    given = given_of(variant, sets, None, part)
    pairs = [size_of(size) for size in sizes]
    if seal:
        insist_sealable(Path(checkpoint))
    found = run(checkpoint, given, golden=golden, against=peer, sizes=pairs)
    if as_json:
        print_json(found.table())
    else:
        print_verification(found)
    if seal and found.passed:
        seal_certificate(Path(checkpoint), found)
        say(f"sealed into {checkpoint}; `vitrail info` shows it")
    elif seal:
        say(f"not sealed: {checkpoint} falls short")
    sys.exit(0 if found.passed else 1)
