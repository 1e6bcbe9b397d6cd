"""The command line: one JSON object, or one line that says what is wrong and the way out."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from command_line import Run, refused, sets
from pictures import QUICK, write_folder, write_multilabel
from small_disk import small_disk
from vitrail.weights.modelfile import save_model, write_atomically


def subprocess_env(**changes: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | changes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    return write_folder(folder / "photos", per_class=10, bad=("red/bad.png",))


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, made by the library."""
    from vitrail.train.run import train

    return train(str(photos), overrides=QUICK, out=tmp_path_factory.mktemp("runs") / "run").run


@pytest.fixture(scope="module")
def model_file(trained: Path) -> Path:
    return trained / "model.safetensors"


# --- every verb, as JSON ------------------------------------------------------------------------


def test_train(run: Run, photos: Path, tmp_path: Path) -> None:
    answer = run(
        "train", photos, "--out", tmp_path / "r", "--epochs", 1, "--json", *sets(QUICK[1:])
    )
    assert answer.code == 0, answer.err
    assert answer.json.keys() == {
        *("run", "model", "task", "metrics", "best_epoch", "seconds", "quarantined"),
    }
    assert answer.json["task"] == "classify"
    assert answer.json["quarantined"] == 1
    assert {"top1", "balanced_accuracy", "f1", "ece"} <= answer.json["metrics"].keys()
    assert Path(answer.json["model"]).is_file()
    assert "epoch 1/1" in answer.err, "progress is on standard error"
    command = json.loads((tmp_path / "r" / "run.json").read_text(encoding="utf-8"))["command"]
    assert command.startswith(f"vitrail train {photos}")
    plain = run("train", "--resume", "--out", tmp_path / "r")
    assert plain.code == 0
    assert "test top1: " in plain.out
    assert "quarantine.csv" in plain.out


def test_train_with_several_labels(run: Run, tmp_path: Path) -> None:
    table = write_multilabel(tmp_path / "data", count=32)
    answer = run("train", table, "--out", tmp_path / "r", *sets())
    assert answer.code == 0, answer.err
    assert "test map: " in answer.out
    answer = run("evaluate", tmp_path / "r", table, "--json")
    assert {"map", "exact_match"} <= answer.json["metrics"].keys()
    answer = run(
        "predict", tmp_path / "r", tmp_path / "data", "--out", tmp_path / "p.csv", "--json"
    )
    assert answer.json == {"out": str(tmp_path / "p.csv"), "count": 32, "errors": 0}


