"""The soft splits of a T2T, and what mixes the tokens between them."""

from __future__ import annotations

from torch import Tensor

from vitrail.explain.trace.data import Cut, Rows, Step
from vitrail.explain.trace.items import row
from vitrail.explain.trace.scene import Scene
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import say
from vitrail.nn.soft_split import PerformerTokenAttention, SoftSplit, TokenBlock, TokensToToken
from vitrail.types import Grid


def soft_splits(scene: Scene, stem: TokensToToken) -> list[Step]:
    """Each soft split, and each block between two of them."""
    steps: list[Step] = []
    stride = 1
    for i, split in enumerate(stem.splits):
        assert isinstance(split, SoftSplit)
        steps.append(_split(scene, split, i, stride))
        stride *= split.stride
        if i < len(stem.blocks):
            block = stem.blocks[i]
            assert isinstance(block, TokenBlock)
            steps.append(_mix(scene, block, i, _split_cells(scene, split, stride)))
    return steps


def _split_grid(scene: Scene, split: SoftSplit) -> Grid:
    cells = scene.into(split)
    return cells.shape[2] // split.stride, cells.shape[3] // split.stride


def _split_cells(scene: Scene, split: SoftSplit, stride: int) -> Tensor:
    return scene.places.on(_split_grid(scene, split), stride)


def _split(scene: Scene, split: SoftSplit, index: int, before: int) -> Step:
    cells, out = scene.into(split), scene.out(split)
    stride = before * split.stride
    grid, mine = _split_grid(scene, split), out[0, _split_cells(scene, split, stride)]
    side, margin = split.kernel * before, split.padding * before
    return Step(
        key=f"split-{index + 1}",
        title=say("split.title", n=index + 1),
        text=say(
            "split.text",
            kernel=split.kernel,
            stride=split.stride,
            overlap=split.kernel - split.stride,
        ),
        shapes=(tuple(cells.shape), tuple(out.shape)),
        formula=f"<i>K</i> = <i>C</i> · <i>k</i>² = {cells.shape[1]} · {split.kernel}² = "
        f"{out.shape[2]}",
        source=(source(SoftSplit.forward, "patches = F.unfold", "return"),),
        items=(
            Cut(say("split.cut"), grid, stride, margin, side),
            Rows(say("split.rows"), (row(say("name.patch"), mine),)),
        ),
    )


def _mix(scene: Scene, block: TokenBlock, index: int, cells: Tensor) -> Step:
    before, after = scene.into(block)[0, cells], scene.out(block)[0, cells]
    performer = isinstance(block.attn, PerformerTokenAttention)
    formula = (
        "<i>φ</i>(<i>q</i>) (<i>φ</i>(<i>K</i>)ᵀ <i>V</i>) / "
        "(<i>φ</i>(<i>q</i>) · Σ <i>φ</i>(<i>k</i>))"
        if performer
        else "softmax(<i>q</i> <i>K</i>ᵀ · <i>C</i><sup>−½</sup>) <i>V</i>"
    )
    code = (
        source(PerformerTokenAttention._mix, "k, q, v", "mixed =")  # pyright: ignore[reportPrivateUsage]
        if performer
        else source(type(block.attn).forward, "q, k, v =", "mixed =")
    )
    return Step(
        key=f"mix-{index + 1}",
        title=say("mix.title", n=index + 1),
        text=say("mix.performer" if performer else "mix.softmax"),
        shapes=(tuple(scene.into(block).shape), tuple(scene.out(block).shape)),
        formula=f"<i>x</i> = <i>v</i> + {formula}, <i>x</i> ← <i>x</i> + MLP(LN(<i>x</i>))",
        source=(code, source(TokenBlock.forward, "mixed, values", "return")),
        items=(
            Rows(
                say("mix.rows"),
                (row(say("name.before"), before), row(say("name.after"), after)),
            ),
        ),
    )
