"""Weights to go on from, wherever they come from: a model file of ours, or a foreign checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitrail.backbones import VARIANTS, BackboneConfig
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks import TaskConfig
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.weights.modelfile import is_model_file, load_model, resolve_model
from vitrail.weights.reader import Given


@dataclass(frozen=True, slots=True)
class Origin:
    """A model that somebody trained.

    Attributes:
        source: What was given: a path, a run folder or a hub id.
        name: What to call the model: a variant's name, or its family.
        backbone: From normalised images to features.
        task: The head; None where the file has none.
        preprocess: How its images are prepared.
        state: Weights by the names of `Model`: `backbone.*`, and `task.*` where there is a head.
        licence: Of the weights.
        sha256: Of the file as `sha256sum` gives it; of folders and hub ids, of the tensors.
        named: Whether its classes have names. Numbers in a foreign file are none: data with
            folders 0 to 9 need not be what it was trained on.
        seed: Seed of its data split, for a model of ours; 0 for others.
        fingerprint: Of the data that it was trained on, for a model of ours.
    """

    source: str
    name: str
    backbone: BackboneConfig
    task: TaskConfig | None
    preprocess: Preprocess
    state: dict[str, Tensor]
    licence: str
    sha256: str
    named: bool = True
    seed: int = 0
    fingerprint: str = ""


def open_origin(source: str, given: Given | None = None) -> Origin:
    """Read weights of any known source.

    Args:
        source: A model file, a run folder, a checkpoint of another library, or a hub id.
        given: What the user says of a foreign checkpoint beside the file.

    Raises:
        UserError: nothing there, damaged, of no known format, or incomplete.
    """
    own, given = own_file(source), given or Given()
    if own is None:
        return _foreign(source, given)
    insist_nothing_given(source, given)
    return _own(source, own)


def own_file(source: str) -> Path | None:
    """The model file of ours that is meant; None for anything else.

    Raises:
        ModelFileError: a run that has not finished, or a variant without weights.
    """
    path = Path(source)
    if (path / "run.json").is_file() or (source in VARIANTS and not path.exists()):
        return resolve_model(source)
    path = path / "model.safetensors" if path.is_dir() else path
    return path if path.is_file() and is_model_file(path) else None


def insist_nothing_given(source: str, given: Given) -> None:
    """A model file tells all; what a person says beside it would be passed over in silence.

    Raises:
        CheckpointError: something is given.
    """
    said = [name for name, value in given.model_dump().items() if value]
    if said:
        raise CheckpointError(
            f"{source}: a vitrail model file says itself what it is; leave away what is given of "
            f"its {' and '.join(said)}"
        )


def _own(source: str, path: Path) -> Origin:
    model, provenance = load_model(path)
    trained = provenance.recipe.get("model", {}).get("name")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(
        source=source,
        name=str(trained or model.config.backbone.kind),
        backbone=model.config.backbone,
        task=model.config.task,
        preprocess=model.config.preprocess,
        state=dict(model.state_dict()),
        licence=provenance.licence,
        sha256=digest,
        seed=provenance.seed,
        fingerprint=provenance.fingerprint,
    )


def _foreign(source: str, given: Given) -> Origin:
    from vitrail.weights.load import load_checkpoint  # here: with it come all formats

    loaded = load_checkpoint(source, given)
    described, path = loaded.described, Path(source)
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        digest = hash_of(loaded.state)
    return Origin(
        source=source,
        name=described.variant or described.backbone.kind,
        backbone=described.backbone,
        task=described.task,
        preprocess=described.preprocess,
        state=dict(loaded.state),
        licence=loaded.licence,
        sha256=digest,
        named=bool(given.classes) or not _numbered(described.task),
    )


def _numbered(task: TaskConfig | None) -> bool:
    if task is None or isinstance(task, TranscribeConfig):
        return False
    return task.classes == tuple(map(str, range(len(task.classes))))


def hash_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
