"""Where the query of each object looked: rows of the cross-attention, laid on the image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector import READOUTS, SIZE, tiny_detector
from tiny import photo, tiny_model
from vitrail.data.preprocess import Fit
from vitrail.errors import ExplainError
from vitrail.explain.capture import capture
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import Searchers, Searching, Whole
from vitrail.explain.objects import alone, find_objects, searching_layers
from vitrail.model import Model
from vitrail.nn.deformable import DeformableAttention
from vitrail.nn.probe import SampledWeights
from vitrail.nn.query_decoder import TwoStageQueries
from vitrail.predict import predict
from vitrail.tasks.detect import Detect
from vitrail.tasks.detectors import QueryDetector
from vitrail.types import Batch, Sample


def sample(height: int = 40, width: int = 60, seed: int = 0) -> Sample:
    return Sample(f"{seed}.png", photo(seed, height, width), None)


def query_detector(model: Model) -> QueryDetector:
    assert isinstance(model.task, Detect)
    assert isinstance(model.task.detector, QueryDetector)
    return model.task.detector


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("readout", READOUTS)
def test_maps_are_rows_of_the_queries_that_found_the_objects(readout: str, *, fit: bool) -> None:
    model = tiny_detector(readout, fit=fit)
    batch = alone(model.config.preprocess, sample(37, 61))
    (found,) = find_objects(model, batch)
    (row,) = predict_one(model)
    assert found.found == row
    layer = searching_layers(model)[-1]
    mask = batch.extents[0] if batch.extents else SIZE
    pixels = torch.zeros(1, *batch.images.shape[2:], dtype=torch.bool)
    pixels[:, : mask[0], : mask[1]] = True
    with torch.no_grad(), capture(model, [layer.index]) as record:
        model(batch.images, pixels if batch.extents else None)
    seen = record.layers[0]
    for number, query in enumerate(found.found.queries):
        named = query if readout != "tokens" else f"query {query + 1}"
        torch.testing.assert_close(found.maps[number], seen.map(named)[0])
    torch.testing.assert_close(
        found.maps.sum(dim=(1, 2)) + found.elsewhere, torch.ones(len(found.maps))
    )
    assert found.error < 1e-5
    assert found.extent == mask


def predict_one(model: Model) -> list[object]:
    from detector import BoxList

    rows = predict(model, BoxList([sample(37, 61).image], [None]), workers=None)
    return [row.prediction for row in rows]


@pytest.mark.parametrize("readout", READOUTS)
def test_every_layer_has_its_place(readout: str) -> None:
    layers = attention_layers(tiny_detector(readout))
    assert [layer.index for layer in layers] == list(range(len(layers)))
    kinds = [type(layer.place.at((33, 50))) for layer in layers if layer.key.count("_") > 1]
    encoder = [Whole] if readout == "dense" else []
    assert kinds == ([] if readout == "tokens" else encoder + [Searchers, Searching] * 2)


def test_cells_of_all_maps_are_shared_out_by_area() -> None:
    layout = Searching((4, 6), 2, ((4, 6), (1, 2)))
    weights = torch.zeros(1, 26)
    weights[0, 7], weights[0, 24] = 0.25, 0.75  # a fine cell, and the left half of the coarse map
    laid = layout.lay(0, weights)[0]
    assert laid.sum() == 1
    assert laid[1, 1] == pytest.approx(0.25 + 0.75 / 12)
    assert laid[3, 2] == pytest.approx(0.75 / 12)
    assert laid[:, 3:].sum() == 0


def test_a_map_that_is_not_a_multiple_keeps_its_weight() -> None:
    laid = Searching((3, 5), 4, ((2, 3),)).lay(0, torch.full((2, 6), 1 / 6))
    torch.testing.assert_close(laid, torch.full((2, 3, 5), 1 / 15))


def plant(model: Model) -> None:
    """Boxes stay where the first cells are, moved by half their size; samples lie at the centre."""
    detector = query_detector(model)
    assert isinstance(detector.queries, TwoStageQueries)
    heads = [detector.locate, *(proposer.locate for proposer in detector.queries.proposers)]
    with torch.no_grad():
        for head in heads:
            last = head.layers[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.zero_()
        detector.queries.shift.copy_(torch.tensor([0.5, -0.5, 0.0, 0.0]))
        for layer in detector.decoder.layers:
            attention = layer.cross_attn
            assert isinstance(attention, DeformableAttention)
            attention.offsets.weight.zero_()
            attention.offsets.bias.zero_()


@pytest.mark.parametrize("readout", ["deformable", "two scales"])
@pytest.mark.parametrize("fit", [False, True])
def test_samples_planted_at_the_centre_of_a_box_lie_there(readout: str, *, fit: bool) -> None:
    model = tiny_detector(readout, fit=fit)
    plant(model)
    one = sample(40, 72)
    batch = alone(model.config.preprocess, one)
    if fit:
        assert isinstance(model.config.preprocess.resize, Fit)
        assert batch.images.shape[2:] != batch.extents[0]
    (found,) = find_objects(model, batch)
    checked = 0
    for number, (left, top, right, bottom) in enumerate(found.found.boxes):
        if found.elsewhere[number] > 1e-4:
            continue  # the centre is within half a cell of the edge
        rows, columns = found.extent
        y = (top + bottom) / 2 / 40 * rows
        x = (left + right) / 2 / 72 * columns
        heat = found.maps[number]
        down = (torch.arange(heat.shape[0]) + 0.5) * found.stride
        along = (torch.arange(heat.shape[1]) + 0.5) * found.stride
        # The edge of what is filled up is known to the model by whole cells.
        away = {"deformable": 0.5 * fit, "two scales": 2}[readout] * found.stride + 0.01
        assert float(heat.sum(1) @ down) == pytest.approx(y, abs=away)
        assert float(heat.sum(0) @ along) == pytest.approx(x, abs=away)
        peak = int(found.on_image(number).argmax())
        assert abs(peak // columns - y) <= 2 * found.stride
        assert abs(peak % columns - x) <= 2 * found.stride
        checked += 1
    assert checked


def test_rows_of_samples_are_what_a_map_shows() -> None:
    weights = SampledWeights(
        places=torch.tensor([0.5, 0.5]).expand(1, 1, 1, 1, 1, 2),
        shares=torch.ones(1, 1, 1, 1, 1),
        grids=((2, 4),),
    )
    laid = Searching((2, 4), 8, ((2, 4),)).lay(0, weights.rows()[0, 0, 0])
    assert laid.tolist() == [[0, 0.25, 0.25, 0], [0, 0.25, 0.25, 0]]


def test_layers_and_heads_are_averaged() -> None:
    model = tiny_detector()
    batch = alone(model.config.preprocess, sample())
    both, first, second = (
        find_objects(model, batch, layers=layers)[0] for layers in ([0, 1], [0], [-1])
    )
    torch.testing.assert_close(both.maps, (first.maps + second.maps) / 2)
    heads = [find_objects(model, batch, heads=[head])[0].maps for head in range(2)]
    torch.testing.assert_close(second.maps, (heads[0] + heads[1]) / 2)


def test_images_of_a_batch_are_their_own() -> None:
    model = tiny_detector(fit=True)
    samples = [sample(40, 60, seed) for seed in range(2)]
    singles = [alone(model.config.preprocess, one) for one in samples]
    batch = Batch(
        ("0.png", "1.png"),
        torch.cat([one.images for one in singles]),
        (None, None),
        sizes=tuple(one.sizes[0] for one in singles),
        extents=tuple(one.extents[0] for one in singles),
    )
    for together, single in zip(find_objects(model, batch), singles, strict=True):
        (apart,) = find_objects(model, single)
        torch.testing.assert_close(together.maps, apart.maps, atol=1e-5, rtol=1e-4)


def test_who_finds_nothing_is_told() -> None:
    batch = alone(tiny_model().config.preprocess, sample(8, 12))
    with pytest.raises(ExplainError, match="only a model that detects"):
        find_objects(tiny_model(), batch)
    model = tiny_detector()
    batch = alone(model.config.preprocess, sample())
    with pytest.raises(ExplainError, match="no layer was asked for"):
        find_objects(model, batch, layers=[])
    with pytest.raises(ExplainError, match="2 layers of attention"):
        find_objects(model, batch, layers=[2])
