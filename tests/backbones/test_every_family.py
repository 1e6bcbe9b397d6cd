"""What holds for every family; one that is added to the union tomorrow is under these tests.

A family is tried by its presets for small images, of which it must have at least one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from pictures import in_memory
from tiny import randomise
from vitrail.backbones import FAMILIES, VARIANTS, BackboneConfig, build_backbone
from vitrail.backbones.backbone import Backbone
from vitrail.config import build, override
from vitrail.errors import ConfigError, ImageSizeError
from vitrail.model import Model, ModelConfig, create_model, model_config
from vitrail.tasks.classify import ClassifyConfig
from vitrail.train.loop import Trainer
from vitrail.train.recipe import Recipe
from vitrail.weights.modelfile import Provenance, load_model, save_model

CONFIGS = get_args(get_args(BackboneConfig)[0])
PRESETS = {
    name: variant.config
    for name, variant in VARIANTS.items()
    if not variant.published and max(variant.config.image_size) <= 8
}
"""Presets for images of 8 x 8."""

every = pytest.mark.parametrize("name", PRESETS)
one_a_member = pytest.mark.parametrize(
    "name", {type(config): name for name, config in reversed(PRESETS.items())}.values()
)
"""For what takes seconds: the first preset of each member of the union."""


def images(height: int, width: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def built(name: str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(PRESETS[name])


def test_every_member_of_the_union_has_a_preset() -> None:
    assert {type(config) for config in PRESETS.values()} == set(CONFIGS)
    assert all(any(name in PRESETS for name in family) for family in FAMILIES.values())


@every
def test_maps_have_the_declared_strides_at_any_size(name: str) -> None:
    backbone = built(name).eval()
    least = backbone.strides[-1]
    assert list(backbone.strides) == sorted(backbone.strides)
    assert backbone.strides[-1] == PRESETS[name].stride
    sizes = {(least, least), (least, 3 * least), (8, 8), (7, 13), (17, 5), (24, 9), (33, 40)}
    for height, width in sorted(sizes):
        if min(height, width) < least:
            continue
        with torch.no_grad():
            features = backbone(images(height, width))
        for found, channels, stride in zip(
            features.maps, backbone.channels, backbone.strides, strict=True
        ):
            assert found.shape == (2, channels, -(-height // stride), -(-width // stride))
        last = features.maps[-1]
        assert features.tokens.shape == (
            2,
            backbone.prefix + last.shape[2] * last.shape[3],
            last.shape[1],
        )
        patches = features.tokens[:, backbone.prefix :].transpose(1, 2)
        torch.testing.assert_close(last.flatten(2), patches)
        assert features.pooled.shape == (2, backbone.pooled_width)
        assert (features.distilled is not None) == backbone.distilled
        for tensor in (*features.maps, features.tokens, features.pooled):
            assert bool(tensor.isfinite().all())


@every
def test_an_image_below_the_coarsest_stride_is_refused(name: str) -> None:
    backbone = built(name).eval()
    least = backbone.strides[-1]
    if least == 1:
        return
    with pytest.raises(ImageSizeError, match=rf"{least - 1} x 40 pixels .* at least {least} x"):
        backbone(images(least - 1, 40))
    table = PRESETS[name].model_dump() | {"image_size": (40, least - 1)}
    with pytest.raises(ConfigError, match=f"40 x {least - 1} pixels") as caught:
        build(type(PRESETS[name]), table, source="test")
    assert "\n" not in str(caught.value)


@every
def test_every_parameter_learns(name: str) -> None:
    """All that takes part in training has a gradient; what is frozen is no part of it."""
    model = create_model(name, classes=3).train()
    randomise(model, std=0.1)
    output = model(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    output.square().sum().backward()
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, key
        elif parameter.numel():
            assert parameter.grad is not None, key
            assert bool(parameter.grad.isfinite().all()), key


@every
def test_a_batch_is_its_images_and_evaluation_repeats_itself(name: str) -> None:
    backbone = built(name).eval()
    x = images(8, 11, count=3)
    with torch.no_grad():
        whole, again, last = backbone(x), backbone(x), backbone(x[2:])
    assert torch.equal(whole.pooled, again.pooled)
    torch.testing.assert_close(last.pooled, whole.pooled[2:], rtol=1e-4, atol=1e-5)


@every
def test_layers_hold_the_body_once_from_the_stem_on(name: str) -> None:
    backbone = built(name)
    places = [id(p) for group in backbone.layers() for m in group for p in m.parameters()]
    assert len(places) == len(set(places)), "a parameter stands in two groups"
    total = sum(p.numel() for p in backbone.parameters())
    known = set(places)
    held = sum(p.numel() for p in backbone.parameters() if id(p) in known)
    assert held > 0.9 * total


@every
def test_half_precision(name: str) -> None:
    model = create_model(name, classes=3).to(torch.bfloat16).eval()
    with torch.no_grad():
        output = model(torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8))
    assert output.dtype == torch.bfloat16
    assert bool(output.isfinite().all())


@every
def test_a_model_file_gives_the_same_answer(name: str, tmp_path: Path) -> None:
    model = randomise(create_model(name, classes=3), std=0.1).eval()
    loaded, _ = load_model(save_model(model, tmp_path / "m.safetensors", Provenance()))
    assert loaded.config == model.config
    assert ModelConfig.model_validate_json(model.config.model_dump_json()) == model.config
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


@every
def test_a_giant_that_nobody_means_is_refused_at_once(name: str) -> None:
    """A header that was made up must not take memory, not even on the meta device."""
    table = PRESETS[name].model_dump()
    for key in ("depth", "layers", "width"):
        if key in table:
            with pytest.raises(ConfigError, match=f"'{key}' = 99999999"):
                build(type(PRESETS[name]), table | {key: 99_999_999}, source="test")
    if "depths" in table:
        with pytest.raises(ConfigError, match="depths"):
            build(type(PRESETS[name]), table | {"depths": (99_999_999,)}, source="test")


COMPILE = """
import sys, torch
from vitrail.model import create_model
name = sys.argv[1]
torch.manual_seed(0)
model = create_model(name, classes=4).eval()
images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
with torch.no_grad():
    plain = model(images)
    fast = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(fast(images), plain)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), plain)
