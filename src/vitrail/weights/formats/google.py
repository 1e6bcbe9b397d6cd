"""google-research/vision_transformer: `.npz` files of ViT and of hybrids with a ResNet in front."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.resnet import ImageNetRootConfig
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.data.preprocess import HALF
from vitrail.errors import CheckpointError
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats import flax
from vitrail.weights.formats.flax import SCALE, Channels, Tower
from vitrail.weights.formats.shapes import agreed, insist, insist_told, position_grid
from vitrail.weights.mapping import PAIR, Derived, Entry, Hwio, Layout, Same, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

_TABLE = "Transformer/posembed_input/pos_embedding"
_ROOT = ("conv_root/kernel", "gn_root/scale", "gn_root/bias")
_GROUPS = 32
"""Groups of flax's GroupNorm."""
_STAGES = 8
"""More than any ResNet has; bounds what a made-up file can ask for."""


class Google(Reader):
    """Published or linen numbering; names begin with nothing, `opt/target/` or `params/`."""

    name = "google"
    publisher_licence = "Apache-2.0"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Names of google's JAX code, which are not those of big_vision."""
        return flax.is_flax(checkpoint) and not flax.is_big_vision(checkpoint)

    def describe(self, given: Given) -> Described:
        """Everything is in the shapes; a grid that is no square needs the image size."""
        tower = flax.find_tower(self)
        width, hidden, heads = tower.sizes(self.checkpoint)
        known: dict[str, Any] = {
            "width": width,
            "depth": tower.depth,
            "heads": heads,
            "mlp_ratio": hidden / width,
            "activation": "gelu_tanh",
            "eps": flax.EPS,
        }
        hybrid = any(tower.at(name) in self.checkpoint.tensors for name in _ROOT)
        own = self._hybrid(tower, width) if hybrid else self._vit(tower, width)
        stride = HybridConfig(**own).stride if hybrid else own["stem"]["patch_size"]
        grid, class_token = self._positions(tower, given, stride, width)
        positions = Learned1dConfig(prefix=class_token, resampling="bilinear_aligned")
        known |= own | {
            "image_size": (grid[0] * stride, grid[1] * stride),
            "positions": positions.model_dump(),
            "pool": "class" if class_token else "mean",
        }
        if not hybrid:
            known["class_token"] = class_token
        kind = HybridConfig if hybrid else ViTConfig
        config, variant, notes = settle(kind, known, {}, given, self.checkpoint)
        insist_told(self.checkpoint, config, known, ())
        return Described(
            backbone=config,
            task=flax.head_config(self, tower, given),
            preprocess=flax.preprocess(config.image_size),
            variant=variant,
            notes=(*notes, "tanh GELU, LayerNorm eps 1e-6 and preprocessing as google's code has"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        return _entries(flax.find_tower(self), described, self._flat)

    def derived(self, described: Described) -> list[Derived]:
        """The state of an optimiser."""
        del described
        return flax.beside(self.checkpoint, flax.find_prefix(self.checkpoint))

    def _vit(self, tower: Tower, width: int) -> dict[str, Any]:
        patch = flax.patch_kernel(self.checkpoint, tower, 3, width)
        return {"stem": PatchStemConfig(patch_size=patch).model_dump()}

    def _hybrid(self, tower: Tower, width: int) -> dict[str, Any]:
        found = self.checkpoint
        norms = [tower.at(name) for name in _ROOT[1:]]
        root = agreed(found, norms, axis=-1)
        insist(found, tower.at(_ROOT[0]), (7, 7, 3, root), f"the root's norm is {root} wide")
        if root % _GROUPS:
            raise CheckpointError(f"{found.path}: tensor '{norms[0]}' has no {_GROUPS} groups")
        depths: list[int] = []
        while units := self.units(tower.at(f"block{len(depths) + 1}/unit")):
            depths.append(units)
        if len(depths) > _STAGES:
            raise CheckpointError(f"{found.path}: 'block{len(depths)}' is one stage too many")
        channels = root * 4 * 2 ** (len(depths) - 1) if depths else root
        return {
            "root": ImageNetRootConfig().model_dump(),
            "resnet_depths": tuple(depths),
            "resnet_width": root,
            "groups": _GROUPS,
            "standardisation": "std",
            "group_norm_eps": 1e-6,
            "patch_size": flax.patch_kernel(found, tower, channels, width),
        }

    def units(self, beginning: str) -> int:
        """Units `beginning1/...`, `beginning2/...`, counted from 1 up to the first gap."""
        here = {
            name.removeprefix(beginning).partition("/")[0]
            for name in self.checkpoint.tensors
            if name.startswith(beginning)
        }
        count = 0
        while str(count + 1) in here:
            count += 1
        return count

    def _positions(self, tower: Tower, given: Given, stride: int, width: int) -> tuple[Grid, bool]:
        """The grid, and whether there is a class token; it has a position if so."""
        table, token = tower.at(_TABLE), tower.at("cls")
        insist(self.checkpoint, table, (1, None, width), f"the width is {width}")
        class_token = token in self.checkpoint.tensors
        grid, _ = position_grid(self.checkpoint, given, stride, table, [int(class_token)], [token])
        return grid, class_token

    def _flat(self, name: str) -> Layout:
        """How a GroupNorm lies; older files have it as (1, 1, 1, C)."""
        found = self.checkpoint.tensors
        lies_flat = name not in found or len(found[name].shape) != 4
        return Same() if lies_flat else Channels()


class GoogleWriter(Writer):
    """`.npz` in the published numbering, which the JAX code reads."""

    name = "google"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What flax's ViT has no switch for."""
        match described.backbone:
            case ViTConfig() as config:
                faults = _vit_faults(config)
            case HybridConfig() as config:
                faults = _hybrid_faults(config)
            case config:
                return f"google's code has no {config.kind}"
        faults |= {
            "activation is not gelu_tanh": config.activation != "gelu_tanh",
            "eps is not 1e-6": config.eps != flax.EPS,
            "mean and std are not 0.5": {described.preprocess.mean, described.preprocess.std}
            != {HALF},
        }
        return "; ".join(fault for fault, there in faults.items() if there)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write the file."""
        config = described.backbone
        assert isinstance(config, ViTConfig | HybridConfig), "refused"
        tower = Tower("", published=True, stacked=False, depth=config.depth)
        theirs = write_all(_entries(tower, described, lambda _: Same()), state)
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in theirs.items()}
        np.savez(file, **arrays)
        write_atomically(Path(out), file.getvalue())
        return [out]


def _entries(tower: Tower, described: Described, flat: Callable[[str], Layout]) -> list[Entry]:
    """The table of a ViT or hybrid.

    Args:
        tower: Where its tensors stand.
        described: The model.
        flat: Layout of a GroupNorm's tensor by its name.
    """
    config = described.backbone
    assert isinstance(config, ViTConfig | HybridConfig)
    table = [
        flax.token_entry(tower, config.width, there=config.prefix > 0),
        Entry("backbone.pos_embed.weight", (tower.at(_TABLE),)),
        *flax.embedding_entries(tower),
        *tower.entries(config.width, config.heads),
    ]
    if isinstance(config, HybridConfig):
        table += _resnet_entries(tower, config.resnet_depths, flat)
    if described.classifier is not None:
        table += flax.head_entries(tower, described.classifier)
    return table


def _resnet_entries(
    tower: Tower, depths: Sequence[int], flat: Callable[[str], Layout]
) -> list[Entry]:
    layers = [("backbone.resnet.root.conv", "backbone.resnet.root.norm", "", "_root")]
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            ours = f"backbone.resnet.stages.{stage}.{unit}"
            theirs = f"block{stage + 1}/unit{unit + 1}/"
            layers += [(f"{ours}.conv{i}", f"{ours}.norm{i}", theirs, str(i)) for i in (1, 2, 3)]
            if not unit:
                short = f"{ours}.downsample"
                layers.append((f"{short}.0", f"{short}.1", theirs, "_proj"))
    table: list[Entry] = []
    for conv, norm, place, number in layers:
        kernel = tower.at(f"{place}conv{number}/kernel")
        table.append(Entry(f"{conv}.weight", (kernel,), Hwio()))
        for ours, theirs in zip(PAIR, SCALE, strict=True):
            name = tower.at(f"{place}gn{number}/{theirs}")
            table.append(Entry(f"{norm}.{ours}", (name,), flat(name)))
    return table


def _vit_faults(config: ViTConfig) -> dict[str, bool]:
    """What there is that flax's ViT has not."""
    own = config.positions.prefix if isinstance(config.positions, Learned1dConfig) else None
    return {
        f"stem is {config.stem.kind}": config.stem.kind != "patch",
        f"positions are {config.positions.kind}": own is None,
        f"positions_in is {config.positions_in}": config.positions_in != "stem",
        "the class token has no position": config.class_token and own is False,
        "there is a class token that is not the pool": config.class_token
        and config.pool != "class",
        f"pool is {config.pool}": config.pool not in ("class", "mean"),
        "there is a distillation token": config.distillation_token,
        "there are registers": config.registers > 0,
        "there are detection tokens": config.detection_tokens > 0,
        "there is no qkv_bias": not config.qkv_bias,
        "there is qk_norm": config.qk_norm,
        "there is layer_scale": config.layer_scale is not None,
        f"norm is {config.norm}": config.norm != "pre",
        "norm_after_pool is true": config.norm_after_pool,
        "final_norm is false": not config.final_norm,
    }


def _hybrid_faults(config: HybridConfig) -> dict[str, bool]:
    """What there is that flax's ResNet has not."""
    return {
        f"root is {config.root.kind}": config.root.kind != "imagenet",
        f"groups are not {_GROUPS}": config.groups != _GROUPS,
        "standardisation is not std": config.standardisation != "std",
        "group_norm_eps is not 1e-6": config.group_norm_eps != flax.EPS,
        "the class token has no position": bool(config.prefix) and not config.positions.prefix,
    }
