"""Tokens that are no patches put in front, and positions added."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.explain.trace.data import Heat, Item, Rows, Step, Text
from vitrail.explain.trace.items import cosine, row
from vitrail.explain.trace.scene import Scene
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import join, say
from vitrail.nn.positions import AbsolutePositions, AttentionPositions, NoPositions, Placeless
from vitrail.types import Grid


def map_grid(scene: Scene, stem: nn.Module) -> Grid:
    """Rows and columns of the map that a stem gives."""
    out = scene.out(stem)
    return out.shape[2], out.shape[3]


def tokens_step(scene: Scene, backbone: ViT | T2T | Hybrid) -> Step:
    """Tokens that are no patches put in front, and positions added."""
    positions = backbone.pos_embed
    assert isinstance(positions, AbsolutePositions)
    first, grid = scene.into(backbone.blocks[0]), scene.places.grid
    vectors = scene.out(backbone.patch_embed)[0].flatten(1).T
    mine, K = torch.tensor(scene.places.queries), backbone.prefix
    places = positions.table(grid).detach().float().cpu()[0]
    added = not isinstance(positions, NoPositions)
    rows = [row(say("name.patch_vector"), vectors[mine])]
    if added:
        rows.append(row(say("name.position"), places[mine], "+"))
    rows.append(row(say("name.token"), first[0, K + mine], "="))
    items: list[Item] = [Rows(say("tokens.rows"), tuple(rows))]
    if K:
        items.append(_class_row(backbone.prefix_token, positions, first))
    if added:
        items.append(_likeness(places, mine, grid, scene.places.stride))
    formula = (
        f"[{'<i>x</i><sub>class</sub>; ' if K else ''}<i>e</i><sub>1</sub>; …; "
        "<i>e</i><sub><i>N</i></sub>]" + (" + <i>E</i><sub>pos</sub>" if added else "")
    )
    return Step(
        key="tokens",
        title=say("tokens.title" if K else "tokens.title_places"),
        text=_tokens_text(backbone, positions, K),
        shapes=((1, len(vectors), vectors.shape[1]), tuple(first.shape)),
        formula=f"<i>z</i><sub>0</sub> = {formula}",
        source=(source(AbsolutePositions.embed, "patches = patches", "return torch.cat"),),
        items=tuple(items),
    )


def _class_row(token: Tensor, positions: AbsolutePositions, first: Tensor) -> Rows:
    """The first token in front of the patches."""
    place = positions.prefix_table()
    rows = [row(say("name.learned"), token.detach().float().cpu()[:, 0])]
    if place is not None:
        rows.append(row(say("name.position"), place.detach().float().cpu()[:, 0], "+"))
    return Rows(say("tokens.class_rows"), (*rows, row(say("name.class"), first[:, 0], "=")))


def _likeness(places: Float[Tensor, "M D"], mine: Tensor, grid: Grid, stride: int) -> Heat:
    similar = cosine(places[mine], places)
    return Heat(say("tokens.heat"), similar, grid, stride, exact=False)


def _tokens_text(backbone: ViT | T2T | Hybrid, positions: AbsolutePositions, prefix: int) -> Text:
    parts: list[Text] = []
    if isinstance(backbone, ViT) and backbone.config.distillation_token:
        parts.append(say("tokens.distilled"))
    elif prefix:
        parts.append(say("tokens.class"))
    if isinstance(backbone, ViT) and backbone.config.registers:
        parts.append(say("tokens.registers", count=backbone.config.registers))
    if isinstance(backbone, ViT) and backbone.config.detection_tokens:
        parts.append(say("tokens.queries", count=backbone.config.detection_tokens))
    inside = _inside(backbone)
    if inside is not None:
        parts.append(say("tokens.inside"))
    elif isinstance(positions, NoPositions):
        parts.append(say("tokens.nowhere"))
    else:
        parts.append(say("tokens.position"))
    if isinstance(backbone, ViT) and backbone.config.positions_in != "stem":
        parts.append(say("tokens.again"))
    return join(*parts)


def _inside(backbone: ViT | T2T | Hybrid) -> AttentionPositions | None:
    """Positions that act inside attention instead."""
    found = backbone.blocks[0].get_submodule("attn.positions")
    assert isinstance(found, AttentionPositions)
    return None if isinstance(found, Placeless) else found


def swin_tokens_step(scene: Scene, backbone: Swin) -> Step:
    """The norm after the patches, and positions where they are added."""
    vectors = scene.out(backbone.patch_embed)[0].flatten(1).T
    grid, positions = map_grid(scene, backbone.patch_embed), backbone.pos_embed
    mine = scene.places.on(grid, backbone.strides[0])
    first, normed = scene.into(scene.blocks[0]), scene.out(backbone.patch_norm)
    rows = [row(say("name.patch_vector"), vectors[mine]), row(say("name.normed"), normed[0, mine])]
    added = not isinstance(positions, NoPositions)
    items: list[Item] = []
    if added:
        places = positions.table(grid).detach().float().cpu()[0]
        rows.append(row(say("name.position"), places[mine], "+"))
        rows.append(row(say("name.token"), first[0, mine], "="))
        items.append(_likeness(places, mine, grid, backbone.strides[0]))
    formula = "<i>z</i><sub>0</sub> = LN(<i>e</i>)" + (" + <i>E</i><sub>pos</sub>" if added else "")
    code = source(Swin.forward, "tokens = self.patch_norm", "tokens = tokens + self.pos_embed")
    return Step(
        key="tokens",
        title=say("tokens.title_swin"),
        text=say("tokens.swin_added" if added else "tokens.swin"),
        shapes=((1, *vectors.shape), tuple(first.shape)),
        formula=formula,
        source=(code,),
        items=(Rows(say("tokens.rows"), tuple(rows)), *items),
    )
