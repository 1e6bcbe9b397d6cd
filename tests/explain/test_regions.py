"""Which places of the image made each region."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segmenter import READOUTS, SIZE, tiny_segmenter
from vitrail import masks
from vitrail.errors import ExplainError
from vitrail.explain.conservative import Conservative, evidence
from vitrail.explain.gradcam import GradCam
from vitrail.explain.gradient_rollout import GradientRollout
from vitrail.explain.regions import find_regions, reading_layers
from vitrail.explain.target import RegionTarget, logit
from vitrail.model import Model, ModelConfig
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.segmenters import MatchedQueriesReadout

ANSWERS = {"matched queries": "instance", "eomt": "instance"}
WITHOUT = ("linear", "linear pixels")
"""Heads without queries."""


def picture(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=generator)


def segmenter(readout: str) -> Model:
    return tiny_segmenter(readout, answer=ANSWERS.get(readout, "semantic"))


@pytest.mark.parametrize("readout", READOUTS)
def test_every_head_tells_what_its_regions_rest_on(readout: str) -> None:
    model = segmenter(readout)
    found = find_regions(model, picture())
    assert found.targets
    assert len(found.targets) == len(found.found.regions)
    for region, target in zip(found.found.regions, found.targets, strict=True):
        assert torch.equal(target.mask, torch.from_numpy(masks.decode(region.rle, SIZE)))
        assert float(target.shares.sum()) == pytest.approx(1, abs=1e-5)
    if readout in WITHOUT:
        assert found.attention is None
        assert not reading_layers(model)
        return
    assert found.attention is not None
    assert found.attention.error < 1e-5
    total = found.attention.maps.sum(dim=(1, 2)) + found.attention.elsewhere
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [Conservative(), GradientRollout(), GradCam()], ids=str)
@pytest.mark.parametrize("readout", READOUTS)
def test_methods_explain_regions(readout: str, method: Conservative) -> None:
    model = segmenter(readout)
    if method.refuses(model):
        pytest.skip(method.refuses(model))
    target = find_regions(model, picture()).targets[0]
    maps = method.explain(model, picture()[None], [target])
    assert maps.shape[0] == 1
    assert bool((maps >= 0).all())
    assert bool(torch.isfinite(maps).all())


def test_the_logit_of_a_region_is_the_mean_over_its_pixels() -> None:
    model = segmenter("linear")
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[4:20, 8:30] = True
    shares = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        output = model(picture()[None])
    found = logit(output, [RegionTarget(mask, shares)], model.task)
    pixels = torch.nn.functional.interpolate(output.logits, size=SIZE, mode="bilinear")
    assert float(found) == pytest.approx(float(pixels[0, 1][mask].mean()), abs=1e-5)


@pytest.mark.parametrize("readout", ["linear", "class queries"])
def test_what_stands_out_speaks_most(readout: str) -> None:
    """A bright patch on grey; only a head with details of the image has such to show."""
    model = segmenter(readout)
    image = torch.full((3, *SIZE), 127, dtype=torch.uint8)
    image[:, 8:12, 12:16] = 250
    seen = evidence(model, image[None], [find_regions(model, image).targets[0]])
    row, column = divmod(int(seen.tokens[0].abs().argmax()), seen.tokens.shape[2])
    stride = SIZE[0] // seen.tokens.shape[1]
    assert 8 <= row * stride < 12
    assert 12 <= column * stride < 16
    assert bool(seen.details.any()) == (readout == "class queries")


def test_a_query_that_reads_the_embedding_is_shown_where_it_looked() -> None:
    """Fresh queries look around their own boxes, whatever the stride of the map that they read."""
    wanted = READOUTS["matched queries"]
    assert isinstance(wanted, MatchedQueriesReadout)
    base = segmenter("matched queries").config
    for memory, stride in ((None, 4), (2, 2), (16, 2)):
        task = SegmentConfig(
            classes=("ant",),
            answer="instance",
            readout=wanted.model_copy(update={"memory": memory}),
        )
        model = Model(ModelConfig(backbone=base.backbone, task=task, preprocess=base.preprocess))
        model.eval()
        assert isinstance(model.task, Segment)
        with torch.no_grad():
            output = model(picture()[None])
        found = find_regions(model, picture())
        assert found.attention is not None
        assert found.attention.stride == stride
        inner = 0
        for region, map_ in zip(found.found.regions, found.attention.maps, strict=True):
            x, y, width, height = (
                output.boxes[0, region.query] * torch.tensor([48, 32] * 2)
            ).tolist()
            if not (width < x < 48 - width and height < y < 32 - height):
                continue
            inner += 1
            rows, columns = map_.shape
            share = map_ / map_.sum()
            at_y = float((share.sum(1) * (torch.arange(rows) + 0.5)).sum()) * stride
            at_x = float((share.sum(0) * (torch.arange(columns) + 0.5)).sum()) * stride
            assert abs(at_x - x) < stride
            assert abs(at_y - y) < stride
        assert inner


def test_where_nothing_is_told_the_nearest_is_shown() -> None:
    model = segmenter("class queries")
    assert isinstance(model.task, Segment)
    with torch.no_grad():
        last = model.task.segmenter.get_submodule("embed.layers.1")
        assert isinstance(last, nn.Linear)
        last.bias[-1] = -50.0
    found = find_regions(model, picture())
    assert found.nearest
    assert len(found.found.regions) == 1


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ExplainError, match="unknown class 'cat'"):
        find_regions(segmenter("linear"), picture(), about="cat")
    with pytest.raises(ExplainError, match="no layer was asked for"):
        find_regions(segmenter("class queries"), picture(), layers=())
