"""explain and trace on the command line: what they write, and each mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Run, refused
from pictures import write_folder
from small_disk import small_disk
from tiny import tiny_config, tiny_model
from vitrail.model import create_model
from vitrail.weights.modelfile import Provenance, save_model

QUICK = ("--no-curves", "--method", "rollout")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("explain") / "photos", per_class=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    backbone = tiny_config(class_token=True, pool="class")
    return save_model(tiny_model(backbone=backbone), path, Provenance())


@pytest.fixture
def image(photos: Path) -> Path:
    return photos / "red" / "00.png"


def test_a_page_with_files_beside_it(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    out = tmp_path / "new" / "p.html"
    words = (photos / "red", tmp_path / "bad.png", "--out", out, "--png", "--npz", *QUICK)
    answer = run("explain", model, *words, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert (found["count"], found["out"], found["left_out"]) == (3, str(out), [])
    assert [bad["path"] for bad in found["skipped"]] == [str(tmp_path / "bad.png")]
    assert "bad.png: the file is empty" in answer.err
    assert found["attention_error"] < 1e-5
    assert all(Path(file).is_file() for file in found["files"])
    assert {Path(file).suffix for file in found["files"]} == {".png", ".npz"}
    assert {path.name for path in out.parent.iterdir()} == {"p.html", "p-files"}
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_trace(run: Run, model: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.html"
    words = ("--out", out, "--layer", 0, "--head", 1, "--lang", "zh")
    answer = run("trace", model, image, *words, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["out"] == str(out)
    assert answer.json["max_abs"] == 0
    text = run("trace", model, image, *words)
    assert text.out == f"{out}: {answer.json['steps']} steps\n"


def test_scores(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "s.md"
    words = ("--score", "--samples", 2, "--method", "rollout", "--out", table)
    answer = run("explain", model, photos, *words, "--json")
    assert answer.code == 0, answer.err
    keys = [method["key"] for method in answer.json["methods"]]
    assert keys == ["rollout", "random", "centre"]
    assert (answer.json["split"], answer.json["asked"], answer.json["count"]) == ("all", 2, 2)
    assert table.read_text(encoding="utf-8").startswith("| method |")


def test_fresh_weights_are_said_once(run: Run, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    answer = run("explain", "vit_nano_conv2_8", image, "--out", out, *QUICK)
    assert answer.code == 0, answer.err
    assert answer.err.count("has fresh weights") == 1
    assert "has fresh weights" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--class", 'be"😀'), ("unknown class 'be\"😀'", "there are ant, bee")),
        (("--method", "rolout"), ("unknown method 'rolout'", "did you mean 'rollout'")),
        (("--max-mb", "nan"), ("--max-mb nan", "above 0")),
        (("--max-mb", "inf"), ("--max-mb inf", "above 0")),
        (("--max-mb", "-1"), ("--max-mb -1", "above 0")),
        (("--max-mb", "0.001", *QUICK), ("--max-mb 0.001", "give more")),
        (("--split", "test", "--seed", "0"), ("--split and --seed", "only with --score")),
        (("--samples", "9"), ("--samples", "of use only with --score")),
        (("--score", "--png", "--max-mb", "3"), ("--png and --max-mb", "not together")),
        (("--score", "--no-curves", "--class", "ant"), ("--class and --no-curves",)),
        (("--score",), ("a single image has no classes",)),
        (("--score", "--samples", "1"), ("--samples",)),
    ],
)
def test_what_explain_refuses(
    words: tuple[str, ...],
    wanted: tuple[str, ...],
    run: Run,
    model: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    refused(run("explain", model, image, "--out", tmp_path / "p.html", *words), *wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--layer", "99"), ("no block 99", "--layer goes from 0")),
        (("--layer", "-1"), ("no block -1",)),
        (("--head", "-5"), ("no head -5", "--head goes from 0")),
        (("--lang", "fr"), ("'fr'",)),
    ],
)
def test_what_trace_refuses(
    words: tuple[str, ...],
    wanted: tuple[str, ...],
    run: Run,
    model: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    refused(run("trace", model, image, "--out", tmp_path / "t.html", *words), *wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["explain", "trace"])
def test_images_that_are_none(
    verb: str, run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    out = ("--out", tmp_path / "p.html")
    refused(run(verb, model, tmp_path / "bad.png", *out), "bad.png: the file is empty")
    refused(run(verb, model, tmp_path / "ba.png", *out), "ba.png: no such file", "'bad.png'")
    refused(run(verb, model, tmp_path / "empty", *out), "empty: no images found")
    refused(run("trace", model, photos, *out), "9 images; give a single one")
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("verb", ["explain", "trace"])
def test_models_that_are_none(verb: str, run: Run, image: Path, tmp_path: Path) -> None:
    name = "vit_small_patch16_244"
    refused(run(verb, name, image), name, "did you mean 'vit_small_patch16_224'", "vitrail models")
    refused(run(verb, image, image), "00.png", "known are")
    resnet = tmp_path / "r.safetensors"
    save_model(create_model("resnet_nano_8", classes=("a", "b")), resnet, Provenance())
    refused(run("trace", resnet, image), "'resnet' has no attention to trace", "vit")
    refused(run("explain", resnet, image, "--method", "raw"), "Raw attention", "Grad-CAM")


def test_a_method_that_was_asked_for_is_not_left_out_of_scores(run: Run, photos: Path) -> None:
    words = ("--score", "--method", "raw", "--samples", 2)
    refused(run("explain", "resnet_nano_8", photos, *words), "Raw attention", "Grad-CAM")


@pytest.mark.parametrize("verb", ["explain", "trace"])
def test_an_out_that_can_be_no_file_is_told_before_the_work(
    verb: str, run: Run, image: Path, tmp_path: Path
) -> None:
    """The model is not even looked for."""
    for folder in ("", ".", "/", tmp_path):
        refused(run(verb, "no-model", image, "--out", folder), "a folder", "give a file in it")
    refused(run(verb, "no-model", image, "--out", "/dev/full"), "/dev/full", "give another")
    refused(run(verb, "no-model", image, "--out", "look"), "not a folder", "e.g. look.html")


@pytest.mark.parametrize("verb", ["explain", "trace"])
def test_places_where_nothing_can_be_written(
    verb: str, run: Run, model: Path, image: Path, tmp_path: Path
) -> None:
    words = QUICK if verb == "explain" else ()
    below = image / "p.html"
    refused(run(verb, model, image, "--out", below, *words), "p.html: cannot write")
    with small_disk(tmp_path / "disk", 16) as disk:
        answer = run(verb, model, image, "--out", disk / "p.html", *words)
        refused(answer, "p.html: cannot write (No space left on device)")
        assert list(disk.iterdir()) == []
