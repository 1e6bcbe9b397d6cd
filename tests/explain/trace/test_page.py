from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.trace.data import Heat, Text, Trace
from vitrail.explain.trace.page import plain, render_trace, write_trace
from vitrail.explain.trace.run import trace


@pytest.fixture(scope="module")
def found() -> Trace:
    return trace(tiny_model(), photo(0), name="bee.png", layer=1, head=1)


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def numbers(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["f4"]), "<f4").reshape(packed["shape"])


def test_the_page_holds_the_numbers_of_the_trace(found: Trace, tmp_path: Path) -> None:
    out = write_trace(found, tmp_path / "trace.html", "zh")
    data = data_of(out.read_text("utf-8"))
    assert data["queries"] == list(found.queries)
    index = [step.key for step in found.steps].index("softmax")
    heat = data["steps"][index][0]
    original = found.steps[index].items[0]
    assert isinstance(original, Heat)
    assert heat["kind"] == "heat"
    np.testing.assert_array_equal(numbers(heat["values"]), original.values.numpy())
    assert [len(step) for step in data["steps"]] == [len(step.items) for step in found.steps]


def test_a_rough_map_keeps_its_numbers_within_a_step() -> None:
    values = torch.tensor([[0.0, 1.0, torch.nan], [-3.0, 2.0, 5.0]])
    heat = Heat(Text("a", "b"), values, (1, 3), 4, exact=False)
    packed = plain(heat)["values"]
    steps = np.frombuffer(base64.b64decode(packed["u1"]), np.uint8).reshape(2, 3)
    low, high = numbers(packed["bounds"]).T
    assert steps[0, 2] == 255
    again = low[:, None] + (high - low)[:, None] * steps / 254
    np.testing.assert_allclose(again[1], values[1], atol=8 / 254)
    np.testing.assert_allclose(again[0, :2], values[0, :2])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_both_languages_stand_on_the_page(found: Trace, language: Any) -> None:
    page = render_trace(found, language)
    assert f'data-lang="{language}"' in page
    for step in found.steps:
        for text in (step.title.en, step.title.zh):
            assert f">{text}</span>" in page or text.replace("'", "&#39;") in page
        assert f'id="{step.key}"' in page
        assert step.formula in page
    pairs = [(page.count('<span lang="en">'), page.count('<span lang="zh-CN">'))]
    assert pairs[0][0] == pairs[0][1] > 40


def test_nothing_is_fetched(found: Trace) -> None:
    page = render_trace(found)
    outside = re.sub(r"http://www\.w3\.org/2000/svg", "", page)
    assert "http" not in outside.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_names_cannot_leave_their_place(found: Trace) -> None:
    hostile = '</script><script>alert("x")</script><img src=x onerror=y>'
    page = render_trace(replace(found, name=hostile, answer=Text(hostile, hostile)))
    assert data_of(page)["name"] == hostile
    tags = Tags()
    tags.feed(page)
    assert tags.found.count("script") == 2
    assert "img" not in tags.found


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_a_large_model_makes_a_page_below_five_megabytes() -> None:
    config = tiny_config(image_size=(448, 448), width=32, depth=24, heads=16)
    config = config.model_copy(update={"stem": config.stem.model_copy(update={"patch_size": 14})})
    found = trace(tiny_model(backbone=config), photo(0, 448, 448), name="a")
    assert found.grid == (32, 32)
    assert len(found.queries) >= 36
    assert len(render_trace(found)) < 5_000_000


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
@pytest.mark.parametrize(
    "name", ["vit", "deit_nano_distilled_conv2_8", "t2t_nano_8", "swin_nano_8"]
)
def test_in_a_browser(found: Trace, tmp_path: Path, name: str) -> None:
    """No error, no request; keys and clicks move the patch, drawn numbers are the trace's."""
    api = pytest.importorskip("playwright.sync_api")
    if name != "vit":
        found = trace(preset_model(PRESETS[name]), photo(1, 8, 8), name=name)
    out = write_trace(found, tmp_path / "trace.html")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 844})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.extend(strange(request.url, out)))
        page.goto(out.as_uri())
        page.wait_for_selector(".items figure")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for query in (0, len(found.queries) - 1):
            page.evaluate(f"select({query})")
            row, column = divmod(found.queries[query], found.grid[1])
            assert page.inner_text("#chosen") == f"Patch: row {row + 1}, column {column + 1}"
            weights = next(s for s in found.steps if s.key == "softmax").items[0]
            assert isinstance(weights, Heat)
            total = weights.beside[-1][1][query]
            shown = page.inner_text("#softmax .beside dd:last-child")
            assert float(shown) == pytest.approx(float(total), abs=1e-6)
        before = page.inner_text("#chosen")
        page.focus("#picker")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#chosen") != before
        page.click("[data-language=zh]")
        assert page.inner_text("#chosen").startswith("图块")
        assert page.is_hidden("#pixels h3 [lang=en]")
        assert page.is_visible("#pixels h3 [lang=zh-CN]")
        browser.close()
    assert said == []


def strange(url: str, out: Path) -> list[str]:
    return [] if url == out.as_uri() or url.startswith("data:") else [url]
