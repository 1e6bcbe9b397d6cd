from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from presets import PRESETS, preset_model
from tiny import ListDataset, photo, tiny_config, tiny_model
from vitrail.data.images import open_images
from vitrail.errors import ExplainError, ModelFileError
from vitrail.explain.capture import capture
from vitrail.explain.gradcam import GradCam
from vitrail.explain.occlusion import Occlusion
from vitrail.explain.page.run import Explained, Wanted, explain
from vitrail.explain.relevance import Relevance
from vitrail.model import create_model

PLAIN = Wanted(curves=False, methods=(Relevance(),))
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }} \U0001f33b\u2028"


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def blob_of(page: str, key: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="{key}">(.*?)</script>', page)
    assert found is not None
    return base64.b64decode(found[1], validate=True)


def make(out: Path, wanted: Wanted = PLAIN, **changes: Any) -> tuple[Explained, str]:
    model = tiny_model(backbone=tiny_config(**changes))
    size = model.config.backbone.image_size
    data = ListDataset([photo(i, *size) for i in range(2)], ids=["a.png", "b.png"])
    found = explain(model, data, out=out / "page.html", name="tiny", wanted=wanted)
    return found, found.page.read_text(encoding="utf-8")


def test_the_attention_of_a_page_is_what_was_captured(tmp_path: Path) -> None:
    found, page = make(tmp_path)
    data = data_of(page)
    model = tiny_model(backbone=tiny_config())
    with torch.no_grad(), capture(model) as record:
        model(photo(1)[None])
    for i, seen in enumerate(record.layers):
        told = data["images"][1]["attention"][i]
        raw = np.frombuffer(zlib.decompress(blob_of(page, told["blob"])), np.uint8)
        heads, rows, keys = told["shape"]
        scales = raw[: 4 * heads * rows].view("<f4").reshape(heads, rows, 1)
        planes = raw[4 * heads * rows :].reshape(2, heads, rows, keys).astype(float)
        weights = scales * (256 * planes[0] + planes[1]) / 65535
        assert np.abs(weights - seen.weights[0].numpy()).max() < 1e-5
    assert found.error == record.max_error or found.error < 1e-5
    assert found.images == ("a.png", "b.png")


def test_a_page_asks_nobody_and_runs_its_own_script_alone(tmp_path: Path) -> None:
    _, page = make(tmp_path)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    rest = page.replace('"http://www.w3.org/2000/svg"', "")
    for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "import(", "WebSocket", ' src="//'):
        assert word not in rest, word


def test_hostile_names_are_plain_text(tmp_path: Path) -> None:
    model = tiny_model(classes=(HOSTILE, "b", "c"))
    data = ListDataset([photo(0)], [0], (HOSTILE, "b", "c"), ids=[f"{HOSTILE}.png"])
    wanted = Wanted(curves=False, about=HOSTILE, methods=(Relevance(),), png=True, npz=True)
    found = explain(model, data, out=tmp_path / "p.html", name=HOSTILE, wanted=wanted)
    page = found.page.read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("</script>") == page.count("<script")
    told = data_of(page)["images"][0]
    assert told["id"] == f"{HOSTILE}.png"
    assert told["maps"][0]["target"] == HOSTILE
    folder = tmp_path / "p-files"
    assert {path.parent for path in found.files} == {folder}
    assert sorted(folder.iterdir()) == sorted(found.files)


def test_the_page_of_a_small_vit_at_224_is_below_12_megabytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("vit_small_patch16_224").eval()
    data = ListDataset([photo(0, 224, 224)])
    wanted = Wanted(curves=False, methods=(Relevance(),))
    found = explain(model, data, out=tmp_path / "page.html", wanted=wanted)
    assert found.page.stat().st_size < 12_000_000
    assert found.notes == ()
    told = data_of(found.page.read_text())["images"][0]["attention"]
    assert [one["bits"] for one in told] == [16] * 12
    assert all(one["block"] == 1 for one in told)


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_a_page(name: str, tmp_path: Path) -> None:
    model = preset_model(PRESETS[name])
    data = ListDataset([photo(0, 8, 8), None, photo(1, 8, 8)])
    found = explain(model, data, out=tmp_path / "p.html", wanted=Wanted(curves=False))
    page = found.page.read_text(encoding="utf-8")
    assert [bad.reason for bad in found.skipped] == ["truncated file"]
    assert "truncated file" in page
    assert len(data_of(page)["images"]) == 2
    assert found.error < 1e-5


def test_what_has_no_room_is_named(tmp_path: Path) -> None:
    size = {"image_size": (64, 96), "depth": 4}
    roomy, _ = make(tmp_path, **size)
    assert roomy.notes == ()
    whole = roomy.page.stat().st_size
    for room in (whole // 2, whole // 6, whole // 12, 158_000):
        found, page = make(tmp_path, Wanted(curves=False, methods=(), max_bytes=room), **size)
        assert found.page.stat().st_size <= room
        exact = all(one and one["bits"] == 16 for one in told_of(page))
        assert exact == (found.notes == () and "16 bits" in page)
        for note in found.notes:
            assert html.escape(note) in page
    assert any("first layers" in note or "squares of" in note for note in found.notes)
    assert any("no room for the attention of b.png" in note for note in found.notes)


def told_of(page: str) -> list[Any]:
    return [one for image in data_of(page)["images"] for one in image["attention"]]


def test_images_that_have_no_room_are_named(tmp_path: Path) -> None:
    model = tiny_model()
    data = ListDataset([photo(i) for i in range(200)])
    wanted = Wanted(curves=False, methods=(), max_bytes=120_000)
    found = explain(model, data, out=tmp_path / "p.html", wanted=wanted)
    assert found.left_out
    assert len(found.images) + len(found.left_out) == 200
    assert found.page.stat().st_size <= 120_000
    assert f"and {len(found.left_out) - 5} more" in found.notes[0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(about="bie"), "unknown class 'bie'; did you mean 'bee'"),
        (Wanted(methods=(Relevance(),)), "has no attention"),
    ],
)
def test_what_is_impossible_is_said_in_one_line(wanted: Wanted, words: str, tmp_path: Path) -> None:
    model = tiny_model()
    if wanted.methods:
        model = preset_model(PRESETS[next(name for name in PRESETS if "resnet" in name)])
    with pytest.raises(ExplainError, match=re.escape(words)):
        explain(model, ListDataset([photo(0)]), out=tmp_path / "p.html", wanted=wanted)


def test_no_image_at_all(tmp_path: Path) -> None:
    with pytest.raises(ExplainError, match=r"0\.png: truncated file"):
        explain(tiny_model(), ListDataset([None]), out=tmp_path / "p.html", wanted=PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="cannot write"):
        make(tmp_path / "file")


def test_images_from_files(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(2):
        pixels = photo(i, 20, 30).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    wanted = Wanted(curves=False, methods=(GradCam(), Occlusion()))
    found = explain(
        tiny_model(), open_images([str(tmp_path)]), out=tmp_path / "p.html", wanted=wanted
    )
    assert len(found.images) == 2
    assert [Path(bad.id).name for bad in found.skipped] == ["2.png"]
    maps = data_of(found.page.read_text())["images"][0]["maps"]
    assert [one["key"] for one in maps] == ["gradcam", "occlusion"]
