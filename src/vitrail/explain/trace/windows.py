"""The windows of a Swin, and the merging between its stages."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.backbones.swin import Swin
from vitrail.explain.trace.data import Heat, Item, Rows, Step
from vitrail.explain.trace.items import row
from vitrail.explain.trace.look import Look, spread
from vitrail.explain.trace.scene import Scene, block_stage
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import join, say
from vitrail.nn.windows import PatchMerging, PatchMergingV2, Windows


def windows_step(scene: Scene, seen: Look) -> Step:
    """The window in which the chosen place looks around."""
    windows = scene.windows(scene.block)
    rows, columns = windows.grid
    size, shift = windows.size, windows.shift
    inside = torch.full((len(seen.cells), rows * columns), torch.nan)
    spread(inside, seen.cells, torch.ones_like(seen.weights))
    apart: list[Item] = []
    if shift and seen.bias is not None:
        together = torch.full_like(inside, torch.nan)
        spread(together, seen.cells, (seen.bias > -50).float())
        apart = [Heat(say("windows.mask"), together, windows.grid, scene.places.stride, 0.0, 1.0)]
    width = scene.into(scene.block).shape[2]
    parts = [say("windows.text", size=size, count=windows.count)]
    parts.append(say("windows.shifted", shift=shift) if shift else say("windows.straight"))
    if windows.padded != windows.grid:
        parts.append(say("windows.padded"))
    code = (source(Windows.cut, "w, (rows", "return"),)
    if shift:
        code += (source(Windows.mask, "rows, columns = (", "return apart"),)
    return Step(
        key="windows",
        title=say("windows.title_shifted" if shift else "windows.title"),
        text=join(*parts),
        shapes=((1, rows * columns, width), (1, windows.count, size**2, width)),
        formula=f"<i>W</i> = ⌈{rows}/{size}⌉ · ⌈{columns}/{size}⌉ = {windows.count}, "
        f"<i>N</i> = {size}² = {size**2}",
        source=code,
        items=(
            Heat(say("windows.heat"), inside, windows.grid, scene.places.stride, 0.0, 1.0),
            *apart,
        ),
    )


def merging_step(scene: Scene) -> Step | None:
    """Merging into the chosen stage, or out of the first; None where there is a single stage."""
    backbone = scene.backbone
    if not isinstance(backbone, Swin) or len(backbone.stages) == 1:
        return None
    stage = max(block_stage(backbone, scene.block), 1)
    merging = backbone.stages[stage].get_submodule("downsample")
    assert isinstance(merging, PatchMerging)
    before, after = scene.into(merging), scene.out(merging)
    (rows, columns), coarse = scene.merged(merging)
    cell = scene.places.on(coarse, backbone.strides[stage])
    top, left = cell // coarse[1] * 2, cell % coarse[1] * 2
    parts = [
        row(
            say(f"merging.{place}"),
            _at(before, top + dy, left + dx, (rows, columns)),
        )
        for place, (dy, dx) in {
            "here": (0, 0),
            "below": (1, 0),
            "right": (0, 1),
            "diagonal": (1, 1),
        }.items()
    ]
    second = isinstance(merging, PatchMergingV2)
    owner = PatchMergingV2 if second else PatchMerging
    formula = (
        "LN(<i>W</i> [<i>x</i>₁; <i>x</i>₂; <i>x</i>₃; <i>x</i>₄])"
        if second
        else "<i>W</i> LN([<i>x</i>₁; <i>x</i>₂; <i>x</i>₃; <i>x</i>₄])"
    )
    C = before.shape[2]
    return Step(
        key="merging",
        title=say("merging.title", a=stage, b=stage + 1),
        text=join(
            say("merging.text", width=C, four=4 * C, two=2 * C),
            say("merging.count", count=len(backbone.stages) - 1),
        ),
        shapes=(tuple(before.shape), (1, after.shape[1], 4 * C), tuple(after.shape)),
        formula=f"<i>y</i> = {formula}",
        source=(
            source(PatchMerging.forward, "pairs = Windows", "return"),
            source(owner.reduce, "return"),
        ),
        items=(
            Rows(
                say("merging.rows"),
                (*parts, row(say("merging.merged"), after[0, cell], "=")),
            ),
        ),
    )


def _at(tokens: Tensor, top: Tensor, left: Tensor, grid: tuple[int, int]) -> Tensor:
    """Places of a map; beyond it are the zeros of the padding."""
    inside = (top < grid[0]) & (left < grid[1])
    places = torch.where(inside, top * grid[1] + left, 0)
    return tokens[0, places] * inside[:, None]
