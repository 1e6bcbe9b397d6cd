"""Every case through every format that can express it, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parity.cases import classifier, every_case
from vitrail.errors import CheckpointError
from vitrail.tasks import TaskConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import EncoderConfig, QueryReadout
from vitrail.types import Detections, MaskQueries, PixelLogits
from vitrail.weights.convert import TARGETS, convert, loaded_from, refusal, write_loaded
from vitrail.weights.formats import WRITERS
from vitrail.weights.load import Loaded, load_checkpoint, read_inspected
from vitrail.weights.modelfile import load_model
from vitrail.weights.reader import Given


def read_back(path: Path, to: str, given: Given) -> Loaded:
    if to == "vitrail":
        model, provenance = load_model(path)
        return loaded_from(model, str(path), provenance.licence)
    return load_checkpoint(path, given)


@every_case
@pytest.mark.parametrize("to", TARGETS)
def test_weights_and_outputs_survive(name: str, to: str, tmp_path: Path) -> None:
    _, _, inspected = classifier(name, tmp_path)
    before = read_inspected(inspected)
    out = tmp_path / ("model.npz" if to == "google" else "model")
    if refused(before, to):
        with pytest.raises(CheckpointError, match=f"as {to}: ."):
            write_loaded(before, to, out)
        assert not out.exists()
        return
    written = write_loaded(before, to, out)
    path = out if out.exists() else written[0]
    after = read_back(path, to, beside(before))
    assert after.state.keys() == before.state.keys()
    for key, tensor in before.state.items():
        assert torch.equal(after.state[key], tensor), key
    assert essentials(after) == essentials(before)
    images = torch.randint(0, 256, (2, 3, *before.described.backbone.image_size))
    with torch.no_grad():
        pair = [answers(part.model()(images.to(torch.uint8))) for part in (before, after)]
    if before.described.preprocess.mean == after.described.preprocess.mean:
        for a, b in zip(*pair, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


Answer = torch.Tensor | Detections | PixelLogits | MaskQueries


def answers(output: Answer) -> list[torch.Tensor]:
    match output:
        case Detections(logits=logits, boxes=boxes):
            return [logits, boxes]
        case MaskQueries(logits=logits, masks=masks):
            return [logits, masks]
        case PixelLogits(logits=logits):
            return [logits]
        case torch.Tensor():
            return [output]


def refused(loaded: Loaded, to: str) -> bool:
    """Whether no writer of the format can express the model."""
    return to != "vitrail" and all(refusal(w, loaded.described) for w in WRITERS if w.name == to)


def beside(loaded: Loaded) -> Given:
    """What not every format tells."""
    table = loaded.described.backbone.model_dump()
    names = ("heads", "image_size", "window", "pretrained_windows")
    return Given(
        backbone={name: table[name] for name in names if name in table},
        task=heads_of(loaded.described.task),
    )


def heads_of(task: TaskConfig | None) -> dict[str, object]:
    """Of a decoder, which not every file tells."""
    match task:
        case DetectConfig(readout=QueryReadout(heads=heads, encoder=None)):
            return {"readout": {"heads": heads}}
        case DetectConfig(readout=QueryReadout(heads=heads, encoder=EncoderConfig() as encoder)):
            return {"readout": {"heads": heads, "encoder": {"heads": encoder.heads}}}
        case _:
            return {}


def essentials(loaded: Loaded) -> dict[str, object]:
    """The configuration without what the model's own size and weights do not depend on."""
    table = loaded.described.backbone.model_dump()
    if isinstance(table.get("positions"), dict):
        table["positions"].pop("resampling", None)  # each format's own, for other sizes only
    table.pop("layer_scale", None)  # a start value
    table.pop("mlp_ratio", None)  # may come back rounded; the widths are in the weights
    if not any(table.get("pretrained_windows", ())):
        table.pop("pretrained_windows", None)  # zeros are none
    return table


@every_case
def test_every_case_has_a_way_out(name: str, tmp_path: Path) -> None:
    """At least the sealed file, and the format that it came from."""
    _, path, inspected = classifier(name, tmp_path)
    before = read_inspected(inspected)
    (out,) = convert(str(path), "vitrail", tmp_path / "out.safetensors", inspected_given(name))
    model, provenance = load_model(out)
    assert before.licence == provenance.licence
    assert model.config.backbone == before.described.backbone


def inspected_given(name: str) -> Given:
    from parity.cases import FOLDER
    from vitrail.golden import read_case

    return read_case(FOLDER / name).given


def test_converting_over_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        convert("whatever", "timm", tmp_path / "there")
