from __future__ import annotations

import pytest
import torch

from tiny import tiny_model
from vitrail.backbones import FAMILIES
from vitrail.model import Model, model_config, model_names
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.weights.build import assign, empty_model, on_meta

SMALL = sorted(
    name
    for variants in FAMILIES.values()
    for name, variant in variants.items()
    if max(variant.config.image_size) <= 64
)
PUBLISHED = [
    next(n for n, v in variants.items() if v.published)
    for variants in (v for v in FAMILIES.values() if any(one.published for one in v.values()))
]


@pytest.mark.parametrize("name", [*SMALL, *PUBLISHED])
def test_every_family_is_the_same_model(name: str) -> None:
    config = model_config(name, ClassifyConfig(classes=("a", "b")))
    torch.manual_seed(0)
    model = Model(config).eval()
    expected = torch.rand(1)
    torch.manual_seed(0)
    Model(config)
    built = empty_model(config)
    big = [p for p in built.parameters() if p.numel() > 100_000]
    assert all(p.is_meta for p in big)
    assert torch.equal(torch.rand(1), expected)  # nothing was drawn
    state = model.state_dict()
    assign(built, state).eval()
    learning = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: p.requires_grad for n, p in built.named_parameters()} == learning
    assert {n: b.dtype for n, b in built.named_buffers()} == {
        n: b.dtype for n, b in model.named_buffers()
    }
    for name, tensor in built.state_dict().items():
        assert tensor.data_ptr() == state[name].data_ptr()
    images = torch.randint(0, 256, (1, 3, *config.backbone.image_size), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(built(images), model(images))


@pytest.mark.parametrize("name", model_names())
def test_on_meta_nothing_takes_memory(name: str) -> None:
    config = model_config(name, ClassifyConfig(classes=("a", "b")))
    with on_meta():
        found = Model(config)
    with torch.device("meta"):
        expected = Model(config)
    assert all(t.is_meta or t.numel() == 1 for t in found.state_dict().values())
    shapes = {key: (t.shape, t.dtype) for key, t in expected.state_dict().items()}
    assert {key: (t.shape, t.dtype) for key, t in found.state_dict().items()} == shapes
    assert sum(b.numel() for b in found.buffers() if not b.is_meta) < 100


def test_transcription() -> None:
    config = model_config(SMALL[0], TranscribeConfig(alphabet=tuple("0123"), max_length=4))
    model = Model(config).eval()
    built = assign(empty_model(config), model.state_dict()).eval()
    images = torch.zeros(1, 3, *config.backbone.image_size, dtype=torch.uint8)
    assert torch.equal(
        built.backbone(built.normalise(images)).tokens,
        model.backbone(model.normalise(images)).tokens,
    )


def test_weights_become_float32_and_contiguous() -> None:
    model = tiny_model()
    state = {
        name: (t.half().T.clone().T if t.dim() == 2 else t)
        for name, t in model.state_dict().items()
    }
    built = assign(empty_model(model.config), state)
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in built.parameters())


def test_a_tensor_too_few_is_not_left_on_meta() -> None:
    model = tiny_model()
    state = dict(list(model.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        assign(empty_model(model.config), state)
