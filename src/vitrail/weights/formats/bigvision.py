"""google-research/big_vision: `.npz` files of ViT, also of SigLIP's image tower.

The position table stands at the top and has no entry for the class token. Pooling is the mean, a
class token or attention (MAP). Layers may be stacked, and positions may be fixed sines and cosines.
Older files still have the table of vision_transformer; as big_vision does on loading, the entry of
the class token is added to the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrail.backbones.vit import (
    Learned1dConfig,
    PatchStemConfig,
    SineCosine2dConfig,
    ViTConfig,
)
from vitrail.errors import CheckpointError
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats import flax
from vitrail.weights.formats.flax import KERNEL, QKV, SCALE, HeadsIn, HeadsOut, Tower
from vitrail.weights.formats.shapes import image_size, insist, insist_told, position_grid
from vitrail.weights.mapping import (
    Derived,
    Entry,
    Joined,
    Layout,
    Reshaped,
    Same,
    Transposed,
    pair,
)
from vitrail.weights.reader import Described, Given, Reader, settle

TABLES = (
    "pos_embedding",
    "Transformer/pos_embedding",
    "Transformer/posembed_input/pos_embedding",
)
"""Where the position table has stood, newest first."""
_POOL = "MAPHead_0/"


class BigVision(Reader):
    """Names begin with `params/`, `params/img/` or nothing; arrays may be bfloat16."""

    name = "big_vision"
    publisher_licence = "Apache-2.0"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Names of google's JAX code that only big_vision has."""
        return flax.is_flax(checkpoint) and flax.is_big_vision(checkpoint)

    def describe(self, given: Given) -> Described:
        """Everything is in the shapes, but for the image size where positions are computed."""
        tower = flax.find_tower(self)
        width, hidden, heads = tower.sizes(self.checkpoint)
        patch = flax.patch_kernel(self.checkpoint, tower, 3, width)
        learned = self._table(tower) is not None
        grid = self._grid(tower, given, patch, width)
        positions = (
            Learned1dConfig(prefix=False, resampling="bilinear_aligned")
            if learned
            else SineCosine2dConfig()
        )
        told = given.backbone.get("class_token") is True
        class_token = told or tower.at("cls") in self.checkpoint.tensors
        attended = self.any(tower.at(_POOL))
        known: dict[str, Any] = {
            "image_size": (grid[0] * patch, grid[1] * patch),
            "stem": PatchStemConfig(patch_size=patch).model_dump(),
            "positions": positions.model_dump(),
            "width": width,
            "depth": tower.depth,
            "heads": heads,
            "mlp_ratio": hidden / width,
            "activation": "gelu_tanh",
            "eps": flax.EPS,
            "class_token": class_token,
            "pool": "attention" if attended else "class" if class_token else "mean",
        }
        config, variant, notes = settle(ViTConfig, known, {}, given, self.checkpoint)
        insist_told(self.checkpoint, config, known, ())
        rules = "tanh GELU, LayerNorm eps 1e-6 and preprocessing as big_vision has"
        computed = () if learned else ("no position table: sines and cosines of the grid",)
        return Described(
            backbone=config,
            task=flax.head_config(self, tower, given),
            preprocess=flax.preprocess(config.image_size),
            variant=variant,
            notes=(*notes, rules, *computed),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        tower = flax.find_tower(self)
        table = [
            *self._place_entries(tower, config),
            *flax.embedding_entries(tower),
            *tower.entries(config.width, config.heads),
        ]
        if config.pool == "attention":
            table += _pool_entries(tower, config.width, config.heads)
        if described.classifier is not None:
            table += flax.head_entries(tower, described.classifier)
        return table

    def derived(self, described: Described) -> list[Derived]:
        """The tower of texts, and the state of an optimiser."""
        del described
        return flax.beside(self.checkpoint, flax.find_prefix(self.checkpoint))

    def _table(self, tower: Tower) -> str | None:
        names = (tower.at(name) for name in TABLES)
        return next((name for name in names if name in self.checkpoint.tensors), None)

    def _grid(self, tower: Tower, given: Given, patch: int, width: int) -> Grid:
        table, size = self._table(tower), image_size(given)
        if table is not None:
            insist(self.checkpoint, table, (1, None, width), f"the width is {width}")
            tokens = [tower.at("cls")]
            folds = [0, 1] if tokens[0] in self.checkpoint.tensors else [0]
            return position_grid(self.checkpoint, given, patch, table, folds, tokens)[0]
        match given.backbone.get("positions"):
            case {"kind": "learned_1d"}:
                size = None  # they cannot be computed, whatever the size
            case _:
                pass
        if size is None:
            names = " or ".join(f"'{tower.at(name)}'" for name in TABLES)
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {names} is missing; if positions are sines and "
                "cosines, give the image size that the model was made for: "
                "--set image_size=[height,width]"
            )
        return -(-size[0] // patch), -(-size[1] // patch)

    def _place_entries(self, tower: Tower, config: ViTConfig) -> list[Entry]:
        """Class token and positions."""
        token = flax.token_entry(tower, config.width, there=config.prefix > 0)
        if not isinstance(config.positions, Learned1dConfig):
            return [token]
        table = self._table(tower) or tower.at(TABLES[0])
        places = config.grid[0] * config.grid[1]
        stored = self.checkpoint.tensors.get(table)
        own = config.prefix == 1 and stored is not None and stored.shape[1:2] == (places + 1,)
        ours = "backbone.pos_embed.weight"
        if not own:
            return [token, Entry(ours, (table,))]
        folded = FoldedToken(places)
        return [
            Entry(token.ours, (*token.theirs, table), folded),
            Entry(ours, (table,), PatchPlaces()),
        ]


@dataclass(frozen=True)
class FoldedToken(Layout):
    """A class token and a table whose first entry is added to it; such files are only read.

    Attributes:
        places: Patches in the table.
    """

    places: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """The token with its place."""
        return parts[0] + parts[1][:, :1]

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Token and table."""
        return [tensor, tensor.new_zeros(1, 1 + self.places, tensor.shape[2])]


class PatchPlaces(Layout):
    """A table whose first entry is not a patch's; such files are only read."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Without it."""
        return parts[0][:, 1:]

    def write(self, tensor: Tensor) -> list[Tensor]:
        """The whole table."""
        return [torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)]


