"""Maps of regions against models whose truth is known by their construction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from segmenter import SIZE as LARGE
from segmenter import tiny_segmenter
from spotted import SIZE, STRIDE, spot_image, spot_model
from tiny import photo, randomise, tiny_config
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.explain.conservative import Conservative, evidence
from vitrail.explain.faithfulness.localisation import chance, energy
from vitrail.explain.gradcam import GradCam
from vitrail.explain.gradient_rollout import GradientRollout
from vitrail.explain.method import Method
from vitrail.explain.occlusion import Occlusion
from vitrail.explain.regions import find_regions
from vitrail.explain.relevance import Relevance
from vitrail.explain.target import RegionTarget, log_odds, logit, probability
from vitrail.model import Model, ModelConfig
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.segmenters import ClassQuerySegmenter, LinearReadout, LinearSegmenter
from vitrail.types import PixelLogits

GRID = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
METHODS: tuple[Method, ...] = (Conservative(), GradientRollout(), Relevance(), GradCam())


def region(rows: slice, columns: slice) -> RegionTarget:
    """Some cells, asked of the first class."""
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[
        rows.start * STRIDE : rows.stop * STRIDE, columns.start * STRIDE : columns.stop * STRIDE
    ] = True
    return RegionTarget(mask, torch.tensor([1.0, 0.0]))


def with_linear_head(model: Model) -> Model:
    """A linear head that reads the first channel of each cell instead of the task."""
    task = SegmentConfig(classes=("bright", "dark"), readout=LinearReadout())
    config = ModelConfig(
        backbone=model.config.backbone,
        task=task,
        preprocess=Preprocess(resize=CenterCrop(size=SIZE, crop_pct=1.0)),
    )
    made = Model(config).eval()
    made.backbone = model.backbone
    assert isinstance(made.task, Segment)
    head = made.task.segmenter
    assert isinstance(head, LinearSegmenter)
    with torch.no_grad():
        head.head.weight.zero_()
        head.head.weight[0, 0], head.head.weight[1, 0] = 1, -1
    return made


def cellwise() -> Model:
    """Each token is a linear map of its own patch, and a logit one of its own token."""
    config = tiny_config(image_size=SIZE, depth=1, final_norm=False, pool="mean", class_token=False)
    model = randomise(
        Model(
            ModelConfig(
                backbone=config,
                task=SegmentConfig(classes=("bright", "dark"), readout=LinearReadout()),
                preprocess=Preprocess(resize=CenterCrop(size=SIZE, crop_pct=1.0)),
            )
        )
    )
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "blocks" in name:
                parameter.zero_()
    return with_linear_head(model)


def erased(image: torch.Tensor, cell: int) -> torch.Tensor:
    """One cell in the image's mean colour."""
    y, x = (at * STRIDE for at in divmod(cell, GRID[1]))
    image = image.float()
    mean = image.mean(dim=(1, 2), keepdim=True)
    image[:, y : y + STRIDE, x : x + STRIDE] = mean
    return image


def drops(model: Model, image: torch.Tensor, target: RegionTarget) -> torch.Tensor:
    """How far the region's logit falls when a cell is erased, cell by cell."""
    batch = torch.stack([image.float(), *(erased(image, i) for i in range(GRID[0] * GRID[1]))])
    with torch.no_grad():
        values = logit(model(batch), [target] * len(batch), model.task)
    return (values[0] - values[1:]).view(GRID)


def test_evidence_is_what_the_logit_loses_where_all_is_linear() -> None:
    model, image = cellwise(), photo(3, *SIZE)
    target = region(slice(0, 2), slice(1, 3))
    found = evidence(model, image[None], [target])
    truth = drops(model, image, target)
    torch.testing.assert_close(found.tokens[0], truth, atol=1e-4, rtol=1e-3)
    assert not found.details.any()
    # Logits are smoothed between cells: a region rests on its own cells and those around them.
    beyond = truth.clone()
    beyond[0:3, 0:4] = 0
    assert float(beyond.abs().max()) < 1e-4
    heat = found.tokens[0].clamp_min(0)
    inside = energy(heat, target.mask, (STRIDE, STRIDE))
    assert inside > 2 * chance(target.mask)


@pytest.mark.parametrize("place", [(0, 5), (3, 4)])
@pytest.mark.parametrize("method", METHODS[:-1], ids=lambda method: method.key)
def test_a_place_outside_of_a_region_that_made_it_is_named(
    method: Method, place: tuple[int, int]
) -> None:
    """Every token knows the mean of all, and only one patch is bright, outside.

    Grad-CAM sees the last cells, which know the spot already: it cannot tell.
    """
    model = with_linear_head(spot_model("mean"))
    image, target = spot_image(*place), region(slice(0, 2), slice(0, 2))
    truth = drops(model, image, target)
    assert divmod(int(truth.argmax()), GRID[1]) == place
    heat = method.explain(model, image[None], [target])[0]
    # Attention handed on what was there: but for the region's own cells none had more of it.
    outside = heat.clone()
    outside[0:3, 0:3] = 0
    assert divmod(int(outside.argmax()), GRID[1]) == place


