"""Processors of Hugging Face's detectors."""

from __future__ import annotations

from typing import Any

import pytest

from vitrail.data.preprocess import CenterCrop, Fit, Preprocess, Squash
from vitrail.errors import CheckpointError
from vitrail.weights.formats.hf_detection import (
    check_detection_processor,
    detection_processor_json,
    read_detection_processor,
    usual_size,
)
from vitrail.weights.formats.hf_settings import Settings


def read(table: dict[str, Any], cut_to: int = 1) -> Preprocess:
    return read_detection_processor(Settings("file", table), cut_to=cut_to)[0]


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ({}, Fit(short=800, long=1333, multiple=1)),
        ({"size": 600, "max_size": 1000}, Fit(short=600, long=1000, multiple=1)),
        (
            {"size": {"shortest_edge": 480, "longest_edge": 640}},
            Fit(short=480, long=640, multiple=1),
        ),
        ({"size": {"shortest_edge": 480}}, Fit(short=480, long=1 << 16, multiple=1)),
        ({"size": {"height": 640, "width": 512}}, Squash(size=(640, 512))),
    ],
)
def test_sizes(table: dict[str, Any], rule: Fit | Squash) -> None:
    found = read(table)
    assert found.resize == rule
    assert found.interpolation == "bilinear"
    assert read(detection_processor_json(found, "DetrImageProcessor")) == found


def test_a_size_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"file: size = .*'shortest_edge'"):
        read({"size": {"max_height": 3, "max_width": 4}})


def test_yolos_shortens_sides_to_multiples_of_16() -> None:
    """Sizes by transformers' own `get_size_with_aspect_ratio` of YOLOS."""
    rule = read({"size": {"shortest_edge": 800, "longest_edge": 1333}}, 16).resize
    assert rule.resized(480, 640) == (800, 1056)
    assert rule.resized(640, 480) == (1056, 800)
    assert rule.resized(427, 1000) == (560, 1328)
    assert rule.resized(800, 900) == (800, 896)


def test_usual_size() -> None:
    assert usual_size(read({})) == (800, 1333)
    assert usual_size(read({"size": {"shortest_edge": 480}})) == (480, 960)
    assert usual_size(Preprocess(resize=Squash(size=(3, 4)))) == (3, 4)


def test_what_no_processor_does() -> None:
    crop = Preprocess(resize=CenterCrop(size=(32, 32)))
    assert "no resize rule 'center_crop'" in check_detection_processor(crop)
    assert "multiples of 16" in check_detection_processor(read({}), cut_to=16)
    assert "RGB" in check_detection_processor(read({}).model_copy(update={"channel_order": "bgr"}))