def test_evaluate(run: Run, photos: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    answer = run("evaluate", trained, photos, "--json", "--split", "all", "--out", out)
    assert answer.code == 0
    assert {"model", "data", "task", "count", "metrics", "quarantined"} <= answer.json.keys()
    assert (answer.json["count"], answer.json["quarantined"]) == (30, 1)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    right = sum(row["path"].split("/")[0] == row.get("label") for row in rows)
    assert answer.json["metrics"]["top1"] == right / 30, "computed from the file, digit for digit"
    held = run("evaluate", trained, photos, "--json")
    assert held.json["split"] == "test"
    assert "training held back" in held.err
    plain = run("evaluate", trained, photos, "--split", "all")
    assert "top1" in plain.out
    assert "quarantined red/bad.png: not an image of a known format" in plain.err


def test_predict(run: Run, photos: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    answer = run("predict", model_file, photos, "--out", out, "--json")
    assert answer.json == {"out": str(out), "count": 31, "errors": 1}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 31
    bad = [row for row in rows if "error" in row]
    assert bad == [{"path": str(photos / "red" / "bad.png"), "error": bad[0]["error"]}]
    good = rows[0]
    assert good.keys() == {"path", "label", "score", "scores"}
    plain = run("predict", model_file, photos / "red" / "00.png", photos / "red" / "bad.png")
    lines = plain.out.splitlines()
    assert len(lines) == 2
    assert "error: not an image" in lines[1]


def test_predict_in_shards(run: Run, photos: Path, model_file: Path, tmp_path: Path) -> None:
    paths: list[str] = []
    for part in range(3):
        out = tmp_path / f"{part}.csv"
        run("predict", model_file, photos, "--out", out, "--shard", f"{part}/3")
        lines = out.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("path,label,score,error")
        paths += [line.split(",")[0] for line in lines[1:]]
    assert len(paths) == len(set(paths)) == 31


def test_models(run: Run) -> None:
    rows = run("models", "vit_tiny_patch*", "--json").json
    assert isinstance(rows, list)
    wanted = {"name", "family", "params", "gmacs", "activations", "image_size"}
    wanted |= {"classes", "top1", "source"}
    assert all(row.keys() == wanted for row in rows)
    assert {row["name"] for row in rows} == {"vit_tiny_patch16_224", "vit_tiny_patch16_384"}
    assert "vit_tiny_patch16_224" in run("models", "vit_tiny*").out
    refused(run("models", "resnet9000"), "no model matches 'resnet9000'", "vitrail models")


def test_info(run: Run, trained: Path) -> None:
    table = run("info", trained, "--json").json
    assert table["file"] == str(trained / "model.safetensors")
    assert table["format_version"] == 1
    assert table["config"]["task"]["classes"] == ["blue", "green", "red"]
    plain = run("info", trained).out
    assert "blue, green, red" in plain
    assert "top1" in plain


def test_check(run: Run, photos: Path, tmp_path: Path) -> None:
    answer = run("check", photos, "--json")
    assert answer.code == 1, "something was found"
    assert {"format", "findings"} <= answer.json.keys()
    assert "red/bad.png" in json.dumps(answer.json["findings"])
    plain = run("check", photos)
    assert plain.code == 1
    assert "red/bad.png" in plain.out


def test_config(run: Run, tmp_path: Path) -> None:
    answer = run("config", "small-images", "--set", "optim.lr=0.5", "--json")
    assert answer.json["optim"]["lr"] == 0.5
    text = run("config", "small-images", "--set", "optim.lr=0.5").out
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert run("config", path, "--json").json == answer.json, "what is printed can be used"


def test_doctor(run: Run) -> None:
    answer = run("doctor", "--json")
    assert answer.code in {0, 1}
    assert isinstance(answer.json, dict)


# --- help ---------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['vitrail', '--help']\nfrom vitrail.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'PIL', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=subprocess_env(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for verb in ("train", "evaluate", "predict", "models", "info", "check", "config", "doctor"):
        assert f"\n  {verb} " in done.stdout


def test_without_a_verb_the_help_is_shown(run: Run) -> None:
    answer = run()
    assert answer.code == 2
    assert answer.err.startswith("Usage: ")
    assert "\n  train " in answer.err


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("vitrail, version ")


# --- what is wrong is said in one line ----------------------------------------------------------


def test_wrong_words(run: Run) -> None:
    refused(run("trian"), "No such command 'trian'", "train")
    refused(run("train", "--epochs", 0), "--epochs")
    refused(run("predict"), "Missing argument")
    refused(run("train", "--modle", "x"), "--modle")


def test_wrong_data(run: Run, tmp_path: Path) -> None:
    refused(run("train", tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(run("train", tmp_path / "empty"), "empty", "one folder a class")
    one = tmp_path / "one"
    write_folder(one, per_class=4)
    for name in ("green", "blue"):
        for file in (one / name).iterdir():
            file.unlink()
        (one / name).rmdir()
    refused(run("train", one), "only one class ('red')", "at least two")
    refused(run("check", tmp_path / "nowhere"), "nowhere")
    assert not (tmp_path / "runs").exists()


def test_wrong_recipes(run: Run, photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r")
    refused(run("train", photos, "--recipe", "smal-images", *out), "did you mean 'small-images'")
    refused(run("train", photos, "--recipe", "no.toml", *out), "no.toml: cannot read")
    refused(run("train", photos, "--set", "optim.lrr=1", *out), "unknown key 'optim.lrr'", "'lr'")
    refused(run("train", photos, "--set", "optim.lr=quick", *out), "'optim.lr' = 'quick'", "number")
    refused(run("train", photos, "--set", "optim.lr", *out), "write it as key=value")
    refused(run("train", photos, "--set", "seed=x", *out), "'seed' = 'x'")
    refused(run("config", "small-images", "--set", "a=1"), "unknown key 'a'")
    answer = run("train", photos, "--model", "vit_tiny_patch16_242", *out)
    refused(answer, "unknown model", "did you mean 'vit_tiny_patch16_224'")
    assert not (tmp_path / "r").exists()


def test_wrong_models(run: Run, photos: Path, model_file: Path, tmp_path: Path) -> None:
    image = photos / "red" / "00.png"
    refused(run("predict", "nothing.safetensors", image), "no such model file")
    refused(run("predict", "vit_tiny_patch16_224", image), "a variant without weights")
    refused(run("info", tmp_path), "no model.safetensors in this folder")
    data = model_file.read_bytes()
    for name, content in {
        "empty": b"",
        "short": data[:1000],
        "cut": data[:-100],
        "flipped": data[:-7] + bytes([data[-7] ^ 1]) + data[-6:],
        "text": b"hello, I am no model file at all",
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        refused(run("predict", path, image), f"{name}.safetensors", "damaged")
        refused(run("evaluate", path, photos), f"{name}.safetensors", "damaged")
    newer = tmp_path / "newer.safetensors"
    newer.write_bytes(data.replace(b'\\"format_version\\":1', b'\\"format_version\\":9', 1))
    assert newer.read_bytes() != data
    for verb in (("predict", newer, image), ("info", newer)):
        refused(run(*verb), "format 9", "pip install --upgrade vitrail")


def test_wrong_paths_to_predict(run: Run, photos: Path, model_file: Path, tmp_path: Path) -> None:
    image = photos / "red" / "00.png"
    refused(run("predict", model_file, tmp_path / "no.jpg"), "no.jpg")
    refused(run("predict", model_file, str(tmp_path / "*.jpg")), "no images found")
    refused(run("predict", model_file, image, "--shard", "2/2"), "--shard 2/2", "e.g. 0/4")
    refused(run("predict", model_file, image, "--shard", "x"), "--shard x")
    refused(run("predict", model_file, image, "--out", tmp_path / "p.xls"), "p.xls", ".parquet")
    refused(run("predict", model_file, image, "--device", "toaster"), "toaster", "vitrail doctor")
    refused(run("predict", model_file, image, "--batch-size", 0), "--batch-size")


def huge_png() -> bytes:
    """A PNG that promises 20,000 x 20,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def test_an_image_above_the_limit(run: Run, model_file: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", per_class=6)
    huge = data / "red" / "huge.png"
    huge.write_bytes(huge_png())
    answer = run("predict", model_file, huge)
    assert answer.code == 0
    assert "error: the image is too large" in answer.out
    answer = run("evaluate", model_file, data, "--json", "--split", "all")
    assert (answer.json["count"], answer.json["quarantined"]) == (18, 1)
    out = tmp_path / "r"
    answer = run("train", data, "--out", out, "--json", *sets(), "--set", "schedule.epochs=1")
    assert answer.json["quarantined"] == 1
    assert "red/huge.png,the image is too large" in (out / "quarantine.csv").read_text().replace(
        '"', ""
    )


def test_strict_data_end_training(run: Run, photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r", *sets(), "--set", "data.strict=true", "--seed", 1)
    answer = run("train", photos, *out)
    lists = (tmp_path / "r" / "quarantine.csv").is_file()
    assert lists or answer.code == 2, "in the train part it is an error, elsewhere it is listed"
    if not lists:
        refused(answer, "red/bad.png", "not an image")


def test_runs_are_not_mixed_up(
    run: Run, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(run("train", photos, "--out", trained), "holds a run already", "--resume")
    refused(run("train", "--resume", "--out", tmp_path / "none"), "no run to resume")
    monkeypatch.chdir(tmp_path)
    refused(run("train", "--resume"), "no run to resume below runs/", "--out")
    refused(run("train", "--resume", "--out", trained, "--epochs", 3), "own recipe")
    other = write_folder(tmp_path / "other", per_class=5)
    refused(run("train", other, "--resume", "--out", trained), "data has changed", "train afresh")


def test_a_run_that_has_not_finished_has_no_model(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    answer = run("predict", tmp_path, photos)
    refused(answer, "no model.safetensors", f"vitrail train --resume --out {tmp_path}")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_without_a_network_the_way_out_is_said(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    answer = run("train", name, "--out", tmp_path / "r")
    refused(answer, f"{name}: cannot be downloaded", "put ", "into ", "VITRAIL_DATA", ".gz")


@pytest.mark.parametrize("kilobytes", [12, 64, 2048])
def test_a_full_disk_ends_training_in_one_line(
    kilobytes: int, run: Run, photos: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        answer = run("train", photos, "--out", disk / "r", *sets())
        refused(answer, "o space left on", "free")


def test_a_full_disk_ends_prediction_in_one_line(
    run: Run, photos: Path, model_file: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        (disk / "full").write_bytes(bytes(4096))
        answer = run("predict", model_file, photos, "--out", disk / "p.jsonl")
        refused(answer, "p.jsonl", "o space left on", "give another --out")
        assert [path.name for path in disk.iterdir()] == ["full"]


def test_a_folder_that_may_not_be_written(run: Run, photos: Path, model_file: Path) -> None:
    answer = run("predict", model_file, photos, "--out", "/proc/none/p.jsonl")
    refused(answer, "/proc/none/p.jsonl", "another --out")


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_during_predict(
    number: int, code: int, word: str, model_file: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for i in range(3000):
        os.link(tmp_path / "a.png", tmp_path / f"b{i}.png")
    words = [
        "predict",
        model_file,
        tmp_path / "*.png",
        "--batch-size",
        1,
        "--out",
        tmp_path / "p.csv",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitrail.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=subprocess_env(),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in maps.read_text(errors="replace"):
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == f"error: {word}"
    assert "Traceback" not in err
    assert not (tmp_path / "p.csv").exists()


def test_the_writer_used_by_all_is_atomic(tmp_path: Path, model_file: Path) -> None:
    """A model file that is replaced is the old or the new one."""
    from vitrail.weights.modelfile import load_model

    model, provenance = load_model(model_file)
    path = tmp_path / "m.safetensors"
    write_atomically(path, b"old")
    save_model(model, path, provenance)
    assert load_model(path)[1] == provenance
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