def test_erasing_named_cells_costs_more_than_random_ones() -> None:
    model = cellwise()
    gaps: list[float] = []
    generator = torch.Generator().manual_seed(0)
    for seed in range(8):
        image, target = photo(seed, *SIZE), region(slice(1, 3), slice(2, 5))
        heat = Conservative().explain(model, image[None], [target])[0].flatten()
        chosen = torch.randperm(len(heat), generator=generator)[:4].tolist()
        lost: list[float] = []
        for cells in (heat.topk(4).indices.tolist(), chosen):
            changed = image
            for cell in cells:
                y, x = (at * STRIDE for at in divmod(cell, GRID[1]))
                changed = changed.clone()
                blank = image.float().mean(dim=(1, 2), keepdim=True).round().to(torch.uint8)
                changed[:, y : y + STRIDE, x : x + STRIDE] = blank
            with torch.no_grad():
                pair = logit(model(torch.stack([image, changed])), [target] * 2, model.task)
            lost.append(float(pair[0] - pair[1]))
        gaps.append(lost[0] - lost[1])
    assert min(gaps) > 0


def test_occlusion_of_a_region_is_the_drop_of_its_logit() -> None:
    model, image, target = cellwise(), photo(5, *SIZE), region(slice(1, 2), slice(1, 4))
    slow = Occlusion(window=STRIDE, stride=STRIDE, score="logit")
    # The cover is rounded to whole colours.
    found = slow.drops(model, image[None], [target])[0]
    torch.testing.assert_close(found, drops(model, image, target), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("past", [True, False])
def test_what_came_past_the_tokens_is_told_apart(*, past: bool) -> None:
    """Convolutions of the image alone, or tokens alone."""
    model, image = tiny_segmenter("class queries"), photo(2, *LARGE)
    assert isinstance(model.task, Segment)
    head = model.task.segmenter
    assert isinstance(head, ClassQuerySegmenter)
    assert head.pixels.skip is not None
    cut = [head.project, head.pixels.narrow[0]] if past else [head.pixels.skip.blocks]
    with torch.no_grad():
        for part in cut:
            for parameter in part.parameters():
                parameter.zero_()
    target = RegionTarget(torch.ones(LARGE, dtype=torch.bool), torch.tensor([1.0, 0.0]))
    found = evidence(model, image[None], [target])
    assert bool(found.tokens.any()) == (not past)
    assert bool(found.details.any()) == past


def test_odds_and_probability_of_a_region() -> None:
    """The background counts among the others; its logit is 0."""
    model = cellwise()
    target = region(slice(0, GRID[0]), slice(0, GRID[1]))
    even = PixelLogits(torch.tensor([0.7, -0.2]).view(1, 2, 1, 1).expand(1, 2, *GRID).clone())
    p = torch.tensor([0.0, 0.7, -0.2]).softmax(0)[1]
    assert float(probability(even, [target], model.task)) == pytest.approx(float(p))
    expected = float((p / (1 - p)).log())
    assert float(log_odds(even, [target], model.task)) == pytest.approx(expected, abs=1e-5)


def test_a_region_of_several_queries_is_asked_of_all_that_voted() -> None:
    model, image = tiny_segmenter("matched queries", background=False), photo(4, *LARGE)
    found = find_regions(model, image)
    assert isinstance(model.task, Segment)
    for own, target in zip(found.found.regions, found.targets, strict=True):
        assert own.query is None
        assert int((target.shares > 0).sum()) > 1
        with torch.no_grad():
            output = model(image[None])
            alone = [
                float(logit(output, [replace(target, shares=row)], model.task))
                for row in torch.eye(len(target.shares))
            ]
            both = float(logit(output, [target], model.task))
        assert both == pytest.approx(float(target.shares @ torch.tensor(alone)), abs=1e-4)


def test_classes_of_a_region_and_of_an_image_are_not_mixed_up() -> None:
    model = cellwise()
    with pytest.raises(AssertionError, match="asked of regions"):
        Conservative().explain(model, photo(0, *SIZE)[None], [1])
    target = region(slice(0, 1), slice(0, 1))
    with pytest.raises(AssertionError, match="asked of classes"):
        Conservative().explain(spot_model("mean"), photo(0, *SIZE)[None], [target])


def test_nothing_is_left_behind() -> None:
    model, image = tiny_segmenter("matched queries", answer="instance"), photo(4, *LARGE)
    with torch.no_grad():
        before = model(image[None])
        target = find_regions(model, image).targets[0]
    for method in METHODS:
        method.explain(model, image[None], [target])
    with torch.no_grad():
        after = model(image[None])
    assert torch.equal(before.masks, after.masks)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks for m in model.modules() if isinstance(m, nn.Module))