model.train()
loss = torch.compile(model, fullgraph=True, backend='aot_eager')(images).square().sum()
loss.backward()
"""


@one_a_member
def test_compiles_without_a_graph_break_and_exports(name: str) -> None:
    """In a process of its own: the shape checks of the tests would break the graph."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


class StopError(Exception):
    """In the place of `kill -9`: nothing in the product catches it."""


RECIPE = (
    *("schedule.epochs=2", "data.batch_size=8", "optim.lr=1e-3", "ema=0.9"),
    *("optim.clip_grad=1.0", "optim.layer_decay=0.8", "mix={mixup=0.8, cutmix=1.0}"),
    *('data.workers={kind="serial"}', "run.checkpoint_steps=1"),
)


def trainer_of(name: str, run: Path, listener: Any = lambda _: None) -> Trainer:
    torch.manual_seed(0)
    data = in_memory()
    config = model_config(name, ClassifyConfig(classes=data.classes))
    fields = type(config.backbone).model_fields
    if "drop_path" in fields:
        backbone = config.backbone.model_copy(update={"drop_path": 0.2})
        config = config.model_copy(update={"backbone": backbone})
    recipe = build(Recipe, override({}, RECIPE), source="test")
    return Trainer(Model(config), data, in_memory(9, seed=1), recipe, run, listener)


@every
def test_resumes_bit_exact(name: str, tmp_path: Path) -> None:
    whole = trainer_of(name, tmp_path / "whole")
    whole.fit()
    seen = [0]

    def stop(_: object) -> None:
        seen[0] += 1
        if seen[0] == 4:
            raise StopError

    with pytest.raises(StopError):
        trainer_of(name, tmp_path / "cut", stop).fit()
    resumed = trainer_of(name, tmp_path / "cut")
    assert resumed.restore()
    assert 0 < resumed.position.step < 6
    resumed.fit()
    expected = load_file(whole.best_file)
    found = load_file(resumed.best_file)
    assert expected.keys() == found.keys()
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[key]), key
    for key, tensor in expected.items():
        assert torch.equal(tensor, found[key]), key
