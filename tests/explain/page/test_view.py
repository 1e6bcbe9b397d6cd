from __future__ import annotations

from math import ceil

import numpy as np
import pytest
import torch

from presets import PRESETS, preset_model
from tiny import ListDataset, photo, randomise, tiny_config, tiny_model
from vitrail.backbones import BackboneConfig
from vitrail.data.preprocess import Squash
from vitrail.explain.capture import LayerAttention, capture
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import OnImage, Pooled, Reading
from vitrail.explain.methods import METHODS
from vitrail.explain.page import stream
from vitrail.explain.page.budget import FINEST, Plan
from vitrail.explain.page.look import look
from vitrail.explain.page.packed import Laid, Packed, tolerance, unpack
from vitrail.explain.page.stream import stream_attention, write
from vitrail.explain.page.view import view_attention
from vitrail.explain.relevance import Relevance
from vitrail.model import Model, ModelConfig, model_config
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.types import Grid, Sample

EXACT = Plan(16, FINEST, 0, 1)


def row_of(laid: Laid, place: Grid) -> int:
    """What the script of the page does to find the row of a place."""
    (tall, wide), (down, across) = laid.window, laid.windows
    y, x = (
        (at - laid.shift) % (count * side)
        for at, count, side in zip(place, (down, across), laid.window, strict=True)
    )
    rows, columns = laid.blocks
    window = y // tall * across + x // wide
    block = y % tall // laid.block * columns + x % wide // laid.block
    return len(laid.tokens) + window * rows * columns + block


def map_of(packed: Packed, weights: np.ndarray, row: int) -> np.ndarray:
    """What it does to draw a row: the block of each place in the row's window; zero elsewhere."""
    laid, (rows, columns) = packed.laid, packed.laid.grid
    per = laid.blocks[0] * laid.blocks[1]
    drawn = np.zeros((weights.shape[0], rows, columns))
    own = (row - len(laid.tokens)) // per if row >= len(laid.tokens) else 0
    for y in range(rows):
        for x in range(columns):
            there = row_of(laid, (y, x)) - len(laid.tokens)
            if there // per == own:
                drawn[:, y, x] = weights[:, row, len(laid.others) + there % per]
    return drawn


def insist_same(packed: Packed, seen: LayerAttention) -> None:
    """The page shows what was captured, at its place, within what it promises."""
    assert isinstance(seen.layout, OnImage)
    weights, layout, laid = unpack(packed), seen.layout, packed.laid
    allowed = tolerance(packed.bits) * float(weights.max()) * 1.001 + 1e-9
    assert packed.error == seen.error < 1e-5
    for y in range(layout.grid[0]):
        for x in range(layout.grid[1]):
            if isinstance(layout, Pooled | Reading):
                break
            row = row_of(laid, (y, x))
            pixel = (y * layout.stride, x * layout.stride)
            expected = torch.stack([seen.map(pixel, head)[0] for head in seen.heads])
            drawn = map_of(packed, weights, row)
            assert np.abs(drawn - expected.numpy()).max() <= allowed
    for i, name in enumerate(laid.tokens):
        assert np.abs(weights[:, i] - seen.row(i)[0].numpy()).max() <= allowed, name


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_every_layer_of_every_family_is_shown_as_it_was_captured(name: str, size: Grid) -> None:
    config: BackboneConfig = PRESETS[name]
    model, image = preset_model(config), photo(3, *size)
    layers = attention_layers(model)
    found = view_attention(model, image, layers, EXACT)
    assert len(found) == len(layers)
    if not layers:
        return
    with torch.no_grad(), capture(model) as record:
        model(image[None])
    for packed, seen in zip(found, record.layers, strict=True):
        assert packed is not None
        insist_same(packed, seen)


