"""From any format to any other that can express the model; what it cannot express is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from torch import Tensor

from vitrail.errors import CheckpointError, UserError
from vitrail.model import Model
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats import WRITERS
from vitrail.weights.load import Loaded, load_checkpoint, stated_licence
from vitrail.weights.mapping import Match
from vitrail.weights.modelfile import (
    Provenance,
    load_model,
    save_model,
    sync_folder,
    versions,
)
from vitrail.weights.origin import insist_nothing_given, own_file
from vitrail.weights.reader import Described, Given, Writer

TARGETS = ("vitrail", "timm", "hf", "google", "official", "torchvision")

SUFFIXES = {
    "vitrail": ".safetensors",
    "google": ".npz",
    "official": ".pth",
    "torchvision": ".pth",
}
"""Formats that are one file; the others are folders."""


def convert(source: str, to: str, out: Path, given: Given | None = None) -> list[Path]:
    """Write a checkpoint in another format.

    Args:
        source: A checkpoint of any format, a model file or run folder, or a hub id.
        to: One of `TARGETS`.
        out: File, or folder for the formats that are folders.
        given: What the source does not tell.

    Returns:
        The files that were written.

    Raises:
        CheckpointError: the source cannot be read, `out` exists, or the format cannot express the
            model; the reason is named.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out}: exists already; give another --out")
    own = own_file(source)
    if own is None:
        return _write_whole(load_checkpoint(source, given), to, out)
    insist_nothing_given(source, given or Given())
    model, provenance = load_model(own)
    if to == "vitrail":  # the same model: what it was trained on and how it was measured stays true
        return [save_model(model, out, provenance)]
    return _write_whole(loaded_from(model, source, provenance.licence), to, out)


def _write_whole(loaded: Loaded, to: str, out: Path) -> list[Path]:
    """A folder appears as a whole, as single files do: never without one of its files."""
    if to in SUFFIXES:
        return write_loaded(loaded, to, out)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        written = write_loaded(loaded, to, beside)
        beside.rename(out)
        sync_folder(out.parent)
    except UserError as error:
        raise CheckpointError(str(error).replace(str(beside), str(out))) from error
    except OSError as error:
        raise CheckpointError(
            f"{out}: cannot write ({error.strerror}); free space or give another --out"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [out / path.relative_to(beside) for path in written]


def default_out(source: str, to: str) -> Path:
    """A name in the working folder, made of the source's and the format's."""
    path = Path(source.removeprefix("hf-hub:"))
    stem = path.name or path.absolute().name
    for suffix in (".tar", ".safetensors", ".pth", ".pt", ".bin", ".npz"):
        stem = stem.removesuffix(suffix)
    if stem in ("model", "pytorch_model", "checkpoint"):  # what the folder holds is in its name
        stem = path.absolute().parent.name
    return Path(f"{stem}-{to}{SUFFIXES.get(to, '')}")


def write_loaded(loaded: Loaded, to: str, out: Path) -> list[Path]:
    """Write weights that are in memory.

    Raises:
        CheckpointError: the format cannot express the model; the reason is named.
    """
    if to == "vitrail":
        provenance = Provenance(
            data=f"converted from {loaded.source} ({loaded.format})",
            licence=loaded.licence,
            versions=versions(),
        )
        return [save_model(loaded.model(), out, provenance)]
    described, state = _with_plain_head(loaded)
    described = described.model_copy(update={"licence": stated_licence(loaded.licence)})
    reasons: dict[type[Writer], str] = {}
    for writer in WRITERS:
        if writer.name != to:
            continue
        reason = refusal(writer, described)
        if not reason:
            return [Path(path) for path in writer.write(described, state, str(out))]
        reasons[writer] = reason
    if not reasons:
        raise CheckpointError(f"--to {to}: no such format; known: {', '.join(TARGETS)}")
    near = [reasons[writer] for writer in reasons if _has_task(writer, described)]
    told = "; ".join(near or dict.fromkeys(reasons.values()))
    raise CheckpointError(f"{loaded.source}: cannot be written as {to}: {told}")


def refusal(writer: type[Writer], described: Described) -> str:
    """Why a format cannot express a model, or an empty string."""
    if not _has_task(writer, described):
        assert described.task is not None
        return f"no such format for the task '{described.task.kind}'"
    return writer.refuses(described)


def _has_task(writer: type[Writer], described: Described) -> bool:
    return described.task is None or described.task.kind == writer.task


def _with_plain_head(loaded: Loaded) -> tuple[Described, dict[str, Tensor]]:
    """With the temperature folded into the head: others have none, and scores must stay the same.

    Logits are linear in the last layer, so that dividing its weights divides them.
    """
    described, task = loaded.described, loaded.described.task
    if not isinstance(task, ClassifyConfig) or task.temperature == 1.0:
        return described, loaded.state
    plain = task.model_copy(update={"temperature": 1.0})
    heads = ("task.head.", "task.head_dist.")
    state = {
        name: tensor / task.temperature if name.startswith(heads) else tensor
        for name, tensor in loaded.state.items()
    }
    return described.model_copy(update={"task": plain}), state


def loaded_from(model: Model, source: str, licence: str) -> Loaded:
    """A model of ours as if it had been read from a checkpoint."""
    described = Described(
        backbone=model.config.backbone,
        task=model.config.task,
        preprocess=model.config.preprocess,
    )
    state = model.state_dict()
    match = Match(tuple(state), (), (), {}, (), ())
    return Loaded(source, "vitrail", described, state, match, licence)
