"""The model that somebody wants to look into, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from vitrail.backbones import VARIANTS
from vitrail.config import nearest
from vitrail.errors import CheckpointError
from vitrail.model import Model, create_model
from vitrail.weights.hub import is_hub_id
from vitrail.weights.modelfile import Provenance, load_model
from vitrail.weights.origin import insist_nothing_given, own_file
from vitrail.weights.reader import Given


@dataclass(frozen=True, slots=True)
class Opened:
    """A model to look into.

    Attributes:
        model: In evaluation mode.
        name: What to call it.
        note: What has to be said of it; empty where there is nothing.
        provenance: Where it comes from; of foreign checkpoints little is known.
    """

    model: Model
    name: str
    note: str = ""
    provenance: Provenance = field(default_factory=Provenance)


def open_model(source: str, given: Given | None = None) -> Opened:
    """A model file, a run folder, a checkpoint of another library, or a variant by name.

    Args:
        source: What was given.
        given: What the user says of a foreign checkpoint beside the file.

    Raises:
        UserError: nothing there, damaged, of no known format, incomplete, or without a head.
    """
    given = given or Given()
    if source in VARIANTS and not Path(source).exists():
        insist_nothing_given(source, given)
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
        note = f"{source} has fresh weights: what it shows is what it knows before any training"
        return Opened(create_model(source).eval(), source, note)
    own = own_file(source)
    if own is not None:
        insist_nothing_given(source, given)
        model, provenance = load_model(own)
        name = provenance.recipe.get("model", {}).get("name") or model.config.backbone.kind
        return Opened(model.eval(), str(name), provenance=provenance)
    if not Path(source).exists() and not is_hub_id(source):
        raise CheckpointError(
            f"{source}: no such file, folder or model{nearest(source, VARIANTS)}; "
            "`vitrail models` lists all names"
        )
    from vitrail.weights.load import load_checkpoint  # here: with it come all formats

    loaded = load_checkpoint(source, given)
    described = loaded.described
    return Opened(loaded.model(), described.variant or described.backbone.kind)
