"""From any published checkpoint to a model of ours, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from torch import Tensor

from vitrail.backbones import build_backbone
from vitrail.backbones.backbone import Backbone
from vitrail.config import build, merge
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.model import Model, ModelConfig
from vitrail.weights.build import assign, empty_backbone, empty_model, on_meta
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats import recognise
from vitrail.weights.hub import fetch, is_hub_id
from vitrail.weights.mapping import Derived, Entry, Match, match, read_all
from vitrail.weights.reader import Described, Given, Reader

UNSTATED = "not stated"
"""Begins what is said where no licence comes with the weights."""

STATED = " (stated with the weights)"
"""Follows a licence that comes with the file itself."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A checkpoint that was recognised and held against its model, but not read yet.

    Attributes:
        source: Path or hub id, as it was given.
        checkpoint: The opened file.
        reader: Its format.
        described: The model.
        entries: Which tensor is which.
        derived: What else the format may hold.
        match: What is there, missing, unknown and wrong.
        licence: Licence of the weights, and who says so.
    """

    source: str
    checkpoint: Checkpoint
    reader: Reader
    described: Described
    entries: list[Entry]
    derived: list[Derived]
    match: Match
    licence: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        source: Path or hub id, as it was given.
        format: Name of the format.
        described: Configuration of backbone, head and preprocessing.
        state: Weights under our names.
        match: Which tensors were used.
        licence: Licence of the weights, and who says so.
    """

    source: str
    format: str
    described: Described
    state: dict[str, Tensor]
    match: Match
    licence: str

    def model(self) -> Model:
        """The model in evaluation mode; it shares memory with `state`.

        Raises:
            CheckpointError: the checkpoint has no head.
        """
        model = empty_model(self.config())
        assign(model, self.state)
        return model.eval()

    def config(self) -> ModelConfig:
        """The configuration of the whole model.

        Raises:
            CheckpointError: the checkpoint has no head.
        """
        described = self.described
        if described.task is None:
            raise CheckpointError(
                f"{self.source}: a backbone without a head; it predicts nothing by itself. Train "
                "one: vitrail train DATA --weights FILE --method head"
            )
        return ModelConfig(
            backbone=described.backbone, task=described.task, preprocess=described.preprocess
        )

    def backbone(self) -> Backbone:
        """The backbone alone, in evaluation mode."""
        backbone = empty_backbone(self.described.backbone)
        assign(backbone, backbone_state(self.state))
        return backbone.eval()


def load_checkpoint(source: str | Path, given: Given | None = None) -> Loaded:
    """Read a published checkpoint: a file, a folder with `config.json`, or `hf-hub:owner/name`.

    Args:
        source: Where it is. The format is recognised from the content.
        given: What the file cannot tell.

    Raises:
        CheckpointError: damaged, hostile, of no known format, or not exactly the tensors that the
            model needs; every tensor that is amiss is named.
    """
    inspected = inspect_checkpoint(source, given)
    if not inspected.match.whole:
        name = inspected.reader.name
        raise CheckpointError(f"{source}: a {name} checkpoint, but {inspected.match.describe()}")
    return read_inspected(inspected)


def inspect_checkpoint(source: str | Path, given: Given | None = None) -> Inspected:
    """Recognise a checkpoint and hold it against its model, without reading the weights.

    Raises:
        CheckpointError: damaged, hostile, of no known format, or it does not tell what it is.
    """
    given = given or Given()
    text = str(source)
    path = fetch(text) if is_hub_id(text) else Path(source)
    return inspect_opened(open_checkpoint(path, given.part), given, text)


def inspect_opened(checkpoint: Checkpoint, given: Given, source: str) -> Inspected:
    """The same for a checkpoint that was opened already.

    Raises:
        CheckpointError: of no known format, or it does not tell what it is.
    """
    reader = recognise(checkpoint)
    described = _prepared(reader.describe(given), given, source)
    entries, derived = reader.entries(described), reader.derived(described)
    return Inspected(
        source=source,
        checkpoint=checkpoint,
        reader=reader,
        described=described,
        entries=entries,
        derived=derived,
        match=match(entries, derived, meta_state(described), checkpoint.tensors),
        licence=licence_of(checkpoint, reader),
    )


def _prepared(described: Described, given: Given, source: str) -> Described:
    """With the preprocessing that the user wants."""
    if not given.preprocess:
        return described
    table = merge(described.preprocess.model_dump(mode="json"), given.preprocess)
    preprocess = build(Preprocess, table, source=f"{source}: preprocess")
    return described.model_copy(update={"preprocess": preprocess})


def read_inspected(inspected: Inspected) -> Loaded:
    """The weights of a checkpoint that matches.

    Raises:
        CheckpointError: damaged, or values that are no numbers; the tensor is named.
    """
    assert inspected.match.whole, "read only what matches"
    return Loaded(
        source=inspected.source,
        format=inspected.reader.name,
        described=inspected.described,
        state=read_all(inspected.entries, inspected.checkpoint.tensors),
        match=inspected.match,
        licence=inspected.licence,
    )


def meta_state(described: Described) -> dict[str, Tensor]:
    """Names and shapes of our tensors, without memory."""
    return dict(_meta_state(described.model_dump_json()))


@lru_cache(maxsize=4)
def _meta_state(described: str) -> dict[str, Tensor]:
    own = Described.model_validate_json(described)
    with on_meta():
        if own.task is None:
            state = build_backbone(own.backbone).state_dict()
            return {f"backbone.{name}": tensor for name, tensor in state.items()}
        config = ModelConfig(backbone=own.backbone, task=own.task, preprocess=own.preprocess)
        return Model(config).state_dict()


def backbone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to the backbone, under its own names."""
    start = "backbone."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def stated_licence(licence: str) -> str:
    """The licence without who says so; empty where the weights came with none."""
    return "" if licence.startswith(UNSTATED) else licence.removesuffix(STATED)


def licence_of(checkpoint: Checkpoint, reader: Reader) -> str:
    """What the file says of its licence, else what its publisher says of its own files."""
    timm = checkpoint.config.get("pretrained_cfg")
    own = cast("dict[str, object]", timm).get("license") if isinstance(timm, dict) else None
    stated = own or checkpoint.metadata.get("license") or checkpoint.metadata.get("licence")
    if isinstance(stated, str) and stated:
        return f"{stated}{STATED}"
    return f"{UNSTATED}; {reader.name} weights of the publisher are {reader.publisher_licence}"
