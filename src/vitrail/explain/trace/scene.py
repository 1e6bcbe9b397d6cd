"""One forward pass with all that a trace reads from it, and the patches a reader can choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin, SwinStage
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.errors import ExplainError
from vitrail.explain.layers import AttentionLayer, Watch, attention_layers, watching
from vitrail.model import Model
from vitrail.nn.attention import Attention
from vitrail.nn.pooling import AttentionPool
from vitrail.nn.probe import AttentionWeights, SoftmaxWeights
from vitrail.nn.windows import WindowAttention, Windows
from vitrail.types import Features, Grid

Encoder = ViT | T2T | Hybrid | Swin
"""The families that can be traced: those with attention."""

MOST = 256
"""Patches that a reader can choose at most."""

BUDGET = 2_400_000
"""Bytes of the maps of all those patches together."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What went into a module, and what came out."""

    inputs: tuple[Any, ...]
    output: Any


@dataclass(frozen=True, slots=True)
class Attended:
    """What an attention module handed to its probe."""

    weights: SoftmaxWeights
    values: Tensor
    out: Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """The patches that can be chosen, and where they lie on other maps.

    Attributes:
        grid: Rows and columns of the chosen block's map.
        stride: Pixels a cell of it.
        queries: Cells that can be chosen, in raster order.
    """

    grid: Grid
    stride: int
    queries: tuple[int, ...]

    def on(self, grid: Grid, stride: int) -> Int[Tensor, " Q"]:
        """The cell of another map that holds the centre of each."""
        cells = torch.tensor(self.queries)
        rows, columns = cells // self.grid[1], cells % self.grid[1]
        row, column = (
            ((at * 2 + 1) * self.stride // (2 * stride)).clamp_max(side - 1)
            for at, side in zip((rows, columns), grid, strict=True)
        )
        return row * grid[1] + column

    @property
    def start(self) -> int:
        """The query nearest to the middle of the image."""
        middle = (self.grid[0] / 2, self.grid[1] / 2)
        far = [
            (q // self.grid[1] + 0.5 - middle[0]) ** 2 + (q % self.grid[1] + 0.5 - middle[1]) ** 2
            for q in self.queries
        ]
        return far.index(min(far))


@dataclass(frozen=True, slots=True)
class Scene:
    """A forward pass that was watched.

    Attributes:
        model: The model.
        backbone: Its backbone.
        original: Height and width of the image before it was prepared.
        image: Prepared.
        pixels: Normalised, as the backbone got them.
        output: What the model gave.
        layer: The chosen block.
        head: The chosen head.
        places: The patches that can be chosen, on the chosen block's map.
    """

    model: Model
    backbone: Encoder
    original: Grid
    image: UInt8[Tensor, "3 H W"]
    pixels: Float[Tensor, "1 3 H W"]
    output: Tensor
    layer: int
    head: int
    places: Places
    _passed: Mapping[nn.Module, Passed]
    _attended: Mapping[nn.Module, Attended]

    def into(self, module: nn.Module) -> Tensor:
        """The first thing that went into a module."""
        return _as_float(self._passed[module].inputs[0])

    def out(self, module: nn.Module) -> Tensor:
        """What came out of it."""
        return _as_float(self._passed[module].output)

    def attended(self, module: nn.Module) -> Attended:
        """Queries, keys and values of an attention module that was probed."""
        return self._attended[module]

    @property
    def features(self) -> Features:
        """What the backbone gave to the task."""
        return cast("Features", self._passed[self.model.task].inputs[0])

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of the encoder."""
        return encoder_blocks(self.backbone)

    @property
    def block(self) -> nn.Module:
        """The chosen one."""
        return self.blocks[self.layer]

    @property
    def prefix(self) -> int:
        """Leading tokens that are no patches."""
        return self.backbone.prefix

    def windows(self, block: nn.Module) -> Windows:
        """How a Swin block cut its map."""
        return cast("Windows", self._passed[block].inputs[1])

    def grid(self, block: nn.Module) -> Grid:
        """Rows and columns of a block's map."""
        return _grid(self._passed[block])

    def merged(self, module: nn.Module) -> tuple[Grid, Grid]:
        """Rows and columns before and after a patch merging."""
        passed = self._passed[module]
        return cast("Grid", passed.inputs[1]), cast("Grid", passed.output[1])

    def cells(self, block: nn.Module) -> Int[Tensor, " Q"]:
        """The chosen patches on a block's map."""
        return self.places.on(self.grid(block), block_stride(self.backbone, block))

    def rows(self, tokens: Float[Tensor, "1 N D"]) -> Float[Tensor, "Q D"]:
        """The chosen patches' tokens on the chosen block's map."""
        return tokens[0, self.prefix + torch.tensor(self.places.queries)]


def _as_float(value: Any) -> Tensor:
    """A tensor as it was, on the CPU; of several results the first."""
    found = cast("tuple[Any, ...]", value)[0] if isinstance(value, tuple) else value
    assert isinstance(found, Tensor)
    return found.detach().float().cpu()


def insist_encoder(model: Model) -> Encoder:
    """The backbone, where it can be traced.

    Raises:
        ExplainError: it has no attention, or no trace; the families that have are named.
    """
    backbone = model.backbone
    match backbone:
        case ViT() | T2T() | Hybrid() | Swin():
            return backbone
        case _:
            kind = model.config.backbone.kind
            lacks = "trace yet" if attention_layers(backbone) else "attention to trace"
            raise ExplainError(
                f"a model of the family '{kind}' has no {lacks}; these have: "
                "vit (DeiT too), t2t, hybrid, swin and swinv2"
            )


def encoder_blocks(backbone: Encoder) -> tuple[nn.Module, ...]:
    """The blocks in the order in which they run; of Swin all stages, one after another."""
    match backbone:
        case Swin():
            stages = [stage for stage in backbone.stages if isinstance(stage, SwinStage)]
            return tuple(block for stage in stages for block in stage.blocks)
        case ViT() | T2T() | Hybrid():
            return tuple(backbone.blocks)


def block_stage(backbone: Swin, block: nn.Module) -> int:
    """The stage that a block belongs to."""
    depths = backbone.config.depths
    index = encoder_blocks(backbone).index(block)
    return next(i for i in range(len(depths)) if index < sum(depths[: i + 1]))


def block_stride(backbone: Encoder, block: nn.Module) -> int:
    """Pixels a cell of a block's map."""
    if isinstance(backbone, Swin):
        return backbone.strides[block_stage(backbone, block)]
    return backbone.strides[-1]


def attention(block: nn.Module) -> Attention | WindowAttention:
    """The attention module of a block."""
    found = block.get_submodule("attn")
    assert isinstance(found, Attention | WindowAttention)
    return found


def watch(model: Model, image: UInt8[Tensor, "3 H W"], layer: int, head: int) -> Scene:
    """Run the model once, and keep what its modules pass on."""
    backbone = insist_encoder(model)
    prepared = model.config.preprocess.prepare(image)
    blocks = encoder_blocks(backbone)
    passed: dict[nn.Module, Passed] = {}
    attended: dict[nn.Module, Attended] = {}
    probed = [
        one
        for one in attention_layers(backbone)
        if one.module is attention(blocks[layer]) or isinstance(one.module, AttentionPool)
    ]
    hooks = [
        module.register_forward_hook(_keep(passed)) for module in _watched(model, blocks, layer)
    ]
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), watching(probed, _keep_attention(attended)):
            output = model(prepared[None].to(device))
    finally:
        for hook in hooks:
            hook.remove()
    block = blocks[layer]
    grid, stride = _grid(passed[block]), block_stride(backbone, block)
    cells = [_grid(passed[b]) for b in blocks]
    size = (
        sum(rows * columns for rows, columns in cells)
        + (attention(block).heads + 8) * grid[0] * grid[1]
    )
    return Scene(
        model=model,
        backbone=backbone,
        original=(image.shape[1], image.shape[2]),
        image=prepared,
        pixels=_as_float(passed[backbone].inputs[0]),
        output=output.float().cpu(),
        layer=layer,
        head=head,
        places=Places(grid, stride, _choices(grid, size)),
        _passed=passed,
        _attended=attended,
    )


def _watched(model: Model, blocks: tuple[nn.Module, ...], layer: int) -> Iterable[nn.Module]:
    """Modules outside the blocks, every block, and all that the chosen one is made of."""
    inside = {part for block in blocks for part in block.modules()} - set(blocks)
    # This one is called twice a block.
    mine = set(blocks[layer].modules()) - {blocks[layer].get_submodule("drop_path")}
    return [
        module
        for module in model.modules()
        if module is not model and (module not in inside or module in mine)
    ]


def _keep(passed: dict[nn.Module, Passed]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        passed[module] = Passed(tuple(inputs), output)

    return hook


def _keep_attention(attended: dict[nn.Module, Attended]) -> Watch:
    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        assert isinstance(weights, SoftmaxWeights)
        bias = None if weights.bias is None else weights.bias.detach().float().cpu()
        q, k, v, joined = (part.detach().float().cpu() for part in (weights.q, weights.k, v, out))
        attended[layer.module] = Attended(SoftmaxWeights(q, k, bias, weights.scale), v, joined)

    return watch


def _grid(block: Passed) -> Grid:
    """Rows and columns, which every block is told."""
    told = block.inputs[1]
    return told.grid if isinstance(told, Windows) else cast("Grid", told)


def _choices(grid: Grid, size: int) -> tuple[int, ...]:
    """Every cell of a small map; of a large one as many as fit, evenly spaced."""
    step = 1
    while True:
        rows, columns = (range(min(step, side) // 2, side, step) for side in grid)
        count = len(rows) * len(columns)
        if count == 1 or (count <= MOST and count * size <= BUDGET):
            return tuple(row * grid[1] + column for row in rows for column in columns)
        step += 1
