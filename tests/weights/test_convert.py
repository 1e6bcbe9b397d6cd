from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_disk import small_disk
from tiny import randomise, tiny_config, tiny_model
from vitrail.backbones.vit import PatchStemConfig
from vitrail.errors import CheckpointError
from vitrail.model import Model, create_model, model_config
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.weights.convert import TARGETS, convert, default_out, loaded_from, write_loaded
from vitrail.weights.load import load_checkpoint
from vitrail.weights.modelfile import Provenance, load_model, save_model
from vitrail.weights.reader import Given

CONFIG = tiny_config(image_size=(16, 16), stem=PatchStemConfig(patch_size=4))
IMAGES = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()


def scores(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model.task.probabilities(model(IMAGES))


@pytest.mark.parametrize("to", ["timm", "hf", "official", "torchvision"])
def test_calibrated_scores_are_the_same_in_formats_that_know_no_temperature(
    to: str, tmp_path: Path
) -> None:
    model = tiny_model(backbone=CONFIG, temperature=2.5)
    loaded = loaded_from(model, "tiny", "MIT")
    out = tmp_path / "out"
    written = write_loaded(loaded, to, out)
    again = load_checkpoint(out if out.is_dir() else written[0], Given(backbone={"heads": 2}))
    assert again.described.task is not None
    assert again.described.task.temperature == 1.0
    torch.testing.assert_close(scores(again.model()), scores(model), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(again.state["task.head.weight"], loaded.state["task.head.weight"])


def test_our_own_file_keeps_the_temperature(tmp_path: Path) -> None:
    model = tiny_model(temperature=2.5)
    (path,) = write_loaded(loaded_from(model, "tiny", "MIT"), "vitrail", tmp_path / "m.safetensors")
    again, provenance = load_model(path)
    assert again.config == model.config
    assert provenance.licence == "MIT"
    assert "tiny" in provenance.data


def test_a_model_file_or_run_is_a_source_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(tiny_model(), run / "model.safetensors", Provenance())
    (run / "run.json").write_text("{}")
    for source in (run, run / "model.safetensors"):
        out = tmp_path / f"{source.name}-out"
        files = convert(str(source), "timm", out)
        assert {path.name for path in files} == {"model.safetensors", "config.json"}


def test_what_others_do_not_have_is_refused_with_the_reason(tmp_path: Path) -> None:
    cases = {
        "timm": create_model("rnn_nano_8", classes=3),
        "hf": tiny_model(backbone=tiny_config(positions={"kind": "rotary_2d"})),
        "google": tiny_model(),
    }
    for to, model in cases.items():
        with pytest.raises(CheckpointError, match=f"tiny: cannot be written as {to}: .{{10}}"):
            write_loaded(loaded_from(randomise(model), "tiny", ""), to, tmp_path / to)
        assert not (tmp_path / to).exists()
    with pytest.raises(CheckpointError, match="no such format; known: vitrail, timm"):
        write_loaded(loaded_from(tiny_model(), "tiny", ""), "keras", tmp_path / "x")


def test_a_format_without_such_a_task_is_refused(tmp_path: Path) -> None:
    task = TranscribeConfig(alphabet=("a", "b"), max_length=4)
    model = Model(model_config("vit_nano_conv2_8", task))
    with pytest.raises(CheckpointError, match="as timm: no such format for the task 'transcribe'"):
        write_loaded(loaded_from(model, "strips", ""), "timm", tmp_path / "timm")


@pytest.mark.parametrize(
    ("source", "to", "name"),
    [
        ("weights/deit.pth", "vitrail", "deit-vitrail.safetensors"),
        ("a/T2T_14.pth.tar", "official", "T2T_14-official.pth"),
        ("hf-hub:owner/name", "hf", "name-hf"),
        ("runs/photos", "google", "photos-google.npz"),
        ("runs/photos/model.safetensors", "timm", "photos-timm"),
    ],
)
def test_default_names(source: str, to: str, name: str) -> None:
    assert default_out(source, to) == Path(name)
    assert to in TARGETS


def test_nothing_is_left_of_a_folder_that_does_not_fit(tmp_path: Path) -> None:
    path = save_model(tiny_model(backbone=CONFIG), tmp_path / "m.safetensors", Provenance())
    with small_disk(tmp_path / "disk", 16) as disk:
        for to in ("timm", "hf"):
            with pytest.raises(CheckpointError, match=rf"disk/{to}/.*cannot write"):
                convert(str(path), to, disk / to)
        assert list(disk.iterdir()) == []


def test_a_model_file_is_copied_with_its_history(tmp_path: Path) -> None:
    history = Provenance(data="photos", seed=3, metrics={"top1": 0.5}, licence="MIT")
    path = save_model(tiny_model(), tmp_path / "m.safetensors", history)
    (out,) = convert(str(path), "vitrail", tmp_path / "again.safetensors")
    assert load_model(out)[1] == history


def test_what_is_said_beside_a_model_file_is_not_passed_over(tmp_path: Path) -> None:
    path = save_model(tiny_model(), tmp_path / "m.safetensors", Provenance())
    with pytest.raises(CheckpointError, match="leave away what is given of its backbone and class"):
        convert(
            str(path), "timm", tmp_path / "o", Given(backbone={"heads": 9}, classes=("a", "b", "c"))
        )
