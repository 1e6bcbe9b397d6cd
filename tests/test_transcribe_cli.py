"""Texts from end to end: a CSV of images and what they say, trained on and read again."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Run, refused, sets
from pictures import write_folder

INK = {"a": (220, 40, 40), "b": (40, 220, 40), "c": (40, 40, 220)}
"""What each symbol looks like: a square of a colour."""

QUICK = (
    "schedule.epochs=2",
    "data.batch_size=8",
    'data.workers={kind="serial"}',
    "model.image_size=[8, 32]",
    "model.backbone.depth=1",
    "transcribe.depth=1",
)


def write_texts(root: Path, count: int = 24, rows: Sequence[Sequence[str]] = ()) -> Path:
    """Images of 1 to 4 squares, each of a size of its own; `rows` are added to the table."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = [["path", "text", "split"][: len(rows[0]) if rows else 2]]
    for i in range(count):
        text = "".join(rng.choice(list(INK), rng.integers(1, 5)))
        pixels = np.array([[INK[symbol] for symbol in text]], dtype=np.uint8)
        side = int(rng.integers(6, 12))
        image = Image.fromarray(pixels).resize((side * len(text), side + i % 3))
        image.save(root / f"{i:02}.png")
        table.append([f"{i:02}.png", text, "train"][: len(table[0])])
    table += [list(row) for row in rows]
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    return root / "labels.csv"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with one image that is none."""
    table = write_texts(tmp_path_factory.mktemp("texts") / "data", rows=[("bad.png", "abc")])
    table.with_name("bad.png").write_bytes(b"no image")
    return table


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, made by the library."""
    from vitrail.train.run import train

    return train(str(texts), overrides=QUICK, out=tmp_path_factory.mktemp("runs") / "run").run


def test_train(run: Run, texts: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r", "--json")
    answer = run("train", texts, "--task", "transcribe", *out, *sets())
    assert answer.code == 0, answer.err
    assert answer.json["task"] == "transcribe"
    assert answer.json["metrics"].keys() == {"exact_match", "cer"}
    assert answer.json["quarantined"] == 1
    assert "3 symbols" in answer.err
    assert "bad.png" in (tmp_path / "r" / "quarantine.csv").read_text(encoding="utf-8")


def test_evaluate_and_predict_agree(run: Run, texts: Path, trained: Path, tmp_path: Path) -> None:
    measured, read = tmp_path / "e.jsonl", tmp_path / "p.jsonl"
    answer = run("evaluate", trained, texts, "--split", "all", "--out", measured, "--json")
    assert (answer.json["count"], answer.json["quarantined"]) == (24, 1)
    assert answer.json["task"] == "transcribe"
    answer = run("predict", trained, texts.parent / "*.png", "--out", read, "--json")
    assert answer.json == {"out": str(read), "count": 25, "errors": 1}
    rows = [
        {Path(row["path"]).name: row.get("text") for row in map(json.loads, lines)}
        for lines in (file.read_text(encoding="utf-8").splitlines() for file in (measured, read))
    ]
    assert rows[0] == rows[1]
    held = run("evaluate", trained, texts, "--json")
    assert held.json["split"] == "test"
    table = tmp_path / "p.csv"
    run("predict", trained, texts.parent, "--out", table)
    assert table.read_text(encoding="utf-8").startswith("path,text,score,error")
    assert "transcribe: alphabet a, b, c," in run("info", trained).out


def test_check(run: Run, texts: Path) -> None:
    answer = run("check", texts, "--json")
    assert answer.code == 1
    assert "bad.png" in json.dumps(answer.json["findings"])


def test_the_task_and_the_data_contradict(
    run: Run, texts: Path, trained: Path, tmp_path: Path
) -> None:
    photos = write_folder(tmp_path / "photos", per_class=4)
    refused(run("train", texts, "--task", "classify"), "--task transcribe")
    refused(run("train", photos, "--task", "transcribe"), "--task classify", "'path,text'")
    refused(run("evaluate", trained, photos), "the model writes texts", "'path,text'")
    refused(run("evaluate", trained, "digits"), "the model writes texts")
    overrides = ("--out", tmp_path / "r", "--set", "transcribe.width=8")
    refused(run("train", photos, *overrides), "transcribe: the data has classes", "leave")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("transcribe.max_length=3", ("a text of 4 symbols", "transcribe.max_length")),
        ("transcribe.heads=5", ("transcribe: width 96", "heads 5")),
        ("transcribe.heads=0", ("'transcribe.heads' = 0",)),
        ("mix.mixup=0.8", ("mix.mixup", "set both to 0")),
        ("augment.hflip=0.5", ("augment.hflip", "set both to 0")),
        ('augment.geometry={kind="random_resized_crop"}', ("cuts symbols off", "affine")),
        ("class_weights=balanced", ("class_weights", "set it to none")),
        ("distill.teacher=x", ("distill", "leave its keys away")),
        ("stop.metric=top1", ("stop.metric = 'top1'", "exact_match")),
    ],
)
def test_what_spoils_texts_is_said_before_training(
    change: str, wanted: tuple[str, ...], run: Run, texts: Path, tmp_path: Path
) -> None:
    answer = run("train", texts, "--out", tmp_path / "r", *sets((*QUICK, change)))
    refused(answer, *wanted)
    assert not (tmp_path / "r").exists(), "nothing was written, let alone trained"


def test_longer_texts_in_the_test_part(run: Run, tmp_path: Path) -> None:
    """What the model could never be measured on is said before an hour of training."""
    more = [("00.png", "ab", "val"), ("01.png", "a" * 33, "test")]
    table = write_texts(tmp_path / "data", rows=more)
    answer = run("train", table, "--out", tmp_path / "r", *sets())
    refused(answer, "01.png: a text of 33 symbols is longer than the 32", "transcribe.max_length")
    assert not (tmp_path / "r").exists()


def test_texts_that_the_model_cannot_write(run: Run, trained: Path, tmp_path: Path) -> None:
    strange = write_texts(tmp_path / "strange", rows=[("00.png", "axb")])
    refused(
        run("evaluate", trained, strange, "--split", "all"), "00.png", "'x'", "alphabet ('abc')"
    )
    empty = write_texts(tmp_path / "empty", rows=[("00.png", " ")])
    refused(run("evaluate", trained, empty), "row 26 has no text", "take it out")
    refused(run("train", empty), "row 26 has no text")


def test_too_few_texts(run: Run, tmp_path: Path) -> None:
    table = write_texts(tmp_path / "few", count=1)
    refused(run("train", table), "too few images", "some more of every symbol")


@pytest.mark.parametrize("lengths", ["5-3", "0-3", "13", "", "1-65", "a-b"])
def test_strips_of_no_length(lengths: str, run: Run) -> None:
    refused(run("train", f"strips:{lengths}"), "no range of lengths", "e.g. strips:13-20")
