"""Options that several verbs of the command line share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vitrail.errors import ConfigError

if TYPE_CHECKING:
    from vitrail.weights.reader import Given

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
BATCH = click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1))
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one key.")
VARIANT = click.option("--variant", help="A name of `vitrail models`; says what the file does not.")
FIELDS = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="A field: heads=6, task.heads=8, preprocess.antialias=true.",
)
CLASSES = click.option(
    "--classes", type=click.Path(path_type=Path), help="Class names: a JSON list, or one a line."
)
PART = click.option("--part", help="Weights to take from a training dump, e.g. model_ema.")


def given_of(
    variant: str | None, sets: Iterable[str], classes: Path | None, part: str | None
) -> Given:
    """What the user says of a checkpoint.

    Raises:
        ConfigError: an override that is no KEY=VALUE, or a file of names that cannot be read.
    """
    from vitrail.config import override
    from vitrail.weights.reader import Given

    fields = override({}, sets)
    return Given(
        variant=variant,
        preprocess=fields.pop("preprocess", {}),
        task=fields.pop("task", {}),
        backbone=fields,
        classes=read_names(classes) if classes is not None else (),
        part=part,
    )


def size_of(text: str) -> tuple[int, int]:
    """Height and width from `224x320`.

    Raises:
        ConfigError: it is not written so.
    """
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ConfigError(f"--size {text}: write it as HEIGHTxWIDTH, e.g. 224x224")
    return int(height), int(width)


def read_names(path: Path) -> tuple[str, ...]:
    """Class names from a file.

    Raises:
        ConfigError: it is missing, no text, or JSON that is no list of names.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        table = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--classes {path}: cannot be read ({error})") from error
    if not isinstance(table, list) or not all(
        isinstance(name, str) for name in cast("list[object]", table)
    ):
        raise ConfigError(f"--classes {path}: a JSON list of names is wanted")
    return tuple(cast("list[str]", table))
