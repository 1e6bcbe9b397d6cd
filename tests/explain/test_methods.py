"""What every method promises, on one model of every family."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.data.preprocess import Line, Preprocess
from vitrail.errors import ExplainError
from vitrail.explain.layers import AttentionModule, cells
from vitrail.explain.method import Method
from vitrail.explain.methods import (
    METHODS,
    default_method,
    method_named,
)
from vitrail.model import Model, ModelConfig
from vitrail.tasks.transcribe import TranscribeConfig

SIZE = (5, 12)
IMAGES = torch.stack([photo(i, *SIZE) for i in (1, 2, 3)])
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # torch has another recurrent kernel for no gradients
WITHOUT = ("resnet", "rnn", "gru", "lstm", "bilstm")


def transcriber() -> Model:
    config = ModelConfig(
        backbone=tiny_config(),
        task=TranscribeConfig(alphabet=("a", "b"), width=16, heads=2),
        preprocess=Preprocess(resize=Line(size=(8, 12))),
    )
    return Model(config).eval()


def works(name: str, method: Method) -> bool:
    need_attention = ("gradient_rollout", "relevance", "rollout", "raw")
    return not (name.startswith(WITHOUT) and method.key in need_attention)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


PAIRS = [(name, method) for name in PRESETS for method in METHODS if works(name, method)]


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=lambda value: getattr(value, "key", value))
def test_what_every_method_promises(name: str, method: Method) -> None:
    model = preset_model(PRESETS[name])
    assert method.refuses(model) == ""
    classes = [0, 2, 1]
    maps = method.explain(model, IMAGES, classes)
    assert maps.dtype == torch.float32
    assert maps.device == IMAGES.device
    assert not maps.requires_grad
    assert maps.shape[0] == 3
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    grids = {cells(SIZE, stride) for stride in model.backbone.strides}
    if name.startswith("t2t"):
        grids.add(SIZE)  # the cells of its first soft split
    assert tuple(maps.shape[1:]) in grids
    # A batch is its images.
    alone = [method.explain(model, IMAGES[i : i + 1], classes[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), maps, **CLOSE)
    # The class matters where it should, and only there.
    other = method.explain(model, IMAGES, [1, 0, 2])
    assert torch.equal(other, maps) != method.of_class
    # The image matters to all but one.
    assert torch.equal(maps[0], maps[1]) == (method.key == "centre")


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=lambda value: getattr(value, "key", value))
def test_a_method_leaves_no_trace(name: str, method: Method) -> None:
    model = preset_model(PRESETS[name])
    maps = method.explain(model, IMAGES[:2], [0, 1])
    assert all(p.grad is None for p in model.parameters())
    assert hooks(model) == 0
    attention = [m for m in model.modules() if isinstance(m, get_args(AttentionModule))]
    assert all(m.probe is None for m in attention)
    assert not any(m.training for m in model.modules())
    assert torch.is_grad_enabled()
    # Nor does it need gradients to be on, or weights that learn.
    model.requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(method.explain(model, IMAGES[:2], [0, 1]), maps, **CLOSE)
    with torch.inference_mode():
        images = IMAGES[:2].clone()
        torch.testing.assert_close(method.explain(model, images, [0, 1]), maps, **CLOSE)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("name", "method"), PAIRS, ids=lambda value: getattr(value, "key", value))
def test_a_model_of_another_precision(name: str, method: Method, dtype: torch.dtype) -> None:
    model = preset_model(PRESETS[name])
    expected = method.explain(model, IMAGES, [0, 2, 1])
    maps = method.explain(model.to(dtype), IMAGES, [0, 2, 1])
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    if dtype == torch.float64:
        torch.testing.assert_close(maps, expected, **CLOSE)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("classes", [("a",), ("a", "b")])
def test_one_class_or_several_labels(classes: tuple[str, ...], multilabel: bool) -> None:
    """One class of softmax has probability 1 always, so that nothing can be occluded."""
    model = tiny_model(classes, tiny_config(registers=1), multilabel=multilabel)
    certain = len(classes) == 1 and not multilabel
    for method in METHODS:
        maps = method.explain(model, IMAGES, [len(classes) - 1] * 3)
        assert maps.isfinite().all()
        assert bool(maps.any()) != (certain and method.key == "occlusion"), method.key


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("name", ["deit_nano_distilled_conv2_8", "t2t_nano_8", "swinv2_nano_8"])
def test_an_error_on_the_way_leaves_no_trace(name: str, method: Method) -> None:
    model = preset_model(PRESETS[name])

    def broken(*given: object) -> None:
        raise RuntimeError("boom")

    last = [m for m in model.backbone.modules() if isinstance(m, nn.LayerNorm)][-1]
    handle = last.register_forward_hook(broken)
    if not method.baseline:
        with pytest.raises(RuntimeError, match="boom"):
            method.explain(model, IMAGES, [0, 1, 2])
    handle.remove()
    assert hooks(model) == 0
    attention = [m for m in model.modules() if isinstance(m, get_args(AttentionModule))]
    assert all(m.probe is None for m in attention)
    assert torch.is_grad_enabled()


def test_a_probe_that_is_there_stays() -> None:
    model = tiny_model()
    seen: list[int] = []
    attention = model.backbone.blocks[0].attn
    attention.probe = probe = lambda weights, v, out: seen.append(1)
    for method in METHODS:
        method.explain(model, photo(1)[None], [0])
    assert attention.probe is probe


def test_keys_differ_and_name_the_method() -> None:
    assert len({method.key for method in METHODS}) == len(METHODS)
    assert METHODS[0].key == "conservative"
    assert [method.key for method in METHODS if method.baseline] == ["centre", "random"]
    for method in METHODS:
        assert method_named(method.key) is method
        assert method.name
        assert method.paper


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ExplainError, match="unknown method 'relevence'; did you mean 'relevance'"):
        method_named("relevence")
    with pytest.raises(ExplainError, match="there are conservative, gradient_rollout, relevance"):
        method_named("xyz")


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_a_default(name: str) -> None:
    model = preset_model(PRESETS[name])
    method = default_method(model)
    assert method.key == ("gradcam" if name.startswith(WITHOUT) else "conservative")
    expected = [method for method in METHODS if works(name, method)]
    assert [method for method in METHODS if not method.refuses(model)] == expected
    for refused in set(METHODS) - set(expected):
        assert "has no attention; Grad-CAM and occlusion need none" in refused.refuses(model)


def test_a_transcriber_has_no_class_map() -> None:
    model = transcriber()
    with pytest.raises(ExplainError, match="this model does transcribe; where a text was read"):
        default_method(model)
    keys = [method.key for method in METHODS if not method.refuses(model)]
    assert keys == ["rollout", "raw", "centre", "random"]
    for method in METHODS:
        if method.of_class:
            refused = method.refuses(model)
            assert refused == "it explains the logit of a class; this model does transcribe"
    for method in (one for one in METHODS if not one.refuses(model)):
        assert method.explain(model, photo(1)[None], [0]).shape == (1, 2, 3)