def test_attention_pooling_has_one_row() -> None:
    model, image = tiny_model(backbone=tiny_config(pool="attention", registers=1)), photo(0)
    *_, pooled = view_attention(model, image, attention_layers(model), EXACT)
    assert pooled is not None
    assert pooled.laid.rows == "pool"
    with torch.no_grad(), capture(model, [-1]) as record:
        model(image[None])
    assert np.abs(unpack(pooled) - record.layers[0].weights[0].numpy()).max() < 1e-4


def transcriber() -> Model:
    config = model_config("vit_tiny_patch16_224", TranscribeConfig(alphabet=tuple("abc")))
    task = TranscribeConfig(alphabet=tuple("abc"), max_length=5, width=16, depth=2, heads=2)
    preprocess = config.preprocess.model_copy(update={"resize": Squash(size=(8, 12))})
    whole = ModelConfig(backbone=tiny_config(), task=task, preprocess=preprocess)
    return randomise(Model(whole), 5).eval()


def test_a_text_is_read_symbol_by_symbol() -> None:
    model, image = transcriber(), photo(2)
    written = write(model, image)
    assert written is not None
    assert len(written.read) == len(written.symbols) == written.ids.shape[1]
    assert written.read[1:] == written.symbols[:-1]
    layers = attention_layers(model)
    found = view_attention(model, image, layers, EXACT, written)
    with torch.no_grad(), capture(model) as record:
        model.task.decoder(written.ids, model(image[None]))  # pyright: ignore[reportCallIssue]
    for layer, packed, seen in zip(layers, found, record.layers, strict=True):
        assert packed is not None
        if "decoder" in layer.key:
            assert packed.laid.rows == "symbols"
            assert packed.shape == tuple(seen.weights.shape[1:])
            assert np.abs(unpack(packed) - seen.weights[0].numpy()).max() < 1e-4


def test_a_layer_that_does_not_fit_in_memory_goes_through_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, image = tiny_model(backbone=tiny_config(depth=3)), photo(0)
    whole = list(stream_attention(model, image, range(3)))
    monkeypatch.setattr(stream, "AT_ONCE", 10)
    parts = list(stream_attention(model, image, range(3)))
    for one, other in zip(whole, parts, strict=True):
        assert one.layer.index == other.layer.index
        torch.testing.assert_close(one.weights, other.weights)


def test_layers_that_are_left_out_are_none() -> None:
    model, image = tiny_model(backbone=tiny_config(depth=3)), photo(0)
    found = view_attention(model, image, attention_layers(model), Plan(8, FINEST, 2, 1))
    assert [one is None for one in found] == [True, True, False]


def test_one_image_through_all_methods() -> None:
    model, image = tiny_model(), photo(1)
    data = ListDataset([image], [2], ("bee", "ant", "cat"))
    sample = Sample("a.png", image, 2)
    methods = [one for one in METHODS if not one.baseline and not one.refuses(model)]
    view = look(model, data, sample, image, methods, 0, curves=True)
    assert view.answer.truth == "cat"
    relevance = [one for one in view.maps if one.key == "relevance"]
    assert [one.target for one in relevance] == ["ant", "cat"]
    assert len([one for one in view.maps if one.key == "rollout"]) == 1
    expected = Relevance().explain(model, image[None], [2])[0].detach().numpy()
    assert np.array_equal(relevance[1].cells, expected)
    deletion, insertion = relevance[0].curves
    assert deletion.shares[0] == 0
    assert deletion.shares[-1] == 1
    with torch.no_grad():
        score = float(model.task.probabilities(model(image[None]))[0, 0])  # pyright: ignore[reportCallIssue]
    assert deletion.values[0] == pytest.approx(score, abs=1e-5)
    assert insertion.values[-1] == pytest.approx(score, abs=1e-5)
    assert deletion.random_values[0] == pytest.approx(score, abs=1e-5)
    assert [one.name for one in view.norms][-1] == "output"


def test_blocks_cover_a_window() -> None:
    laid = Laid("places", "places", grid=(6, 6), window=(4, 4), block=3)
    assert laid.blocks == (ceil(4 / 3), ceil(4 / 3))
    assert laid.windows == (2, 2)
