"""The task: what contradicts itself, what data fit, and answers in pixels of the image."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from segmenter import READOUTS, SIZE, SegmentList, segments, tiny_segmenter
from tiny import ListDataset, photo, tiny_config
from vitrail.config import build
from vitrail.errors import ConfigError, DataError
from vitrail.masks import area, decode
from vitrail.model import Model
from vitrail.tasks import TaskConfig, build_task
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.segment_loss import PixelLossConfig
from vitrail.tasks.segmenters import SegmentReadout
from vitrail.types import MaskQueries, PixelLogits, Segmentation, Segments, Target

KINDS = {readout.kind for readout in READOUTS.values()}


def segment(model: Model) -> Segment:
    assert isinstance(model.task, Segment)
    return model.task


def answers(task: Segment, output: Any, *size: tuple[int, int]) -> list[Segmentation]:
    found = task.postprocess(output, list(size), list(size))
    assert all(isinstance(one, Segmentation) for one in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"classes": ("ant", "bee", "ant")}, "class names must differ; twice: ant"),
        ({"classes": ()}, "at least 1"),
        ({"classes": ("ant",), "background": False}, "every pixel would be of it"),
        ({"things": (True,)}, "things: 1 for 2 classes"),
        ({"answer": "instance"}, "take readout.kind = 'matched_queries'"),
        ({"answer": "panoptic", "readout": {"kind": "linear"}}, "take readout.kind"),
        ({"threshold": 1.0}, "less than 1"),
        (
            {"readout": {"kind": "class_queries", "width": 10, "heads": 4}},
            "not a multiple of heads",
        ),
        ({"readout": {"kind": "class_queries", "pixels": {"stride": 3}}}, "stride"),
        ({"readout": {"kind": "class_queries", "pixels": {"widths": ()}}}, "widths"),
        ({"readout": {"kind": "clas_queries"}}, "class_queries"),
        ({"treshold": 0.4}, "threshold"),
    ],
)
def test_what_contradicts_itself_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        build(SegmentConfig, {"classes": ("ant", "bee")} | change, source="task")


def test_readouts_are_told_apart_by_their_kind() -> None:
    members = get_args(get_args(SegmentReadout)[0])
    kinds = {member.model_fields["kind"].default for member in members}
    assert len(kinds) == len(members)
    assert kinds == KINDS
    reader: TypeAdapter[Any] = TypeAdapter(SegmentReadout)
    for readout in READOUTS.values():
        assert reader.validate_python(readout.model_dump(mode="json")) == readout
    config = tiny_segmenter("matched queries", answer="instance").config.task
    assert TypeAdapter(TaskConfig).validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError):
        reader.validate_python({"kind": "nothing"})


@pytest.mark.parametrize("name", READOUTS)
def test_each_readout_gives_its_output(name: str) -> None:
    model = tiny_segmenter(name)
    images = torch.stack([photo(0, *SIZE), photo(1, *SIZE)])
    task = segment(model)
    with torch.no_grad():
        output = model(images)
    h, w = (side // task.segmenter.stride for side in SIZE)
    if task.segmenter.matched:
        assert isinstance(output, MaskQueries)
        assert output.masks.shape == (2, 5, h, w)
        assert output.logits.shape == (2, 5, 2 + (output.boxes is None)), "or no segment"
    else:
        assert isinstance(output, PixelLogits)
        assert output.logits.shape == (2, 2, h, w)
    for found in answers(task, output, (40, 50), (21, 33)):
        assert found.size in ((40, 50), (21, 33))
        assert all(decode(r.rle, found.size).shape == found.size for r in found.regions)
        assert all(0 <= r.score <= 1 for r in found.regions)


@pytest.mark.parametrize("name", READOUTS)
def test_an_answer_does_not_depend_on_its_neighbours(name: str) -> None:
    """An image that is filled up is told as without what stands beside it."""
    model = tiny_segmenter(name, fit=True)
    images = torch.stack([photo(0, *SIZE), photo(1, *SIZE)])
    mask = torch.ones(2, *SIZE, dtype=torch.bool)
    mask[1, :, 40:] = False
    with torch.no_grad():
        both, one = model(images, mask), model(images[1:], mask[1:])
        images[1, :, :, 40:] = 7
        other = model(images, mask)
    for got in (both, other):
        for x, y in zip(got, one, strict=True):
            if isinstance(x, torch.Tensor):
                torch.testing.assert_close(x[1:], y, atol=1e-4, rtol=1e-4)


def fixed(model: Model, logits: torch.Tensor, *size: tuple[int, int]) -> list[Segmentation]:
    return answers(segment(model), PixelLogits(logits), *size)


def test_one_class_is_a_sigmoid_with_a_threshold() -> None:
    model = tiny_segmenter("linear pixels", classes=("road",), threshold=0.7)
    logits = torch.tensor([[[[-1.0, 0.8, 0.9, 3.0]]]])
    (found,) = fixed(model, logits, (1, 4))
    assert decode(found.regions[0].rle, (1, 4)).tolist() == [[False, False, True, True]]
    assert found.regions[0].score == pytest.approx(float(logits[..., 2:].sigmoid().mean()))
    assert found.confidence is not None


def test_several_classes_stand_beside_a_background_of_0() -> None:
    logits = torch.tensor([[[[-1.0, 2.0, 2.0]], [[-2.0, 1.0, 3.0]]]])
    (found,) = fixed(tiny_segmenter("linear pixels"), logits, (1, 3))
    assert [(r.label, area(r.rle, (1, 3))) for r in found.regions] == [("ant", 1), ("bee", 1)]
    p = F.softmax(torch.tensor([0.0, 2, 1]), 0)
    assert found.regions[0].score == pytest.approx(float(p[1]))
    (found,) = fixed(tiny_segmenter("linear pixels", background=False), logits, (1, 3))
    assert [(r.label, area(r.rle, (1, 3))) for r in found.regions] == [("ant", 2), ("bee", 1)]


@pytest.mark.parametrize("answer", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("softmax", [True, False])
def test_queries_answer_whatever_is_asked(answer: str, softmax: bool) -> None:
    """With an output more they are a softmax, whose last is no segment."""
    model = tiny_segmenter("matched queries", answer=answer, things=(True, False))
    stride = segment(model).segmenter.stride
    logits = torch.full((1, 2, 2 + softmax), -9.0)
    logits[0, 0, 1] = 9
    if softmax:
        logits[0, 1, 2] = 9
    masks = torch.full((1, 2, 4, 6), -9.0)
    masks[0, :, :2, :3] = 9
    size = (4 * stride, 6 * stride)
    (found,) = answers(segment(model), MaskQueries(logits, masks), size)
    sure = [r for r in found.regions if r.score > 0.5]
    assert [r.label for r in sure] == ["bee"]
    assert area(sure[0].rle, size) == 6 * stride**2
    assert sure[0].query == (0 if answer == "instance" else None)


def test_losses_of_pixels_go_through_the_stride() -> None:
    """A cell's logits are brought to the pixels, and the background stands before them."""
    model = tiny_segmenter("linear")
    task = segment(model)
    target = segments(*["1" * 24 + "." * 24] * 16, *["." * 24 + "2" * 24] * 16)
    logits = torch.randn(1, 2, 8, 12)
    truth = task.encode([target])
    (found,) = task.loss(PixelLogits(logits), truth, pixels=PixelLossConfig(dice=0))
    large = F.interpolate(logits, scale_factor=4, mode="bilinear")
    scores = torch.cat([torch.zeros(1, 1, *SIZE), large], 1)
    classes = torch.zeros(1, *SIZE, dtype=torch.long)
    classes[0, :16, :24], classes[0, 16:, 24:] = 1, 2
    torch.testing.assert_close(found, F.cross_entropy(scores, classes))


