"""The task: from features to objects in the pixels of the original image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tiny import BoxSet
from vitrail.errors import DataError
from vitrail.nn.boxes import to_cxcywh
from vitrail.nn.projector import LinearProjector
from vitrail.tasks import build_task
from vitrail.tasks.detect import Detect, DetectConfig
from vitrail.tasks.detectors import (
    C2fProjectorConfig,
    DeformableConfig,
    DenseConfig,
    EncoderConfig,
    LearnedConfig,
    LinearProjectorConfig,
    QueryDetector,
    QueryReadout,
    TokensReadout,
    TwoStageConfig,
)
from vitrail.types import Box, Boxes, Detection, Detections, Features

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "hidden": 32}
READOUTS = {
    "deformable": QueryReadout(
        attention=DeformableConfig(heads=2, points=2),
        queries=TwoStageConfig(count=6, groups=3),
        projector=C2fProjectorConfig(blocks=1),
        **SMALL,
    ),
    "dense": QueryReadout(
        attention=DenseConfig(heads=2),
        queries=TwoStageConfig(count=6),
        refinement="once",
        **SMALL,
    ),
    "two scales": QueryReadout(
        attention=DeformableConfig(heads=2, points=2),
        queries=TwoStageConfig(count=6, groups=2),
        projector=C2fProjectorConfig(scales=(2.0, 0.5)),
        **SMALL,
    ),
    "detr": QueryReadout(
        attention=DenseConfig(heads=2),
        queries=LearnedConfig(count=6),
        projector=LinearProjectorConfig(),
        encoder=EncoderConfig(depth=1, heads=2, hidden=32),
        **SMALL,
    ),
    "tokens": TokensReadout(),
}
CLASSES = ("cat", "dog", "owl")


def config(name: str, **changes: Any) -> DetectConfig:
    scoring = "softmax" if name in ("detr", "tokens") else "sigmoid"
    return DetectConfig(classes=CLASSES, readout=READOUTS[name], scoring=scoring, **changes)


def task(name: str, **changes: Any) -> Detect:
    torch.manual_seed(0)
    built = build_task(
        config(name, **changes), pooled_width=8, channels=(4, 8), strides=(4, 8), distilled=False
    )
    assert isinstance(built, Detect)
    return built


def features(rows: int = 8, columns: int = 12, mask: torch.Tensor | None = None) -> Features:
    generator = torch.Generator().manual_seed(1)
    maps = (
        torch.randn(2, 4, 2 * rows, 2 * columns, generator=generator),
        torch.randn(2, 8, rows, columns, generator=generator),
    )
    return Features(
        maps=maps,
        tokens=maps[1].flatten(2).transpose(1, 2),
        pooled=torch.zeros(2, 8),
        queries=torch.randn(2, 6, 8, generator=generator),
        pixel_mask=mask,
    )


TARGETS = [
    Boxes((Box((10, 20, 30, 60), 0), Box((0, 0, 90, 90), 1, crowd=True)), size=(100, 200)),
    Boxes((), size=(100, 200)),
]


@pytest.mark.parametrize("name", READOUTS)
def test_every_readout_learns_and_answers(name: str) -> None:
    own = task(name).train()
    losses = own.loss(own(features()), own.encode(TARGETS))
    assert losses.shape == (2,)
    losses.mean().backward()
    assert not [n for n, p in own.named_parameters() if p.grad is None]
    output = own.eval()(features())
    assert output.logits.shape == (2, 6, own.config.outputs)
    assert output.boxes.shape == (2, 6, 4)
    assert output.earlier == ()
    assert output.proposals is None
    first, second = own.postprocess(output, [(100, 200), (50, 60)])
    assert isinstance(first, Detection)
    assert isinstance(second, Detection)
    assert list(first.scores) == sorted(first.scores, reverse=True)
    assert set(first.labels) <= set(CLASSES)
    assert all(0 <= x <= 60 and 0 <= y <= 50 for box in second.boxes for x, y in (box[:2], box[2:]))


@pytest.mark.parametrize("name", READOUTS)
def test_an_image_alone_is_answered_as_in_a_batch(name: str) -> None:
    own, all_ = task(name).eval(), features()
    one = Features(
        maps=tuple(m[:1] for m in all_.maps),
        tokens=all_.tokens[:1],
        pooled=all_.pooled[:1],
        queries=None if all_.queries is None else all_.queries[:1],
    )
    torch.testing.assert_close(own(one).boxes, own(all_).boxes[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["deformable", "dense", "detr"])
def test_a_mask_that_hides_nothing_changes_nothing(name: str) -> None:
    own = task(name).eval()
    mask = torch.ones(2, 32, 48, dtype=torch.bool)
    for a, b in zip(own(features(mask=mask))[:2], own(features())[:2], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["deformable", "dense", "detr"])
def test_what_was_filled_up_is_not_looked_at(name: str) -> None:
    own = task(name).eval()
    assert isinstance(own.detector, QueryDetector)
    if name != "detr":  # convolutions look a cell beyond the edge
        own.detector.projector = LinearProjector((4, 8), 16)
    mask = torch.zeros(2, 32, 48, dtype=torch.bool)
    mask[:, :20, :28] = True
    seen = features(mask=mask)
    other = [m.clone() for m in seen.maps]
    other[1][:, :, 5:] += 3
    other[1][:, :, :, 7:] -= 2
    changed = Features(maps=tuple(other), tokens=seen.tokens, pooled=seen.pooled, pixel_mask=mask)
    torch.testing.assert_close(own(changed).boxes, own(seen).boxes)


def test_boxes_are_given_in_pixels_of_the_original() -> None:
    own = task("deformable")
    logits = torch.full((1, 2, 3), -9.0)
    logits[0, 1, 2] = 2.0
    corners = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1.2, 0.75]]])
    (found,) = own.postprocess(Detections(logits, to_cxcywh(corners)), [(100, 200)])
    assert isinstance(found, Detection)
    assert found.labels[0] == "owl"
    assert found.boxes[0] == pytest.approx((100, 50, 200, 75), abs=1e-3)
    assert found.scores[0] == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert found.queries[0] == 1


def test_the_surest_are_kept() -> None:
    own = task("deformable", max_detections=4)
    (found, _) = own.postprocess(own.eval()(features()), [(10, 10)] * 2)
    assert isinstance(found, Detection)
    assert len(found.boxes) == len(found.scores) == len(found.queries) == 4


def test_the_same_box_twice_can_be_left_out() -> None:
    logits = torch.tensor([[[2.0, -9, -9], [1.0, -9, -9], [0.0, -9, -9]]])
    corners = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9]]])
    output = Detections(logits, to_cxcywh(corners))
    kept: list[list[int]] = []
    for nms in (None, 0.7):
        (found,) = task("deformable", nms=nms, max_detections=3).postprocess(output, [(10, 10)])
        assert isinstance(found, Detection)
        kept.append(list(found.queries))
    assert kept == [[0, 1, 2], [0, 2]]


def test_crowds_and_boxes_without_area_are_not_learned() -> None:
    flat = Boxes((Box((5, 5, 5, 9), 1), Box((10, 20, 30, 60), 2)), size=(100, 200))
    own = task("deformable")
    truths = own.encode([TARGETS[0], flat])
    assert [t.labels.tolist() for t in truths] == [[0], [2]]
    torch.testing.assert_close(truths[1].boxes, torch.tensor([[0.1, 0.4, 0.1, 0.4]]))


def test_classes_are_matched_by_name() -> None:
    own = task("deformable")
    data = BoxSet(("owl", "cat"), [Boxes((Box((1, 1, 5, 5), 0), Box((2, 2, 6, 6), 1)))])
    (target,) = own.adapt(data)
    assert isinstance(target, Boxes)
    assert [box.label for box in target.items] == [2, 0]
    with pytest.raises(DataError, match=r"class 'Cat'.*did you mean 'cat'"):
        own.adapt(BoxSet(("Cat",), [Boxes(())]))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": ("a", "a")}, "must differ; twice: a"),
        ({"classes": ()}, "at least 1 item"),
        ({"category_ids": (1, 2)}, "2 different numbers for 3 classes"),
        ({"category_ids": (1, 2, 2)}, "2 different numbers for 3 classes"),
        ({"readout": {"kind": "queries", "width": 20, "heads": 8}}, "not a multiple of heads 8"),
        (
            {"readout": {"kind": "queries", "queries": {"kind": "learned"}}},
            "do not know where to look",
        ),
        (
            {"readout": {"attention": {"kind": "dense"}, "projector": {"scales": [2, 1]}}},
            "Unable to extract tag|read one map",
        ),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DetectConfig.model_validate({"classes": CLASSES} | changes)
