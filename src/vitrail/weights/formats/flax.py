"""A ViT as google's JAX code names and lays out its tensors, in vision_transformer and big_vision.

Names are joined by `/`. Kernels have their inputs first, those of attention an axis of heads. The
parts of a block were numbered in the order in which they were made ("published"); the code of
today counts each kind by itself ("linen"). big_vision can stack the tensors of all layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vitrail.config import build
from vitrail.data.preprocess import HALF, Preprocess, Squash
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.types import Grid
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.shapes import agreed, insist, outputs
from vitrail.weights.mapping import (
    Absent,
    Derived,
    Entry,
    Hwio,
    Joined,
    Layout,
    Reshaped,
    Same,
    Transposed,
    pair,
)
from vitrail.weights.reader import Given, Reader

EPS = 1e-6
"""LayerNorm epsilon of flax."""
KERNEL = ("kernel", "bias")
SCALE = ("scale", "bias")
QKV = ("query", "key", "value")
_PREFIXES = ("opt/target/", "params/img/", "params/", "")
_BESIDE = {
    "opt/target/": ("opt/state/",),
    "params/": ("opt/", "chrono/"),
    "params/img/": ("params/txt/", "params/t/", "params/b/", "opt/", "chrono/"),
}
"""What stands beside a tower and is no part of it: the state of training, the tower of texts."""
_SCALARS = {"params/img/": ("params/t", "params/b")}
_BLOCK = "Transformer/encoderblock"


@dataclass(frozen=True)
class HeadsIn(Layout):
    """A kernel (D, heads, d) of queries, keys or values.

    Attributes:
        heads: Attention heads.
    """

    heads: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs first, heads side by side."""
        return parts[0].flatten(1).T

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Inputs first, heads apart."""
        return [tensor.T.unflatten(1, (self.heads, -1))]


@dataclass(frozen=True)
class HeadsOut(Layout):
    """A kernel (heads, d, D) that joins the heads.

    Attributes:
        heads: Attention heads.
    """

    heads: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs first, heads side by side."""
        return parts[0].flatten(0, 1).T

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Heads apart, outputs last."""
        return [tensor.T.unflatten(0, (self.heads, -1))]


class Channels(Layout):
    """One value a channel, as (1, 1, 1, C)."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """As (C,)."""
        return parts[0].flatten()

    def write(self, tensor: Tensor) -> list[Tensor]:
        """As (1, 1, 1, C)."""
        return [tensor[None, None, None]]


@dataclass(frozen=True)
class Layer(Layout):
    """One layer of tensors that are stacked along a leading axis; such files are only read.

    Attributes:
        index: Which.
        depth: Of how many.
        each: Layout of one layer.
    """

    index: int
    depth: int
    each: Layout

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """That layer, in memory of its own."""
        return self.each.read([part[self.index].clone() for part in parts])

    def write(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of one layer."""
        return [part[None].expand(self.depth, *part.shape) for part in self.each.write(tensor)]