def _pool_entries(tower: Tower, width: int, heads: int) -> list[Entry]:
    """Pooling by attention: a probe, its attention, a norm and an MLP."""
    mha = tower.at(f"{_POOL}MultiHeadDotProductAttention_0/")
    mlp, norm = tower.at(f"{_POOL}MlpBlock_0/"), tower.at(f"{_POOL}LayerNorm_0/")
    pool = "backbone.pool"
    table = [Entry(f"{pool}.latent", (tower.at(f"{_POOL}probe"),))]
    bias = Reshaped((width,), (heads, width // heads))
    for ours, names in (("q", QKV[:1]), ("kv", QKV[1:])):
        sizes = (width,) * len(names)
        kernels, biases = (tuple(f"{mha}{n}/{part}" for n in names) for part in KERNEL)
        table += [
            Entry(f"{pool}.{ours}.weight", kernels, Joined(sizes, each=HeadsIn(heads))),
            Entry(f"{pool}.{ours}.bias", biases, Joined(sizes, each=bias)),
        ]
    return [
        *table,
        Entry(f"{pool}.proj.weight", (f"{mha}out/kernel",), HeadsOut(heads)),
        Entry(f"{pool}.proj.bias", (f"{mha}out/bias",), Same()),
        *pair(f"{pool}.norm", norm, names=SCALE),
        *pair(f"{pool}.mlp.fc1", f"{mlp}Dense_0/", Transposed(), names=KERNEL),
        *pair(f"{pool}.mlp.fc2", f"{mlp}Dense_1/", Transposed(), names=KERNEL),
    ]
