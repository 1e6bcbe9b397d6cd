"""The page of a segmenter: regions drawn, maps for each, and what it says of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import Run, refused
from segmenter import SIZE, SegmentList, segments, tiny_segmenter
from tiny import photo
from vitrail.errors import ExplainError
from vitrail.explain.conservative import Conservative
from vitrail.explain.gradcam import GradCam
from vitrail.explain.page.about import WORDS
from vitrail.explain.page.regions import FEWEST, view_regions
from vitrail.explain.page.run import Wanted, explain
from vitrail.explain.regions import find_regions
from vitrail.explain.rollout import Rollout
from vitrail.explain.trace.run import trace
from vitrail.model import Model
from vitrail.tasks.segment import Segment
from vitrail.types import Segments
from vitrail.weights.modelfile import Provenance, save_model

QUICK = Wanted(curves=False)


def data_of(page: Path) -> dict:
    text = page.read_text("utf-8")
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(block)


def truth() -> Segments:
    return segments(*["." * 40 + "1" * 20] * 40)


def told_nothing() -> Model:
    """Every pixel is background."""
    model = tiny_segmenter("class queries")
    assert isinstance(model.task, Segment)
    last = model.task.segmenter.get_submodule("embed.layers.1")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias[-1] = -50
    return model


def test_maps_are_those_of_the_methods_region_by_region() -> None:
    model, image = tiny_segmenter("matched queries", answer="instance"), photo(0, *SIZE)
    seen = view_regions(model, image, [Conservative(), GradCam()], curves=False)
    found = find_regions(model, image)
    assert found.attention is not None
    sure = sum(one.score >= 0.5 for one in found.found.regions)
    count = max(sure, FEWEST)
    keys = [one.key for one in seen.maps]
    known = ("regions", "queries", "conservative", "details", "gradcam")
    assert keys == [key for key in known for _ in range(count)]
    assert set(keys) <= set(WORDS)
    for number in range(count):
        target = found.targets[number]
        assert torch.equal(seen.masks[number], target.mask)
        drawn, looked, given, _, cam = seen.maps[number::count]
        assert drawn.cells.shape == SIZE
        np.testing.assert_array_equal(drawn.cells > 0.5, target.mask.numpy())
        np.testing.assert_allclose(looked.cells, found.attention.maps[number], rtol=1e-5)
        expected = Conservative().explain(model, image[None], [target])[0]
        np.testing.assert_allclose(given.cells, expected, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(cam.cells, GradCam().explain(model, image[None], [target])[0])
        shares = re.findall(r"(\d+)%", given.said)
        assert len(shares) == 3
        assert int(shares[1]) + int(shares[2]) in (99, 100, 101)
        one = found.found.regions[number]
        assert drawn.target == cam.target == f"{number + 1}. {one.label}, {one.score:.0%}"
    assert not torch.equal(seen.drawn, image)
    assert seen.drawn.shape == image.shape
    assert not seen.note


@pytest.mark.parametrize("readout", ["linear", "class queries", "matched queries"])
def test_a_page_of_every_kind_of_segmenter(tmp_path: Path, readout: str) -> None:
    model = tiny_segmenter(readout, fit=readout == "matched queries")
    data = SegmentList([photo(0, 40, 60), None], [truth(), truth()])
    wanted = Wanted(png=readout == "linear", npz=True, curves=readout == "linear")
    found = explain(model, data, out=tmp_path / "page.html", wanted=wanted)
    (image,) = data_of(found.page)["images"]
    keys = {one["key"] for one in image["maps"]}
    expected = {"regions", "conservative", "gradient_rollout", "relevance", "gradcam"}
    heads = set() if readout == "linear" else {"queries", "details"}
    assert keys == expected | heads
    assert image["truth"] == "ant"
    assert all("inside the region" in m["said"] for m in image["maps"] if m["key"] != "regions")
    curves = {one["key"] for one in image["maps"] if one["curves"]}
    assert curves == ({"conservative"} if wanted.curves else set())
    assert [bad.reason for bad in found.skipped] == ["truncated file"]
    assert found.error < 1e-5
    text = found.page.read_text("utf-8")
    assert "finds regions of 2 classes" in text
    assert "a segmenter has many answers" in text
    (archive,) = [path for path in found.files if path.suffix == ".npz"]
    with np.load(archive) as arrays:
        masks = [key for key in arrays.files if key.startswith("region/")]
        assert len(masks) == sum(one["key"] == "regions" for one in image["maps"])
        assert arrays["region/1"].shape == tuple(image["size"])
        assert "map/conservative" in arrays.files
    prints = [path for path in found.files if path.suffix == ".png"]
    assert bool(prints) == wanted.png


def test_where_nothing_is_told_the_page_says_so(tmp_path: Path) -> None:
    data = SegmentList([photo(0, 40, 60)], [None])
    found = explain(told_nothing(), data, out=tmp_path / "page.html", wanted=QUICK)
    (note,) = found.notes
    assert note.startswith("0.png: no region was found; shown is where ")
    assert "no region was found" in found.page.read_text("utf-8")


def test_one_class_alone(tmp_path: Path) -> None:
    model = tiny_segmenter("linear")
    data = SegmentList([photo(0, 40, 60)], [None])
    wanted = Wanted(about="bee", curves=False, methods=(GradCam(),))
    found = explain(model, data, out=tmp_path / "page.html", wanted=wanted)
    (image,) = data_of(found.page)["images"]
    assert {one["target"].split(",")[0] for one in image["maps"]} == {"1. bee"}
    with pytest.raises(ExplainError, match="unknown class 'be'; did you mean 'bee'"):
        explain(model, data, out=tmp_path / "p.html", wanted=Wanted(about="be"))
    with pytest.raises(ExplainError, match="a segmenter has many answers"):
        explain(model, data, out=tmp_path / "p.html", wanted=Wanted(methods=(Rollout(),)))


def test_on_the_command_line(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    file = save_model(told_nothing(), tmp_path / "m.safetensors", Provenance())
    image = tmp_path / "a.png"
    Image.fromarray(photo(0, 40, 60).permute(1, 2, 0).numpy()).save(image)
    words = ("--out", tmp_path / "p.html", "--no-curves", "--method", "gradcam")
    answer = run("explain", file, image, *words)
    assert answer.code == 0, answer.err
    assert "no region was found; shown is where" in answer.err
    refused(run("explain", file, image, *words, "--class", "cat"), "unknown class 'cat'")
    way_out = "`vitrail explain MODEL IMAGE` shows what made each region"
    refused(run("trace", file, image, "--out", tmp_path / "t.html"), way_out)


def test_a_trace_is_refused_with_the_way_out() -> None:
    with pytest.raises(ExplainError, match="shows what made each region"):
        trace(tiny_segmenter(), photo(0, 40, 60), name="tiny")
