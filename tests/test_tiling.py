"""Tiles say together what the whole image would, without seams."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmenter import SIZE, tiny_segmenter
from tiny import photo, tiny_config
from vitrail.backbones.backbone import Backbone
from vitrail.data.preprocess import Preprocess
from vitrail.data.tiles import Tiles, Windows
from vitrail.masks import decode
from vitrail.model import Model, ModelConfig
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.segmenters import LinearReadout, Segmenter
from vitrail.tiling import tiled, tiled_answers
from vitrail.types import Batch, Features, Grid, MaskQueries, PixelLogits, Segmentation

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Local(Backbone):
    """Cells of 4 x 4 pixels, each of which sees its neighbours alone."""

    channels, strides, pooled_width = (4,), (4,), 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.seen: list[Grid] = []
        self.most = 0

    def forward(self, images: Tensor) -> Features:
        self.most = max(self.most, len(images))
        self.seen.append((images.shape[2], images.shape[3]))
        x = self.conv(F.avg_pool2d(images, 4)).relu()
        tokens = x.flatten(2).mT
        return Features((x,), tokens, tokens.mean(1))

    def layers(self) -> list[list[nn.Module]]:
        return [[self.conv]]


class Place(Segmenter):
    """What it says depends on the place in the tile alone: the worst case for seams."""

    stride = 1

    def forward(self, features: Features) -> PixelLogits:
        assert features.images is not None
        count, _, height, width = features.images.shape
        line = torch.linspace(0, 5, width)
        return PixelLogits(line.expand(count, 1, height, width))


class Votes(Segmenter):
    """Two sure queries: where the image is red, and where it is green."""

    stride, matched = 1, True

    def forward(self, features: Features) -> MaskQueries:
        assert features.images is not None
        logits = torch.tensor([[9.0, -9, -9], [-9.0, 9, -9]]).expand(len(features.images), 2, 3)
        return MaskQueries(logits, features.images[:, :2] * 20 - 10)


def model_of(
    rule: Tiles | Windows, classes: Sequence[str] = ("a",), segmenter: Segmenter | None = None
) -> tuple[Model, Local]:
    config = ModelConfig(
        backbone=tiny_config(),
        task=SegmentConfig(classes=tuple(classes), readout=LinearReadout()),
        preprocess=Preprocess(resize=rule, mean=BLACK, std=WHITE),
    )
    model, backbone = Model(config).eval(), Local()
    model.backbone = backbone
    assert isinstance(model.task, Segment)
    fresh = Segment(config.task, backbone.channels, backbone.strides)
    model.task = fresh
    torch.manual_seed(1)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter, std=4)
    if segmenter is not None:
        fresh.segmenter = segmenter
    return model.eval(), backbone


def noise(height: int, width: int) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))


def whole(model: Model, image: Tensor) -> Tensor:
    with torch.inference_mode():
        logits = model(image[None]).logits
    return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)


def test_tiles_of_a_large_image_say_what_the_whole_would() -> None:
    rule = Tiles(size=(512, 512))
    model, backbone = model_of(rule)
    image = noise(125, 188).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :, :3000]
    found = tiled(model, image, rule, batch=3)
    assert found.shape == (1, 2000, 3000)
    assert backbone.most == 3
    assert set(backbone.seen) == {(512, 512)}
    wanted = whole(model, image)
    assert wanted.std() > 0.05
    assert (found - wanted).abs().max() < 1e-4
    # Steps across the borders of tiles are as large as elsewhere.
    tops, lefts = rule.starts(2000, 3000)
    steps = found.diff(dim=2).abs().mean((0, 1)), found.diff(dim=1).abs().mean((0, 2))
    for line, starts in zip(steps, (lefts, tops), strict=True):
        for seam in (*starts[1:], *(start + 512 for start in starts[:-1])):
            # Steps within a block of the image and between two differ: like is held to like.
            assert line[seam - 1] <= 1.3 * line[(seam - 1) % 16 :: 16].mean() + 1e-5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
def test_blending_hides_what_depends_on_the_place_in_the_tile(overlap: float) -> None:
    rule = Tiles(size=(64, 64), overlap=overlap)
    model, _ = model_of(rule, segmenter=Place())
    found = tiled(model, noise(70, 300), rule)[0]
    assert found.min() >= -1e-5
    assert found.max() <= 5 + 1e-5
    steepest = found.diff(dim=1).abs().max()
    step = int(np.diff(rule.starts(70, 300)[1]).max())
    fades = min(64 - step, 32) / 2
    apart = 5 * step / 63
    assert steepest < 1.1 * apart * math.pi / 2 / fades + 0.1
    assert steepest < apart / 2 or overlap == 0
    assert found.diff(dim=0).abs().max() < 1e-5


def batch_of(model: Model, images: Sequence[Tensor]) -> Batch:
    prepared = [model.config.preprocess.prepare(image) for image in images]
    sizes = tuple((image.shape[1], image.shape[2]) for image in images)
    extents = tuple(model.config.preprocess.resize.resized(*size) for size in sizes)
    names = tuple(map(str, range(len(images))))
    filled = () if extents[0] == prepared[0].shape[1:] else extents
    nothing = (None,) * len(images)
    return Batch(names, torch.stack(prepared), nothing, sizes=sizes, extents=filled)


def halves(height: int, width: int) -> Tensor:
    """Red on the left, green below on the right, black above."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    image[0, :, : width // 2] = 255
    image[1, height // 2 :, width // 2 :] = 255
    return image


@pytest.mark.parametrize("size", [(40, 60), (64, 64), (30, 200), (200, 130)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_answers_lie_on_the_original(size: Grid, scale: float) -> None:
    model, _ = model_of(Tiles(size=(64, 64), scale=scale), ("red", "green"), Votes())
    image = halves(*size)
    answers = tiled_answers(model, batch_of(model, [image, image]))
    for answer in answers:
        assert isinstance(answer, Segmentation)
        assert answer.size == size
        masks = {region.label: decode(region.rle, size) for region in answer.regions}
        for channel, name in enumerate(("red", "green")):
            wrong = masks[name] != (image[channel] > 0).numpy()
            assert wrong.mean() <= (0 if scale == 1 else 0.06)


@pytest.mark.parametrize("size", [(40, 60), (64, 64), (30, 200), (200, 130)])
def test_windows_lie_on_the_original(size: Grid) -> None:
    model, backbone = model_of(Windows(side=32), ("red", "green"), Votes())
    image = halves(*size)
    (answer,) = tiled_answers(model, batch_of(model, [image]))
    assert isinstance(answer, Segmentation)
    assert set(backbone.seen) == {(32, 32)}
    masks = {region.label: decode(region.rle, size) for region in answer.regions}
    for channel, name in enumerate(("red", "green")):
        assert (masks[name] != (image[channel] > 0).numpy()).mean() <= 0.06


def test_windows_count_alike() -> None:
    rule = Windows(side=64)
    model, _ = model_of(rule, segmenter=Place())
    found = tiled(model, noise(64, 160), rule)[0]
    line = torch.linspace(0, 5, 64)
    starts = rule.starts(64, 160)[1]
    wanted = [[line[x - s] for s in starts if 0 <= x - s < 64] for x in range(160)]
    mean = torch.stack([torch.stack(values).mean() for values in wanted])
    assert (found - mean).abs().max() < 1e-5


def test_filled_parts_are_masked_in_their_tiles() -> None:
    model, _ = model_of(Tiles(size=(64, 64)))
    image = noise(30, 200)
    rule = Tiles(size=(64, 64))
    prepared = model.config.preprocess.prepare(image)
    mask = torch.zeros((64, 200), dtype=torch.bool)
    mask[:30] = True
    spoiled = prepared.clone()
    spoiled[:, 30:] = 255
    found = tiled(model, spoiled, rule, mask=mask)
    assert torch.equal(found, tiled(model, prepared, rule, mask=mask))
    assert not torch.equal(found, tiled(model, spoiled, rule))


def test_votes_for_one_class_are_as_sure_in_tiles_as_in_a_whole_image() -> None:
    """An image of one tile takes another way than one of two tiles that show the same."""
    model = tiny_segmenter("matched queries", classes=("road",), threshold=0.2)
    rule = Tiles(size=SIZE, overlap=0.25)
    config = model.config.model_copy(
        update={"preprocess": model.config.preprocess.model_copy(update={"resize": rule})}
    )
    tiles = Model(config).eval()
    tiles.load_state_dict(model.state_dict())
    task, image = tiles.task, photo(0, *SIZE)
    assert isinstance(task, Segment)
    with torch.inference_mode():
        whole = task.postprocess(tiles(image[None]), [SIZE], [SIZE])[0]
        found = task.of_votes(tiled(tiles, image, rule))
    assert isinstance(whole, Segmentation)
    assert [r.rle for r in found.regions] == [r.rle for r in whole.regions]
    assert found.confidence is not None
    assert found.confidence == whole.confidence
