"""Transcription: which patch each written symbol looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.errors import ExplainError
from vitrail.explain.capture import AttentionRecord, capture
from vitrail.explain.layers import attention_layers, choose_layers
from vitrail.explain.layout import Reading
from vitrail.model import Model
from vitrail.tasks.transcribe import Transcribe
from vitrail.types import Transcription


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text, and where each of its symbols was read.

    Attributes:
        text: What was written, without the end mark.
        score: Its probability under the model, 0 to 1.
        ended: Whether the model ended it; a text that was cut off has no end mark.
        maps: For each symbol, and then for the end mark if it came, the attention on each place.
        elsewhere: For each of them what went to tokens that are no places; with it a map sums to 1.
        error: How far these weights are from what the decoder used (`LayerAttention.error`).
    """

    text: str
    score: float
    ended: bool
    maps: Float[Tensor, "S h w"]
    elsewhere: Float[Tensor, " S"]
    error: float


def read_text(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    *,
    layers: Sequence[int] = (-1,),
    heads: Sequence[int] | None = None,
) -> list[ReadText]:
    """Write the text of each image and show what the decoder's cross-attention looked at.

    Once a text is written, the decoder reads it again in one pass: a symbol sees the same symbols
    before it as when it was written, so the rows are the same. Row i of the cross-attention is of
    the symbol that stands before the i-th, and decides the i-th (Vaswani et al. 2017, section
    3.2.3).

    Args:
        model: A transcriber in evaluation mode.
        images: Prepared.
        layers: Blocks of the decoder, from 0, negative from the end; their mean is shown.
        heads: Heads of each; None for all. Their mean is shown.

    Raises:
        ExplainError: the model writes no text, or has no such layer or head.
    """
    task = model.task
    if not isinstance(task, Transcribe):
        raise ExplainError(
            f"this model does {model.config.task.kind}: only a model that writes text reads"
        )
    size = (images.shape[2], images.shape[3])
    reading = [
        layer for layer in attention_layers(model) if isinstance(layer.place.at(size), Reading)
    ]
    chosen = [layer.index for layer in choose_layers(reading, layers)]
    if not chosen:
        raise ExplainError("no layer was asked for: name one of the decoder's blocks, or -1")
    with torch.no_grad(), capture(model, chosen, heads=heads) as record:
        memory = model(images)
        found = task.write(memory)
        record.layers.clear()  # what was seen symbol by symbol
        begin = torch.full((len(images), 1), task.mark, device=found.tokens.device)
        task.decoder.hidden(torch.cat([begin, found.tokens], dim=1), memory)
    maps, elsewhere = _maps(record)
    texts = task.texts(found)
    return [
        _one(text, places, others, ended=bool(ended), error=record.max_error)
        for text, ended, places, others in zip(texts, found.ended, maps, elsewhere, strict=True)
    ]


def _maps(record: AttentionRecord) -> tuple[Float[Tensor, "B S h w"], Float[Tensor, "B S"]]:
    """Mean over layers and heads of the attention on places, and of that on other tokens."""
    weights = torch.stack([seen.weights.mean(dim=1) for seen in record.layers]).mean(dim=0)
    layout = record.layers[0].layout
    assert isinstance(layout, Reading)
    return layout.lay(0, weights), weights[..., : len(layout.prefix)].sum(dim=-1)


def _one(
    text: Transcription,
    maps: Float[Tensor, "T h w"],
    elsewhere: Float[Tensor, " T"],
    *,
    ended: bool,
    error: float,
) -> ReadText:
    """The rows that are symbols of this text; behind them the batch is filled up."""
    count = len(text.text) + ended
    return ReadText(text.text, text.score, ended, maps[:count], elsewhere[:count], error)
