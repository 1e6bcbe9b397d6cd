"""Every family behind the same commands, and what each of them cannot do in one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

from command_line import Answer, Run, refused, sets
from pictures import COLOURS, QUICK, write_folder
from presets import PRESETS
from tiny import randomise
from vitrail.model import create_model
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.weights.modelfile import Provenance, read_header, save_model

ONCE = ("schedule.epochs=1", *QUICK[1:])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("families") / "photos", per_class=5)


def teacher(path: Path, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    return save_model(create_model("resnet_nano_8", classes=classes), path, Provenance())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_trains_and_answers(name: str, run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    layers = ("optim.freeze=1", "optim.layer_decay=0.7")
    words = ("--model", name, "--out", out, "--json", *sets((*ONCE, *layers)))
    answer = run("train", photos, *words)
    assert answer.code == 0, answer.err
    assert run("evaluate", out, photos, "--json").json["metrics"] == answer.json["metrics"]
    image = photos / "red" / "00.png"
    assert run("predict", out, image).out.startswith(f"{image}  ")
    kind = run("info", out, "--json").json["config"]["backbone"]["kind"]
    assert f"{kind}: " in run("info", out).out


@pytest.mark.parametrize(
    ("model", "change", "wanted"),
    [
        ("swin_nano_8", "model.image_size=[1, 1]", ("at least 2 x 2",)),
        ("deit_tiny_patch16_224", "model.image_size=[8, 8]", ("at least 16 x 16",)),
        ("swin_tiny_patch4_window7_224", "model.image_size=[8, 8]", ("at least 32 x 32",)),
        ("resnet18", "model.image_size=[8, 8]", ("at least 32 x 32",)),
        ("vit_nano_conv2_8", "model.backbone.depth=0", ("'depth' = 0",)),
        ("vit_nano_conv2_8", "model.backbone.heads=5", ("not a multiple of heads 5",)),
        ("t2t_nano_8", "model.backbone.heads=5", ("not a multiple of heads 5",)),
        ("hybrid_nano_8", "model.backbone.heads=5", ("not a multiple of heads 5",)),
        ("swin_nano_8", "model.backbone.heads=[5, 5]", ("cannot have 5 heads",)),
        ("swin_nano_8", "model.backbone.window=0", ("'window' = 0",)),
        ("lstm_nano_8", "model.backbone.cell=elman", ("'cell' = 'elman'", "'lstm'")),
        ("lstm_nano_8", "model.drop_path=0.1", ("model.drop_path = 0.1", "set it to 0")),
        ("resnet_nano_8", "model.backbone.hedas=3", ("unknown key 'hedas'",)),
        ("swin_nano", "seed=0", ("unknown model 'swin_nano'", "did you mean 'swin_nano_8'")),
    ],
)
def test_what_a_family_cannot_be(
    model: str, change: str, wanted: tuple[str, ...], run: Run, photos: Path, tmp_path: Path
) -> None:
    changes = sets((*ONCE, change))
    refused(run("train", photos, "--model", model, "--out", tmp_path / "r", *changes), *wanted)
    assert not (tmp_path / "r").exists()


def test_no_drop_path_is_none_for_every_family(run: Run, photos: Path, tmp_path: Path) -> None:
    """So that a recipe with stochastic depth can be taken for a model without it."""
    changes = sets((*ONCE, "model.drop_path=0"))
    answer = run("train", photos, "--model", "rnn_nano_8", "--out", tmp_path / "r", *changes)
    assert answer.code == 0, answer.err


def distill(run: Run, photos: Path, out: Path, path: Path | str, *more: str) -> Answer:
    changes = (*ONCE, f"distill.teacher={path}", *more)
    return run(
        "train", photos, "--model", "deit_nano_distilled_conv2_8", "--out", out, *sets(changes)
    )


def test_distillation_from_another_family(run: Run, photos: Path, tmp_path: Path) -> None:
    path = teacher(tmp_path / "t.safetensors", classes=("red", "green", "blue"))
    for method in ("hard", "soft"):
        answer = distill(run, photos, tmp_path / method, path, f"distill.method={method}")
        assert answer.code == 0, answer.err


def test_wrong_teachers(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    other = teacher(tmp_path / "other.safetensors", ("blue", "green", "pink"))
    refused(distill(run, photos, out, other), "distill.teacher", "does not know 'red'")
    more = teacher(tmp_path / "more.safetensors", (*COLOURS, "pink"))
    refused(distill(run, photos, out, more), "distill.teacher", "has 'pink' besides")
    none = tmp_path / "none.safetensors"
    refused(distill(run, photos, out, none), "distill.teacher", "none.safetensors: no such model")
    refused(distill(run, photos, out, tmp_path), "distill.teacher", "no model.safetensors")
    refused(
        distill(run, photos, out, photos / "red" / "00.png"), "distill.teacher", "no model file"
    )
    refused(distill(run, photos, out, "resnet_nano_8"), "distill.teacher", "without weights")
    good = teacher(tmp_path / "good.safetensors")
    refused(distill(run, photos, out, good, "distill.method=kind"), "distill.method", "'soft'")
    refused(distill(run, photos, out, good, "distill.alpha=2"), "distill.alpha")
    refused(
        run("train", photos, "--recipe", "deit-distilled", "--out", out),
        "distill.teacher: teacher.safetensors: no such model",
    )
    assert not out.exists()


def test_a_teacher_that_has_gone(run: Run, photos: Path, tmp_path: Path) -> None:
    path = teacher(tmp_path / "t.safetensors")
    assert distill(run, photos, tmp_path / "r", path).code == 0
    path.unlink()
    refused(run("train", "--resume", "--out", tmp_path / "r"), "distill.teacher", "no such model")
    image = photos / "red" / "00.png"
    assert run("predict", tmp_path / "r", image).code == 0, "what it taught does not go"


def test_a_run_goes_on_with_the_teacher_that_it_began_with(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    path = teacher(tmp_path / "t.safetensors")
    assert distill(run, photos, tmp_path / "r", path).code == 0
    assert run("train", "--resume", "--out", tmp_path / "r").code == 0
    model = randomise(create_model("resnet_nano_8", classes=tuple(COLOURS)), seed=9)
    save_model(model, path, Provenance())
    refused(run("train", "--resume", "--out", tmp_path / "r"), "distill.teacher", "has changed")


def test_a_header_that_contradicts_itself(run: Run, photos: Path, tmp_path: Path) -> None:
    """Written with the right checksum, by somebody who edited it."""
    image = photos / "red" / "00.png"
    path = teacher(tmp_path / "m.safetensors")
    model = create_model("resnet_nano_8", classes=tuple(COLOURS))
    task = TranscribeConfig(alphabet=("a", "b"))
    model.config = model.config.model_copy(update={"task": task})
    save_model(model, path, Provenance())
    assert read_header(path).config.task == task
    refused(run("predict", path, image), "m.safetensors: tensor 'task.decoder", "is missing")
    giant = task.model_copy(update={"max_length": 10**9})
    model.config = model.config.model_copy(update={"task": giant})
    save_model(model, path, Provenance())
    refused(run("info", path), "m.safetensors: header: 'config.task.max_length' = 1000000000")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
)
def test_too_little_memory(
    error: Exception, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(import_module("vitrail.predict"), "predict", fail)
    path = teacher(tmp_path / "m.safetensors")
    refused(run("predict", path, photos), "not enough memory", "smaller batches")
