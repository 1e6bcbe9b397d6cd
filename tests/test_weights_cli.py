"""convert and verify as a person would run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parity.cases import FOLDER, NAMES
from tiny import tiny_model
from vitrail.weights.convert import write_loaded
from vitrail.weights.load import load_checkpoint
from vitrail.weights.modelfile import Provenance, load_model, save_model

Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(not NAMES, reason="golden files not found")


def test_a_published_checkpoint_becomes_a_model_file_with_a_certificate(
    run: Run, tmp_path: Path
) -> None:
    case, out = FOLDER / "google_vit_finetuned", tmp_path / "model.safetensors"
    made = run("convert", str(case / "model.npz"), "--to", "vitrail", "--out", str(out), "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["files"] == [str(out)]
    found = run("verify", str(out), "--golden", str(case), "--seal", "--json")
    assert found.code == 0, found.err
    table = json.loads(found.out)
    assert {"format", "variant", "unused", "missing", "max_abs", "max_rel", "verdict"} <= set(table)
    assert table["verdict"] == "equal"
    shown = run("info", str(out))
    assert "Apache-2.0" in shown.out
    assert "equal" in shown.out
    assert load_model(out)[0].config.backbone.kind == "vit"


def test_verify_prints_what_falls_short_and_exits_1(run: Run, tmp_path: Path) -> None:
    case = FOLDER / "timm_vit"
    found = run("verify", str(case), "--golden", str(case), "--set", "eps=1e-3")
    assert found.code == 1
    assert "TOO FAR" in found.out
    assert "DIFFERS" in found.out
    fine = run("verify", str(case), "--golden", str(case))
    assert fine.code == 0
    assert "equal to the reference" in fine.out


def test_what_the_file_does_not_tell_is_asked_for(run: Run) -> None:
    path = str(FOLDER / "deit_plain" / "model.pth")
    found = run("verify", path)
    assert found.code == 2
    assert "--set heads=" in found.err
    assert found.err.count("\n") == 1
    assert run("verify", path, "--set", "heads=4").code == 0


def test_segmenters_are_compared_with_their_originals(run: Run, tmp_path: Path) -> None:
    for name in ("hf_eomt", "segmenter_mask/checkpoint.pth"):
        found = run("verify", FOLDER / name, "--golden", FOLDER / name.partition("/")[0])
        assert found.code == 0, found.err
        assert "equal to the reference" in found.out
    shutil.copy(FOLDER / "segmenter_mask" / "checkpoint.pth", tmp_path / "alone.pth")
    alone = run("verify", tmp_path / "alone.pth")
    assert alone.code == 2
    assert "--set heads=" in alone.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "nowhere.npz", "--to", "timm"), "nowhere.npz"),
        (("verify", "nowhere.npz"), "nowhere.npz"),
        (("verify", "hf-hub:owner"), "hf-hub:owner/name"),
        (("convert", str(FOLDER / "t2t_performer" / "model.pth.tar"), "--to", "hf"), "heads"),
        (("verify", str(FOLDER / "timm_vit"), "--variant", "vit_tinny"), "unknown model"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    found = run(*arguments)
    assert found.code == 2
    assert message in found.err
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1


def test_what_a_format_cannot_express_is_refused_with_the_reason(run: Run, tmp_path: Path) -> None:
    path, out = str(FOLDER / "hf_vit"), tmp_path / "out"
    found = run("convert", path, "--to", "timm", "--out", str(out))
    assert found.code == 2
    assert "1e-12" in found.err
    assert not out.exists()
    found = run("convert", path, "--to", "hf", "--out", str(out))
    assert found.code == 0
    assert (out / "config.json").is_file()


def test_class_names_can_be_given(run: Run, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    out = tmp_path / "m.safetensors"
    arguments = ("convert", str(FOLDER / "timm_vit"), "--to", "vitrail", "--out", str(out))
    assert run(*arguments, "--classes", str(names)).code == 0
    assert load_model(out)[0].config.task.classes == ("a", "b", "c", "d", "e")
    names.write_text("a\n")
    again = run(*arguments[:-1], str(tmp_path / "n.safetensors"), "--classes", str(names))
    assert again.code == 2
    assert "5 outputs, 1 class names" in again.err


def test_a_run_of_ours_goes_to_timm(run: Run, tmp_path: Path) -> None:
    path = save_model(tiny_model(), tmp_path / "m.safetensors", Provenance(licence="MIT"))
    out = tmp_path / "timm"
    found = run("convert", str(path), "--to", "timm", "--out", str(out))
    assert found.code == 0, found.err
    assert json.loads((out / "config.json").read_text())["num_classes"] == 3


def test_a_stated_licence_travels_and_an_unstated_one_is_not_made_up(
    run: Run, tmp_path: Path
) -> None:
    for name, licence in (("timm_vit", "apache-2.0"), ("deit_plain", None)):
        source, out = next((FOLDER / name).glob("model.[sp]*")), tmp_path / name
        done = run("convert", source, "--to", "timm", "--out", out, "--set", "heads=4")
        assert done.code == 0, done.err
        cfg = json.loads((out / "config.json").read_text())["pretrained_cfg"]
        assert cfg.get("license") == licence


def test_the_default_name_says_what_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run("convert", FOLDER / "google_vit_finetuned" / "model.npz", "--to", "vitrail").code == 0
    )
    assert (tmp_path / "google_vit_finetuned-vitrail.safetensors").is_file()


def test_what_cannot_be_sealed_is_said_before_anything_is_printed(run: Run) -> None:
    found = run("verify", str(FOLDER / "timm_vit"), "--seal", "--json")
    assert (found.code, found.out) == (2, "")
    assert "--seal writes into a vitrail model file" in found.err


def test_a_licence_stands_in_the_card_of_a_hugging_face_folder(tmp_path: Path) -> None:
    loaded = load_checkpoint(FOLDER / "hf_vit")
    assert "not stated" in loaded.licence
    write_loaded(loaded, "hf", tmp_path / "none")
    assert not (tmp_path / "none" / "README.md").exists(), "none was stated"
    for licence in ("apache-2.0", 'the data owner\'s; trained "here"'):
        out = tmp_path / licence[:3]
        write_loaded(replace(loaded, licence=licence), "hf", out)
        said = load_checkpoint(out).licence
        assert said == licence.replace('"', "'") + " (stated with the weights)"