def data(*, classes: tuple[str, ...] = ("ant", "bee"), kind: Any = "semantic") -> SegmentList:
    targets: list[Target] = [segments("12", ".."), segments("1.", "..", labels=(1,))]
    return SegmentList([photo(0), photo(1)], targets, classes, kind)


def test_data_are_told_in_the_model_s_classes() -> None:
    task = segment(tiny_segmenter("linear"))
    found = task.adapt(data(classes=("bee", "ant")))
    assert [t.labels for t in found if isinstance(t, Segments)] == [(1, 0), (0,)]


@pytest.mark.parametrize("answer", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_masks_of_objects_fit_every_model(answer: str, kind: str) -> None:
    task = segment(tiny_segmenter("matched queries", answer=answer))
    assert len(task.adapt(data(kind=kind))) == 2


@pytest.mark.parametrize("answer", ["instance", "panoptic"])
def test_masks_of_classes_do_not_fit_a_model_of_objects(answer: str) -> None:
    task = segment(tiny_segmenter("matched queries", answer=answer))
    with pytest.raises(DataError, match=r"masks of the data are of classes.*give masks of single"):
        task.adapt(data())


def test_data_that_do_not_fit_are_named() -> None:
    task = segment(tiny_segmenter("linear"))
    with pytest.raises(DataError, match=r"no masks.*give images and masks"):
        task.adapt(ListDataset([photo(0)], [0], ("ant",)))
    with pytest.raises(DataError, match="wasp"):
        task.adapt(data(classes=("ant", "wasp")))


def test_the_measure_of_a_perfect_answer() -> None:
    model = tiny_segmenter("linear pixels")
    target = segments("112", "..2")
    logits = torch.full((1, 2, 2, 3), -9.0)
    logits[0, 0, 0, :2] = logits[0, 1, :, 2] = 9
    found = segment(model).measure(fixed(model, logits, (2, 3)), [target], intervals=False)
    assert found.metrics["miou"] == found.metrics["dice"] == found.metrics["f1"] == 1


def test_a_union_knows_each_task() -> None:
    built = build_task(
        SegmentConfig(classes=("ant",), readout=READOUTS["linear"]),
        pooled_width=4,
        channels=(4, 8),
        strides=(4, 8),
        distilled=False,
    )
    assert isinstance(built, Segment)
    assert built.segmenter.stride == 8


def test_patches_of_14_pixels() -> None:
    """Cells whose stride no doubling reaches: still one logit a pixel and its place."""
    backbone = tiny_config(image_size=(28, 42), stem={"kind": "patch", "patch_size": 14})
    for name in READOUTS:
        model = tiny_segmenter(name, backbone=backbone)
        with torch.no_grad():
            output = model(torch.stack([photo(0, 28, 42)]))
        (found,) = answers(segment(model), output, (28, 42))
        assert found.size == (28, 42)
