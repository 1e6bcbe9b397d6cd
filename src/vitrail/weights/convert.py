"""From any format to any other that can express the model; what it cannot express is refused."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.model import Model
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats import WRITERS
from vitrail.weights.load import Loaded, load_checkpoint, stated_licence
from vitrail.weights.mapping import Match
from vitrail.weights.modelfile import (
    Provenance,
    is_model_file,
    load_model,
    resolve_model,
    save_model,
    versions,
)
from vitrail.weights.reader import Described, Given

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
    if out.exists():
        raise CheckpointError(f"{out}: exists already; give another --out")
    return write_loaded(_load(source, given), to, out)


def default_out(source: str, to: str) -> Path:
    """A name in the working folder, made of the source's and the format's."""
    path = Path(source.removeprefix("hf-hub:"))
    stem = path.name
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
    reasons: list[str] = []
    for writer in WRITERS:
        if writer.name != to:
            continue
        reason = writer.refuses(described)
        if not reason:
            return [Path(path) for path in writer.write(described, state, str(out))]
        reasons.append(reason)
    if not reasons:
        raise CheckpointError(f"--to {to}: no such format; known: {', '.join(TARGETS)}")
    raise CheckpointError(f"{loaded.source}: cannot be written as {to}: {'; '.join(reasons)}")


def _with_plain_head(loaded: Loaded) -> tuple[Described, dict[str, Tensor]]:
    """With the temperature folded into the head: others have none, and scores must stay the same.

    Logits are linear in the last layer, so that dividing its weights divides them.
    """
    described, task = loaded.described, loaded.described.task
    if task is None or task.temperature == 1.0:
        return described, loaded.state
    plain = task.model_copy(update={"temperature": 1.0})
    heads = ("task.head.", "task.head_dist.")
    state = {
        name: tensor / task.temperature if name.startswith(heads) else tensor
        for name, tensor in loaded.state.items()
    }
    return described.model_copy(update={"task": plain}), state


def loaded_from(model: Model, source: str, licence: str) -> Loaded:
    """A model of ours as if it had been read from a checkpoint.

    Raises:
        CheckpointError: it is no classifier; other libraries have no such model.
    """
    if not isinstance(model.config.task, ClassifyConfig):
        raise CheckpointError(
            f"{source}: a model for the task '{model.config.task.kind}'; only classifiers can be "
            "written in other formats"
        )
    described = Described(
        backbone=model.config.backbone,
        task=model.config.task,
        preprocess=model.config.preprocess,
    )
    state = model.state_dict()
    match = Match(tuple(state), (), (), {}, (), ())
    return Loaded(source, "vitrail", described, state, match, licence)


def _load(source: str, given: Given | None) -> Loaded:
    path = Path(source)
    if path.is_dir() and (path / "run.json").is_file():
        path = resolve_model(source)
    if path.is_file() and is_model_file(path):
        model, provenance = load_model(path)
        return loaded_from(model, str(path), provenance.licence)
    return load_checkpoint(source, given)
