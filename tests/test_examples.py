"""The example programs run as they stand, on a few generated images."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}


def run(name: str, *words: str | Path) -> None:
    program: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    program["main"](*map(str, words))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy red and blue images of 16 x 16 pixels, and one broken file."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for index in range(16):
            pixels = rng.normal(colour, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    (folder / "red" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder that the training example leaves."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    quick = ("schedule.epochs=2", "data.batch_size=8", 'data.workers={kind="serial"}')
    run("train_folder", photos, folder, *quick)
    return folder


def test_train_folder(trained: Path) -> None:
    assert (trained / "model.safetensors").is_file()
    assert (trained / "report.html").is_file()


def test_predict_folder(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    run("predict_folder", trained / "model.safetensors", photos, out)
    said = capsys.readouterr().out
    assert said.startswith("33 images, 1 of them not readable")
    assert "broken.png" in said
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 33
    assert {row["label"] for row in rows} <= {*COLOURS, ""}


def test_look_inside(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen.png"
    run("look_inside", trained / "model.safetensors", photos / "red" / "0.png", out)
    assert "block 1:" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.mode == "RGB"
        assert np.asarray(picture).std() > 0


def test_new_digits(tmp_path: Path) -> None:
    run("new_digits", tmp_path, "3")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert all(name[0].isdigit() and name[1] == "-" for name in names)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


def test_transformer_reverse(capsys: pytest.CaptureFixture[str]) -> None:
    run("transformer_reverse", "4")
    assert "greedy:" in capsys.readouterr().out
