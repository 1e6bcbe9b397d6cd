"""The command line: verbs to library calls. It parses and prints, and holds no logic.

Exit codes: 0 done; 1 the thing asked about fell short; 2 the user's input was wrong.
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import click

from vitrail import __version__
from vitrail.cli_explain import explain, trace
from vitrail.cli_predict import evaluate, predict
from vitrail.cli_weights import convert, probe, verify
from vitrail.errors import UserError
from vitrail.options import JSON, SET
from vitrail.terminal import (
    Bar,
    Live,
    print_findings,
    print_json,
    print_metrics,
    print_result,
    print_table,
    say,
)


class _Group(click.Group):
    """Verbs in the order of a day's work instead of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs as they were added."""
        del ctx
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vitrail")
def cli() -> None:
    """Vision Transformers: from a folder of images to a model that can be trusted."""


@cli.command()
@click.argument("data", required=False)
@click.option(
    "--task",
    type=click.Choice(["classify", "transcribe", "detect", "segment"]),
    help="What to learn. [default: what the labels of DATA are made for]",
)
@click.option("--model", help="A variant of `vitrail models`; default: the recipe's.")
@click.option("--weights", help="Go on from a model file, a run, any checkpoint or hub id.")
@click.option("--method", metavar="full|head|lora|last-N", help="What learns. [default: full]")
@click.option("--recipe", help="A preset or a TOML file; default: chosen from the data.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training part.")
@click.option("--seed", type=click.IntRange(min=0), help="Sets every seed. [default: 0]")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. [default: below runs/]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out (or the last one).")
@SET
@JSON
def train(  # noqa: PLR0913, PLR0917 one argument an option
    data: str | None,
    task: Literal["classify", "transcribe", "detect", "segment"] | None,
    model: str | None,
    weights: str | None,
    method: str | None,
    recipe: str | None,
    epochs: int | None,
    seed: int | None,
    out: Path | None,
    resume: bool,  # noqa: FBT001
    sets: tuple[str, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Train on DATA (a folder, archive, CSV, idx folder, built-in name); write a report."""
    from vitrail.train.run import train as train_run

    overrides = list(sets)
    overrides += [f"schedule.epochs={epochs}"] if epochs is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    command = "vitrail " + shlex.join(sys.argv[1:])
    with Live() as listener:
        result = train_run(
            data,
            task=task,
            recipe=recipe,
            model=model,
            weights=weights,
            method=method,
            overrides=overrides,
            out=out,
            resume=resume,
            command=command,
            listener=listener,
        )
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "model": str(result.model),
                "task": result.task,
                "metrics": result.metrics,
                "best_epoch": result.best_epoch,
                "seconds": result.seconds,
                "quarantined": result.quarantined,
            }
        )
    else:
        print_result(result)


cli.add_command(evaluate)
cli.add_command(predict)
cli.add_command(explain)
cli.add_command(trace)


@cli.command()
@click.argument("pattern", default="*")
@JSON
def models(pattern: str, as_json: bool) -> None:  # noqa: FBT001
    """List model variants, all or those that match PATTERN."""
    from vitrail.model import describe_models

    rows = describe_models(pattern)
    if as_json:
        print_json(rows)
        return
    if not rows:
        raise UserError(f"no model matches '{pattern}'; `vitrail models` lists all")
    print_table(
        ["name", "parameters", "GMACs", "activations", "size", "classes", "top-1", "source"],
        [
            [
                row["name"],
                f"{row['params'] / 1e6:.2f} M",
                f"{row['gmacs']:.3f}",
                f"{row['activations']:.2f} M",
                "x".join(map(str, row["image_size"])),
                str(row["classes"]),
                f"{100 * row['top1']:.2f} %" if row["top1"] is not None else "-",
                row["source"],
            ]
            for row in rows
        ],
    )


@cli.command()
@click.argument("file")
@JSON
def info(file: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what a model FILE (or run folder) holds, without loading its weights."""
    from vitrail.weights.modelfile import read_header, resolve_model

    path = resolve_model(file)
    header = read_header(path)
    if as_json:
        print_json({"file": str(path), **header.model_dump(mode="json")})
        return
    provenance, task = header.provenance, header.config.task
    backbone, resize = header.config.backbone, header.config.preprocess.resize
    rows = [
        ["file", f"{path} ({path.stat().st_size / 1e6:.1f} MB, format {header.format_version})"],
        ["backbone", _fields(backbone)],
        ["input", _fields(resize)],
        ["task", _fields(task)],
        ["trained on", f"{provenance.data} (fingerprint {provenance.fingerprint[:16]})"],
        ["seed", str(provenance.seed)],
        ["licence", provenance.licence],
        *_certificate(provenance.certificate),
        ["versions", ", ".join(f"{k} {v}" for k, v in provenance.versions.items())],
    ]
    print_table(["", ""], rows)
    print_metrics(provenance.metrics, provenance.intervals)


cli.add_command(probe)
cli.add_command(convert)
cli.add_command(verify)


@cli.command()
@click.argument("data")
@click.option(
    "--task",
    type=click.Choice(["classify", "transcribe", "detect", "segment"]),
    help="What DATA are for: outlines are boxes unless it is segment.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the split.")
@JSON
def check(
    data: str,
    task: Literal["classify", "transcribe", "detect", "segment"] | None,
    seed: int,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Look for faults in DATA: unreadable files, bad masks, duplicates, leakage, imbalance."""
    from vitrail.data.check import check as run
    from vitrail.data.open import open_source

    source = open_source(data, seed=seed, task=task)
    total = sum(map(len, source.splits.values()))
    with Bar(total, "checking") as advance:
        report = run(source, progress=lambda done, _total: advance(done))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_findings(data, report)
    sys.exit(1 if any(found.severity != "info" for found in report.findings) else 0)


@cli.command()
@click.argument("recipe")
@SET
@JSON
def config(recipe: str, sets: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001
    """Show a RECIPE (a preset or TOML file) in full, with overrides laid over it."""
    from vitrail.config import write_toml
    from vitrail.train.recipe import load_recipe

    loaded = load_recipe(recipe, sets)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        click.echo(write_toml(loaded), nl=False)


@cli.command()
@click.argument("name")
@click.option("--scale", type=click.Choice(["small", "full"]), default="small", show_default=True)
@click.option("--data", help="Other data than the study's own; --scale full needs it.")
@click.option("--seeds", type=click.IntRange(min=3), help="Runs of each arm. [default: 3 or 4]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder. [default: below runs/]")
@JSON
def study(
    name: str,
    scale: str,
    data: str | None,
    seeds: int | None,
    out: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Compare what a paper compared: positions, sequence, distillation, tokens or windows."""
    from vitrail.studies.run import study as run

    result = run(
        name,
        scale="full" if scale == "full" else "small",
        data=data,
        seeds=seeds,
        out=out,
        command="vitrail " + shlex.join(sys.argv[1:]),
        listener=lambda event: say(event.text),
    )
    if as_json:
        print_json({"name": result.name, "rows": result.rows, "verdict": result.verdict})
        return
    print_table(
        ["claim", "verdict", "measured"],
        [[found.claim.text, found.verdict, found.reason] for found in result.findings],
    )
    click.echo(f"verdict: {result.verdict}")
    click.echo(f"page:    {result.page}")


@cli.command()
@JSON
def doctor(as_json: bool) -> None:  # noqa: FBT001
    """Look at this machine: torch, devices, threads, extras."""
    from vitrail.doctor import doctor as run

    diagnosis = run()
    if as_json:
        print_json(diagnosis.model_dump(mode="json"))
    else:
        print_table(
            ["", "what", "value", "advice"],
            [[row.status, row.name, row.value, row.advice] for row in diagnosis.rows],
        )
    sys.exit(1 if any(row.status == "fail" for row in diagnosis.rows) else 0)


def main() -> NoReturn:
    """Entry point: user errors become one line and exit code 2, signals their own code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except UserError as error:
        _fail(str(error), 2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _fail(_describe(error), 2)
    except Exception as error:
        from vitrail.train.interrupt import InterruptedRunError

        if isinstance(error, InterruptedRunError):
            _fail(f"{error}; go on with --resume", 128 + error.signal_number)
        if _out_of_memory(error):
            _fail("not enough memory: take smaller batches, smaller images or a smaller model", 2)
        raise
    sys.exit(0)


def _terminated(number: int, _frame: object) -> NoReturn:
    _fail("terminated", 128 + number)


def _describe(error: OSError) -> str:
    import errno

    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the device; free some or give another --out"
    return f"{where}{error.strerror or error}"


def _out_of_memory(error: Exception) -> bool:
    """Torch has a class for it on CUDA only; elsewhere the message has to tell."""
    words = ("out of memory", "allocate memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _certificate(certificate: Any) -> list[list[str]]:
    """What `verify --seal` found, in one row; none where it was not asked."""
    if certificate is None:
        return []
    gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in certificate.max_abs.items())
    return [["verified", f"{certificate.verdict}, beside {certificate.reference}: {gaps}"]]


def _fields(config: Any) -> str:
    """Kind and fields in one line; long lists are cut."""
    fields: dict[str, Any] = config.model_dump(exclude={"kind"})
    return f"{config.kind}: " + ", ".join(f"{key} {_short(fields[key])}" for key in fields)


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    words = cast("tuple[Any, ...]", value)
    return ", ".join(map(str, words[:12])) + (f", ... ({len(words)})" if len(words) > 12 else "")


if __name__ == "__main__":
    main()
