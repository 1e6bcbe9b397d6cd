"""What a page shows of a segmenter's answer: the regions drawn, and what made each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail import masks
from vitrail.draw_masks import paint
from vitrail.explain.conservative import Conservative, evidence
from vitrail.explain.faithfulness.localisation import chance, energy
from vitrail.explain.faithfulness.pixels import cell_side
from vitrail.explain.method import Method
from vitrail.explain.page.curves import CurveView, random_curves, view_curves
from vitrail.explain.page.view import MapView
from vitrail.explain.regions import FoundRegions, find_regions, insist_segmenter
from vitrail.explain.target import RegionTarget
from vitrail.model import Model
from vitrail.palette import colours
from vitrail.types import Grid

FEWEST, MOST = 3, 12
"""Regions with maps: the sure objects, but so many at least and at most; of classes the largest."""

FINE = 128
"""Most cells of a mask on a page along its longer side."""


@dataclass(frozen=True, slots=True)
class RegionsView:
    """The regions of one image.

    Attributes:
        drawn: The image with them.
        maps: Of each what made it, method by method.
        masks: Their pixels.
        note: What has to be said of them; empty where there is nothing.
    """

    drawn: UInt8[Tensor, "3 H W"]
    maps: tuple[MapView, ...]
    masks: Bool[Tensor, "K H W"]
    note: str


def view_regions(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    methods: Sequence[Method],
    about: str | None = None,
    *,
    curves: bool,
) -> RegionsView:
    """The image with its regions, and what made each.

    Args:
        model: A segmenter in evaluation mode.
        image: Prepared, and not filled up.
        methods: Maps of each region.
        about: Regions of this class alone; None for all.
        curves: Whether to measure deletion and insertion of the default method.
    """
    seen = _shown(model, find_regions(model, image, about=about))
    regions, size = seen.found.regions, seen.found.size
    drawn = paint(image.cpu(), seen.found, colours(len(regions)))
    names = [f"{i + 1}. {one.label}, {one.score:.0%}" for i, one in enumerate(regions)]
    maps = list(_outlines(seen, names))
    if seen.attention is not None:
        maps += _looked(seen, names)
    ways = [_Way(model, image, one, name) for one, name in zip(seen.targets, names, strict=True)]
    for method in methods:
        if isinstance(method, Conservative):
            given = [way.given(method, curves=curves) for way in ways]
            maps += [tokens for tokens, _ in given]
            maps += [details for _, details in given if details is not None]
        else:
            maps += [way.map(method) for way in ways]
    found = torch.stack([one.mask for one in seen.targets])
    return RegionsView(drawn, tuple(maps), found, _note(seen, about, size))


def _shown(model: Model, seen: FoundRegions) -> FoundRegions:
    """The regions that a page has room for."""
    config, size = insist_segmenter(model).config, seen.found.size
    regions = seen.found.regions
    if config.answer == "instance":  # the surest stand first
        sure = sum(one.score >= config.threshold for one in regions)
        kept = list(range(min(max(sure, FEWEST), MOST, len(regions))))
    else:
        areas = [masks.area(one.rle, size) for one in regions]
        kept = sorted(range(len(regions)), key=lambda i: -areas[i])[:MOST]
    return seen.only(kept)


def _note(seen: FoundRegions, about: str | None, size: Grid) -> str:
    """Of an answer without regions."""
    if not seen.nearest:
        return ""
    (one,) = seen.found.regions
    what = "region" if about is None else f"region of {about}"
    return (
        f"no {what} was found; shown is where {one.label} is most probable "
        f"({one.score:.0%} at most, {masks.area(one.rle, size):,} pixels)"
    )


def _outlines(seen: FoundRegions, names: Sequence[str]) -> Iterator[MapView]:
    """Each region by itself: the share of it in every cell."""
    side = max(1, -(-max(seen.found.size) // FINE))
    for target, name in zip(seen.targets, names, strict=True):
        mask = target.mask[None].float().cpu()
        covered = F.avg_pool2d(mask, side, ceil_mode=True)[0]
        values = covered.numpy(force=True)
        area = f"It has {chance(target.mask):.0%} of the image's pixels."
        yield MapView("regions", "Each region", "", name, values, (side, side), said=area)


def _looked(seen: FoundRegions, names: Sequence[str]) -> Iterator[MapView]:
    """Where the query of each region looked."""
    attention = seen.attention
    assert attention is not None
    cell = (attention.stride, attention.stride)
    rows = zip(attention.maps.cpu(), attention.elsewhere, seen.targets, names, strict=True)
    for cells, elsewhere, target, name in rows:
        said = f"{energy(cells, target.mask.cpu(), cell):.0%} of it lies inside the region."
        if float(elsewhere) >= 0.005:
            said += f" {float(elsewhere):.0%} of the attention went to no place of the image."
        yield MapView(
            "queries",
            "Where each region's query looked",
            "Cheng et al. 2021; Strudel et al. 2021, section 3.2",
            name,
            cells.float().numpy(force=True),
            cell,
            said=said,
        )


@dataclass(frozen=True, slots=True)
class _Way:
    """One region, and how to ask of it.

    Attributes:
        model: In evaluation mode.
        image: Prepared.
        target: The region.
        name: What the page calls it.
    """

    model: Model
    image: UInt8[Tensor, "3 H W"]
    target: RegionTarget
    name: str

    def map(self, method: Method) -> MapView:
        """What a method says of it."""
        cells = method.explain(self.model, self.image[None], [self.target]).detach()
        return self._view(method.key, method.name, method.paper, cells[0].cpu())

    def given(self, method: Conservative, *, curves: bool) -> tuple[MapView, MapView | None]:
        """What pixels gave through tokens, and what past them, where a head looks there too."""
        found = evidence(self.model, self.image[None], [self.target])
        tokens, details = (one.clamp_min(0).cpu() for one in (found.tokens, found.details))
        both = float(tokens.sum() + details.sum())
        share = float(details.sum()) / both if both > 0 else 0.0
        said = ""
        if bool(found.details.any()):
            said = (
                f" Of what spoke for the region, {1 - share:.0%} came through tokens; {share:.0%} "
                "came past them, from details of the image that the head reads itself."
            )
        measured = self._curves(tokens) if curves else ()
        through = self._view(method.key, method.name, method.paper, tokens[0], said, measured)
        if not said:
            return through, None
        name = "Details past the tokens"
        return through, self._view("details", name, method.paper, details[0], said)

    def _curves(self, cells: Float[Tensor, "1 h w"]) -> tuple[CurveView, ...]:
        random = random_curves(self.model, self.image, self.target)
        return view_curves(self.model, self.image, self.target, cells, random)

    def _view(
        self,
        key: str,
        name: str,
        paper: str,
        cells: Float[Tensor, "h w"],
        said: str = "",
        measured: tuple[CurveView, ...] = (),
    ) -> MapView:
        size = (self.image.shape[1], self.image.shape[2])
        cell = cell_side(self.model, size, (cells.shape[0], cells.shape[1]))
        inside = f"{energy(cells, self.target.mask.cpu(), cell):.0%} of it lies inside the region."
        values = cells.float().numpy(force=True)
        return MapView(key, name, paper, self.name, values, cell, measured, inside + said)