@dataclass(frozen=True)
class Tower:
    """Where the tensors of a ViT stand in a file.

    Attributes:
        prefix: What all names begin with.
        published: Whether the parts of a block are numbered as in the published files.
        stacked: Whether all layers lie in one tensor a part.
        depth: Layers.
    """

    prefix: str
    published: bool
    stacked: bool
    depth: int

    @property
    def attention(self) -> str:
        """Attention of a block."""
        return f"MultiHeadDotProductAttention_{int(self.published)}"

    @property
    def norm2(self) -> str:
        """Second norm of a block."""
        return "LayerNorm_2" if self.published else "LayerNorm_1"

    @property
    def mlp(self) -> str:
        """MLP of a block."""
        return "MlpBlock_3" if self.published else "MlpBlock_0"

    def at(self, name: str) -> str:
        """A name outside the blocks."""
        return f"{self.prefix}{name}"

    def block(self, index: int, name: str) -> str:
        """A name in a block."""
        return f"{self.prefix}{_BLOCK}{'' if self.stacked else f'_{index}'}/{name}"

    def all(self, *names: str) -> list[str]:
        """The same parts of all blocks."""
        count = 1 if self.stacked else self.depth
        return [self.block(index, name) for index in range(count) for name in names]

    def sizes(self, checkpoint: Checkpoint) -> tuple[int, int, int]:
        """Width, hidden width of the MLP, and heads.

        Raises:
            CheckpointError: all tensors that tell are missing.
        """
        axis = int(self.stacked)
        norms = [f"{norm}/{part}" for norm in ("LayerNorm_0", self.norm2) for part in SCALE]
        width = agreed(checkpoint, self.all(*norms, f"{self.mlp}/Dense_1/bias"), axis)
        hidden = agreed(checkpoint, self.all(f"{self.mlp}/Dense_0/bias"), axis)
        # One attention has seven tensors with an axis of heads: it stands first in four.
        first = self.all(*(f"{self.attention}/{n}/bias" for n in QKV))
        heads = agreed(checkpoint, [*first, *self.all(f"{self.attention}/out/kernel")], axis)
        return width, hidden, heads

    def entries(self, width: int, heads: int) -> list[Entry]:
        """Blocks and last norm."""
        table = [
            Entry(f"backbone.blocks.{i}.{ours}", self._theirs(i, theirs), self._layer(i, layout))
            for ours, theirs, layout in self._parts(width, heads)
            for i in range(self.depth)
        ]
        norm = self.at("Transformer/encoder_norm/")
        return [*table, *pair("backbone.norm", norm, names=SCALE)]

    def _theirs(self, index: int, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.block(index, name) for name in names)

    def _layer(self, index: int, layout: Layout) -> Layout:
        return Layer(index, self.depth, layout) if self.stacked else layout

    def _parts(self, width: int, heads: int) -> list[tuple[str, tuple[str, ...], Layout]]:
        """Ours, theirs and the layout of every tensor in a block."""
        mha, mlp, same = self.attention, self.mlp, Same()
        parts: list[tuple[str, tuple[str, ...], Layout]] = []
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", self.norm2)):
            parts.append((f"{ours}.weight", (f"{theirs}/scale",), same))
            parts.append((f"{ours}.bias", (f"{theirs}/bias",), same))
        three, bias = (width,) * 3, Reshaped((width,), (heads, width // heads))
        for kind, each in (("weight", HeadsIn(heads)), ("bias", bias)):
            names = tuple(f"{mha}/{n}/{'kernel' if kind == 'weight' else 'bias'}" for n in QKV)
            parts.append((f"attn.qkv.{kind}", names, Joined(three, each=each)))
        parts.append(("attn.proj.weight", (f"{mha}/out/kernel",), HeadsOut(heads)))
        parts.append(("attn.proj.bias", (f"{mha}/out/bias",), same))
        for i in (0, 1):
            parts.append((f"mlp.fc{i + 1}.weight", (f"{mlp}/Dense_{i}/kernel",), Transposed()))
            parts.append((f"mlp.fc{i + 1}.bias", (f"{mlp}/Dense_{i}/bias",), same))
        return parts


def find_tower(reader: Reader) -> Tower:
    """Where the ViT stands; one that is of google's naming must be there.

    Raises:
        CheckpointError: layers are stacked that disagree on their number.
    """
    prefix = find_prefix(reader.checkpoint)
    names = [n for n in reader.checkpoint.tensors if n.startswith(f"{prefix}{_BLOCK}")]
    stacked = sum(n.startswith(f"{prefix}{_BLOCK}/") for n in names) > len(names) / 2
    # Numbers that only one of the two ways has; a name that was changed is outvoted.
    published = sum(_has(n, "Attention_1/", "LayerNorm_2/", "MlpBlock_3/") for n in names)
    linen = sum(_has(n, "Attention_0/", "LayerNorm_1/", "MlpBlock_0/") for n in names)
    depth = (
        agreed(reader.checkpoint, [n for n in names if n.startswith(f"{prefix}{_BLOCK}/")])
        if stacked
        else reader.count(f"{prefix}{_BLOCK}_")
    )
    if depth < 1:
        raise CheckpointError(
            f"{reader.checkpoint.path}: tensors of layer '{prefix}{_BLOCK}_0' are missing"
        )
    return Tower(prefix, published >= linen, stacked, depth)


def find_prefix(checkpoint: Checkpoint) -> str:
    """What the names of most tensors of layers begin with."""
    votes = Counter[str]()
    for name in checkpoint.tensors:
        prefix, found, _ = name.partition(_BLOCK)
        if found and prefix in _PREFIXES:
            votes[prefix] += 1
    return votes.most_common(1)[0][0] if votes else ""


def is_flax(checkpoint: Checkpoint) -> bool:
    """Whether names are those of google's JAX code."""
    blocks = tuple(f"{prefix}{_BLOCK}" for prefix in _PREFIXES)
    return checkpoint.container == "npz" and any(n.startswith(blocks) for n in checkpoint.tensors)


def is_big_vision(checkpoint: Checkpoint) -> bool:
    """Whether names are those that only big_vision has."""
    names, prefix = checkpoint.tensors, find_prefix(checkpoint)
    own = (f"{prefix}MAPHead_0/", f"{prefix}{_BLOCK}/")
    tables = (f"{prefix}pos_embedding", f"{prefix}Transformer/pos_embedding")
    if prefix == "params/img/" or any(n in tables or n.startswith(own) for n in names):
        return True
    # Its own prefix, and nothing of vision_transformer: positions that are computed.
    other = (f"{prefix}Transformer/posembed_input/", f"{prefix}conv_root/", f"{prefix}gn_root/")
    return prefix == "params/" and not any(name.startswith(other) for name in names)


def beside(checkpoint: Checkpoint, prefix: str) -> list[Derived]:
    """Tensors of training and of other towers, which no image needs."""
    begin, scalars = _BESIDE.get(prefix, ()), _SCALARS.get(prefix, ())
    return [
        Derived(name, stored.shape)
        for name, stored in checkpoint.tensors.items()
        if (begin and name.startswith(begin)) or name in scalars
    ]


def patch_kernel(checkpoint: Checkpoint, tower: Tower, channels: int | None, width: int) -> int:
    """Side of a patch.

    Raises:
        CheckpointError: the kernel is missing or no square one from the channels to the width.
    """
    name = tower.at("embedding/kernel")
    shape = insist(checkpoint, name, (None, None, channels, width), f"the width is {width}")
    if shape[0] != shape[1]:
        raise CheckpointError(
            f"{checkpoint.path}: tensor '{name}' has the shape {list(shape)}: no square patches"
        )
    return shape[0]


def token_entry(tower: Tower, width: int, *, there: bool) -> Entry:
    """The class token, or none."""
    name = "backbone.prefix_token"
    return Entry(name, (tower.at("cls"),)) if there else Entry(name, (), Absent((1, 0, width)))


def embedding_entries(tower: Tower) -> list[Entry]:
    """The patch embedding."""
    return pair("backbone.patch_embed.proj", tower.at("embedding/"), Hwio(), names=KERNEL)


def head_config(reader: Reader, tower: Tower, given: Given) -> ClassifyConfig | None:
    """The head; None where the file has none.

    Raises:
        CheckpointError: one of its tensors is missing or contradicts the others.
    """
    found, hidden = reader.checkpoint.tensors, None
    pre = [tower.at(f"pre_logits/{part}") for part in KERNEL]
    if not any(tower.at(f"head/{part}") in found for part in KERNEL) and not any(
        name in found for name in pre
    ):
        return None
    if any(name in found for name in pre):
        hidden = outputs(reader.checkpoint, pre, axis=1)
    head = (tower.at(f"head/{part}") for part in KERNEL)
    count = outputs(reader.checkpoint, head, axis=1)
    return build(
        ClassifyConfig,
        {"classes": reader.class_names(count, given, {}), "hidden": hidden},
        source=str(reader.checkpoint.path),
    )


def head_entries(tower: Tower, task: ClassifyConfig) -> list[Entry]:
    """Classifier, behind a linear map and tanh where there is one."""
    head = pair("task.head", tower.at("head/"), Transposed(), names=KERNEL)
    if task.hidden is None:
        return head
    return [
        *pair("task.pre_logits", tower.at("pre_logits/"), Transposed(), names=KERNEL),
        *head,
    ]


def preprocess(size: Grid) -> Preprocess:
    """How google's code evaluates: stretched to the size by `tf.image.resize`, -1 to 1."""
    return Preprocess(
        resize=Squash(size=size), interpolation="bilinear", antialias=False, mean=HALF, std=HALF
    )


def _has(name: str, *parts: str) -> bool:
    return any(part in name for part in parts)
