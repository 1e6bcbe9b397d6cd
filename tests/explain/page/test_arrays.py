from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from presets import PRESETS, preset_model
from tiny import ListDataset, photo, tiny_config, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain.capture import capture
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import OnImage, Windowed
from vitrail.explain.page.arrays import query_pixels, write_arrays
from vitrail.explain.page.look import look
from vitrail.explain.page.run import Wanted, explain
from vitrail.explain.relevance import Relevance
from vitrail.explain.rollout import Rollout
from vitrail.types import Sample


@pytest.mark.parametrize("name", PRESETS)
def test_attention_of_every_family_as_it_was_captured(name: str, tmp_path: Path) -> None:
    model, image = preset_model(PRESETS[name]), photo(1, 8, 8)
    wanted = Wanted(curves=False, methods=(), npz=True)
    found = explain(model, ListDataset([image]), out=tmp_path / "p.html", wanted=wanted)
    layers = attention_layers(model)
    with np.load(found.files[0]) as archive:
        assert [key for key in archive if key.startswith("attention/")] == [
            f"attention/{layer.key}" for layer in layers
        ]
        if not layers:
            return
        with torch.no_grad(), capture(model) as record:
            model(image[None])
        for seen in record.layers:
            kept = archive[f"attention/{seen.layer.key}"]
            assert kept.dtype == np.float32
            assert np.array_equal(kept, seen.weights[0].numpy())
            assert float(archive[f"error/{seen.layer.key}"]) == seen.error
            where = archive[f"queries/{seen.layer.key}"]
            assert isinstance(seen.layout, OnImage)
            for row, pixel in enumerate(where.tolist()):
                assert pixel == [-1, -1] or seen.layout.row((pixel[0], pixel[1])) == row


def test_the_queries_of_a_window_are_its_keys() -> None:
    name = next(name for name in PRESETS if "swin" in name)
    layout = attention_layers(preset_model(PRESETS[name]))[1].place.at((8, 8))
    assert isinstance(layout, Windowed)
    rows = layout.rows
    where = query_pixels(layout, rows)
    drawn = layout.lay(5, torch.arange(1.0, 1 + rows // layout.windows.count))
    for key, (y, x) in enumerate(where[: int(drawn.max())].tolist()):
        if y >= 0:
            assert drawn[y // layout.stride, x // layout.stride] == key + 1


def test_maps_with_their_classes(tmp_path: Path) -> None:
    model, image = tiny_model(), photo(1)
    data = ListDataset([image], [2], ("ant", "bee", "cat"))
    sample = Sample("a.png", image, 2)
    view = look(model, data, sample, image, [Relevance(), Rollout()], 0, curves=False)
    file = write_arrays(model, view, image, tmp_path / "folder" / "a.npz")
    with np.load(file) as archive:
        assert np.array_equal(archive["image"], image.permute(1, 2, 0).numpy())
        assert str(archive["about/relevance"]) == "ant"
        assert str(archive["about/relevance/2"]) == "cat"
        assert str(archive["truth"]) == "cat"
        assert np.array_equal(archive["map/relevance/2"], view.maps[1].cells)
        assert archive["cell/rollout"].tolist() == [4, 4]
        assert "norms/output" in archive
        assert archive["features"].shape == (2, 3, 3)
    assert [path.name for path in file.parent.iterdir()] == ["a.npz"]


def test_an_archive_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model, image = tiny_model(), photo(1)
    data = ListDataset([image])
    view = look(model, data, Sample("a", image, None), image, [], None, curves=False)
    with pytest.raises(ExplainError, match="cannot write"):
        write_arrays(model, view, image, tmp_path / "file" / "a.npz")


def test_pictures_at_print_size(tmp_path: Path) -> None:
    model = tiny_model(backbone=tiny_config(image_size=(32, 48)))
    data = ListDataset([photo(0, 32, 48)], ids=["some $folder$/x y.png"])
    wanted = Wanted(curves=False, methods=(Relevance(),), png=True)
    found = explain(model, data, out=tmp_path / "p.html", wanted=wanted)
    names = [path.name for path in found.files]
    assert len(names) == 2
    assert names[0].startswith("000-x_y-1-relevance-")
    assert names[1] == "000-x_y-attention.png"
    with Image.open(found.files[0]) as image:
        assert image.width >= 1000, "300 dots an inch over a column"
        assert np.asarray(image.convert("RGB")).std() > 10
