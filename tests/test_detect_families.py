"""A detector on every backbone of the union, and out of the program again."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from vitrail.model import Model
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import (
    C2fProjectorConfig,
    DeformableConfig,
    DenseConfig,
    EncoderConfig,
    LearnedConfig,
    LinearProjectorConfig,
    QueryReadout,
    TwoStageConfig,
)
from vitrail.types import Box, Boxes, Detection

DEFORMABLE = QueryReadout(
    projector=C2fProjectorConfig(blocks=1),
    queries=TwoStageConfig(count=5, groups=2),
    attention=DeformableConfig(heads=2, points=2),
    width=16,
    depth=2,
    heads=2,
    hidden=32,
)
DETR = QueryReadout(
    projector=LinearProjectorConfig(),
    encoder=EncoderConfig(depth=1, heads=2, hidden=32),
    queries=LearnedConfig(count=5),
    attention=DenseConfig(heads=2),
    width=16,
    depth=2,
    heads=2,
    hidden=32,
)


def detector(name: str, readout: QueryReadout = DEFORMABLE) -> Model:
    torch.manual_seed(0)
    scoring = "softmax" if readout is DETR else "sigmoid"
    task = DetectConfig(classes=("cat", "dog"), readout=readout, scoring=scoring)
    return Model(preset_model(PRESETS[name]).config.model_copy(update={"task": task}))


def pictures(model: Model, count: int = 2) -> torch.Tensor:
    size = model.config.backbone.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", PRESETS)
def test_every_backbone_finds_objects(name: str) -> None:
    model = detector(name)
    images = pictures(model)
    size = (images.shape[2], images.shape[3])
    target = Boxes((Box((1.0, 1.0, size[1] / 2, size[0] / 2), 1),), size)
    losses = model.task.loss(model.train()(images), model.task.encode([target, Boxes((), size)]))
    losses.mean().backward()
    stuck = [n for n, p in model.named_parameters() if n.startswith("task.") and p.grad is None]
    assert not stuck
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
    model.eval()
    with torch.inference_mode():
        both, one = model(images), model(images[:1])
        torch.testing.assert_close(one.boxes, both.boxes[:1], atol=1e-4, rtol=1e-4)
        answers = model.task.postprocess(both, [(30, 40), (50, 60)])
    assert all(isinstance(answer, Detection) and answer.boxes for answer in answers)


@pytest.mark.parametrize("readout", [DEFORMABLE, DETR], ids=["deformable", "detr"])
def test_a_detector_leaves_with_batches_of_any_size(readout: QueryReadout) -> None:
    """`torch.export` with a dynamic batch; the program gives the same numbers."""
    model = detector(next(iter(PRESETS)), readout).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model, (pictures(model),), dynamic_shapes={"images": {0: batch}}
    ).module()
    with torch.no_grad():
        for count in (1, 2, 5):
            images = pictures(model, count)
            found, expected = program(images), model(images)
            torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-5, rtol=1e-5)
