"""The page of a detector: objects drawn, a map for each, and what it says of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from detector import READOUTS, SIZE, BoxList, scene, tiny_detector
from tiny import photo
from vitrail.errors import ExplainError
from vitrail.explain.objects import alone, find_objects
from vitrail.explain.page.found import FEWEST, view_objects
from vitrail.explain.page.run import Wanted, explain
from vitrail.explain.page.stream import layers_shown
from vitrail.explain.trace.run import trace
from vitrail.types import Sample


def test_every_object_that_is_sure_has_a_map_and_is_drawn() -> None:
    model = tiny_detector()
    image = photo(0, *SIZE)
    drawn, maps = view_objects(model, image)
    (seen,) = find_objects(model, alone(model.config.preprocess, Sample("a", image, None)))
    sure = sum(score >= 0.5 for score in seen.found.scores)
    assert len(maps) == max(sure, FEWEST)
    assert torch.equal(drawn, image) == (sure == 0)
    torch.testing.assert_close(torch.from_numpy(maps[0].cells), seen.maps[0])
    assert maps[0].target.startswith(f"1. {seen.found.labels[0]}, ")
    assert maps[0].cell == (seen.stride, seen.stride)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_page_of_every_kind_of_detector(tmp_path: Path, readout: str) -> None:
    model = tiny_detector(readout, fit=readout == "deformable")
    data = BoxList([photo(0, 40, 60), None], [scene((2, 2, 9, 9, 1), size=(40, 60)), scene()])
    wanted = Wanted(png=True, npz=True)
    found = explain(model, data, out=tmp_path / "page.html", wanted=wanted)
    text = found.page.read_text("utf-8")
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    page = json.loads(block)
    (image,) = page["images"]
    assert {one["key"] for one in image["maps"]} == {"objects"}
    assert image["truth"] == "1 bee"
    assert len(image["attention"]) == len(layers_shown(model)) == len(page["layers"])
    assert all(image["attention"])
    assert [bad.reason for bad in found.skipped] == ["truncated file"]
    assert found.error < 1e-5
    assert "finds objects of 2 classes" in text
    assert any(path.suffix == ".npz" for path in found.files)


def test_a_class_is_asked_of_classifiers_only(tmp_path: Path) -> None:
    data = BoxList([photo(0, 40, 60)], [None])
    with pytest.raises(ExplainError, match="only a classifier is asked so"):
        explain(tiny_detector(), data, out=tmp_path / "page.html", wanted=Wanted(about="bee"))


def test_a_trace_is_refused_with_the_way_out() -> None:
    with pytest.raises(ExplainError, match="`vitrail explain MODEL IMAGE` shows where"):
        trace(tiny_detector(), photo(0, 40, 60), name="tiny")
