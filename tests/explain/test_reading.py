"""Which patch each symbol looked at: the same as when it was written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny import photo, randomise, tiny_config, tiny_model
from vitrail.data.preprocess import Line, Preprocess
from vitrail.errors import ExplainError
from vitrail.explain.capture import capture
from vitrail.explain.layers import attention_layers
from vitrail.explain.reading import read_text
from vitrail.model import Model, ModelConfig
from vitrail.tasks.transcribe import Transcribe, TranscribeConfig

IMAGES = torch.stack([photo(i) for i in range(6)])


def reader(seed: int = 0, backbone: dict[str, Any] | None = None, **task: Any) -> Model:
    table: dict[str, Any] = {"alphabet": ("a", "b", "c"), "max_length": 6, "width": 16, "heads": 2}
    config = ModelConfig(
        backbone=tiny_config(**(backbone or {})),
        task=TranscribeConfig(**(table | task)),
        preprocess=Preprocess(resize=Line(size=(8, 12))),
    )
    return randomise(Model(config), seed).eval()


def written(model: Model, layer: int) -> torch.Tensor:
    """Rows of one cross-attention as they came, symbol by symbol."""
    assert isinstance(model.task, Transcribe)
    number = [one.index for one in attention_layers(model) if "memory" in one.name][layer]
    with torch.no_grad(), capture(model, [number]) as record:
        model.task.write(model(IMAGES))
    return torch.cat([seen.weights for seen in record.layers], dim=2)  # B h T N


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_writing_symbol_by_symbol(seed: int, layer: int, positions: str) -> None:
    model = reader(seed, {"registers": 1}, positions=positions)
    rows = written(model, layer).mean(dim=1)
    with torch.no_grad():
        texts = model.task.postprocess(model(IMAGES))
    found = read_text(model, IMAGES, layers=[layer])
    assert [one.text for one in found] == [text.text for text in texts]
    for i, (one, text) in enumerate(zip(found, texts, strict=True)):
        assert one.score == pytest.approx(text.score, rel=1e-4)
        count = len(one.text) + one.ended
        assert one.maps.shape == (count, 2, 3)
        torch.testing.assert_close(one.maps.flatten(1), rows[i, :count, 2:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.elsewhere, rows[i, :count, :2].sum(dim=1))
        torch.testing.assert_close(one.maps.sum(dim=(1, 2)) + one.elsewhere, torch.ones(count))
        assert one.error < 1e-5


def test_texts_differ_in_length_and_some_are_cut_off() -> None:
    """Or the tests above would not see what follows a text in its batch."""
    found = [one for seed in range(3) for one in read_text(reader(seed), IMAGES)]
    assert len({len(one.text) for one in found}) > 1
    assert {one.ended for one in found} == {True, False}
    for one in found:
        assert one.ended or len(one.text) == 6


def test_layers_and_heads_are_averaged() -> None:
    model = reader(1)
    first, second = written(model, 0), written(model, 1)
    for layers, heads, rows in (
        ([0, 1], None, (first + second).mean(dim=1) / 2),
        ([-1], [1], second[:, 1]),
        ([0], [0, -1], first.mean(dim=1)),
    ):
        for i, one in enumerate(read_text(model, IMAGES, layers=layers, heads=heads)):
            expected = rows[i, : len(one.maps), 1:]
            torch.testing.assert_close(one.maps.flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_a_batch_is_its_images() -> None:
    model = reader(2)
    for i, one in enumerate(read_text(model, IMAGES)):
        (alone,) = read_text(model, IMAGES[i : i + 1])
        assert alone.text == one.text
        torch.testing.assert_close(alone.maps, one.maps, rtol=1e-4, atol=1e-6)


def test_a_text_found_by_a_beam_is_read_too() -> None:
    model = reader(1, beams=3)
    with torch.no_grad():
        texts = model.task.postprocess(model(IMAGES))
    found = read_text(model, IMAGES)
    assert [one.text for one in found] == [text.text for text in texts]
    assert all(len(one.maps) == len(one.text) + one.ended for one in found)


def test_what_does_not_read_is_refused() -> None:
    with pytest.raises(ExplainError, match="this model does classify: only a model that writes"):
        read_text(tiny_model(), IMAGES)
    with pytest.raises(ExplainError, match=r"layer 2: .* has 2 layers"):
        read_text(reader(), IMAGES, layers=[2])
    with pytest.raises(ExplainError, match="head 2: decoder block 2, memory"):
        read_text(reader(), IMAGES, heads=[2])
    with pytest.raises(ExplainError, match="no layer was asked for"):
        read_text(reader(), IMAGES, layers=[])
