"""What a page says of itself: the model in figures, and what is left out or coarser."""

from __future__ import annotations

from collections.abc import Sequence

from vitrail.data.findings import many
from vitrail.explain.layers import AttentionLayer, attention_layers
from vitrail.explain.page.budget import Plan
from vitrail.explain.page.view import ImageView
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.tasks.detect import Detect
from vitrail.tasks.segment import Segment

NAMED = 5
"""Most names in a sentence; the rest is counted."""


def facts(model: Model) -> tuple[tuple[str, str], ...]:
    """Label and value of what is known of a model."""
    count = sum(parameter.numel() for parameter in model.parameters())
    layers = attention_layers(model)
    heads = sorted({layer.heads for layer in layers})
    shown = f"{heads[0]}" if len(heads) == 1 else f"{heads[0]} to {heads[-1]}" if heads else ""
    plural = "" if shown == "1" else "s"
    attention = f"{len(layers)} layers of {shown} head{plural}" if layers else "none"
    task = model.task
    match task:
        case Classify(config=config):
            does = many(len(config.classes), "class")
        case Detect(config=config):
            does = f"finds objects of {many(len(config.classes), 'class')}"
        case Segment(config=config):
            what = "regions" if config.answer == "semantic" else "objects with masks"
            does = f"finds {what} of {many(len(config.classes), 'class')}"
        case _:
            does = "reads text"
    return (
        ("Family", type(model.backbone).__name__),
        ("Parameters", f"{count:,}"),
        ("Attention", attention),
        ("Task", does),
    )


def notes_on(
    layers: Sequence[AttentionLayer],
    views: Sequence[ImageView],
    plan: Plan,
    left_out: Sequence[str],
    most: int,
) -> list[str]:
    """A sentence on everything that the page does not show as it is."""
    found = [f"{view.id}: {view.note}." for view in views if view.note]
    limit = f"{most / 1e6:g} MB"
    if left_out:
        found.append(
            f"A page has at most {limit}. {_names(left_out)} had no room on it; explain them in "
            "another call, or allow a larger page."
        )
    without = [view.id for view in views if layers and not any(view.attention)]
    if without:
        found.append(
            f"A page has at most {limit}. There was no room for the attention of "
            f"{_names(without)}; their maps are here."
        )
    if 0 < plan.first < len(layers):
        found.append(
            f"A page has at most {limit}. The first layers, up to {layers[plan.first - 1].name}, "
            "had no room on it."
        )
    coarse = {
        layers[i].name: one.laid.block
        for view in views
        for i, one in enumerate(view.attention)
        if one is not None and one.laid.block > 1
    }
    for block in sorted(set(coarse.values())):
        names = [name for name, side in coarse.items() if side == block]
        found.append(
            f"{_names(names)}: shown in squares of {block} by {block} places, because there are "
            "too many places for a page. What goes to the places of a square is added up; queries "
            "of a square are averaged."
        )
    return found


def _names(names: Sequence[str]) -> str:
    """A few of them, and how many there are beside."""
    rest = len(names) - NAMED
    if rest <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {rest} more"
