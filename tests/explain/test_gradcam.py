"""Grad-CAM: exact where the head is linear in the cells, useful where it reads a class token."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from spotted import spot_image, spot_model
from tiny import photo, tiny_config, tiny_model
from vitrail.backbones.vit import ViTConfig
from vitrail.explain.gradcam import GradCam, class_evidence, describe_evidence, grad_cam

BY_CLASS_TOKEN = [name for name in PRESETS if name.startswith(("deit", "t2t", "yolos"))]
LINEAR = [name for name in PRESETS if name not in BY_CLASS_TOKEN]
IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


@pytest.mark.parametrize("name", PRESETS)
def test_tokens_behind_the_prefix_are_the_cells_of_the_last_map(name: str) -> None:
    model = preset_model(PRESETS[name])
    with torch.no_grad():
        features = model.backbone(model.normalise(IMAGES))
    cells = features.tokens[:, model.backbone.prefix :].transpose(1, 2)
    torch.testing.assert_close(cells, features.maps[-1].flatten(2))


@pytest.mark.parametrize("name", LINEAR)
def test_a_cell_is_its_share_of_the_linear_head(name: str) -> None:
    """The heads of these families are linear in the mean or in the last of the cells."""
    model = preset_model(PRESETS[name])
    with torch.no_grad():
        evidence = class_evidence(model, IMAGES, [2, 0])
        features = model.backbone(model.normalise(IMAGES))
    weight = model.task.head.weight.detach()[[2, 0]]
    cells = features.tokens[:, model.backbone.prefix :]
    parts = torch.einsum("bnd,bd->bn", cells, weight) / cells.shape[1]
    expected = parts.view(2, *features.maps[-1].shape[2:])
    torch.testing.assert_close(evidence, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad_cam(model, IMAGES, [2, 0]), evidence.clamp_min(0))
    assert float(evidence.max()) > 0 > float(evidence.min())


@pytest.mark.parametrize("name", LINEAR)
def test_maps_add_up_to_the_logit_where_cells_are_averaged(name: str) -> None:
    config = PRESETS[name]
    if config.kind == "recurrent":
        config = config.model_copy(update={"pool": "mean"})
    model = preset_model(config)
    with torch.no_grad():
        logits = model(IMAGES)
    expected = (logits - model.task.head.bias.detach())[[0, 1], [1, 2]]
    found = class_evidence(model, IMAGES, [1, 2]).sum(dim=(1, 2))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert "add up to the logit" in describe_evidence(config)


def test_reading_up_to_a_patch_gives_the_logit_of_its_cell() -> None:
    """One direction, last state: what the sentence in the report says."""
    model = preset_model(PRESETS["lstm_nano_8"])
    stride = model.backbone.strides[-1]
    image = photo(3, stride, 4 * stride)[None]
    cells = 4 * class_evidence(model, image, [1])[0, 0]
    bias = float(model.task.head.bias.detach()[1])
    with torch.no_grad():
        for i in range(4):
            logit = model(image[..., : (i + 1) * stride])[0, 1]
            assert float(cells[i]) + bias == pytest.approx(float(logit), abs=1e-4)
    assert "had reading stopped there" in describe_evidence(PRESETS["lstm_nano_8"])


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(registers=2, norm_after_pool=True, layer_scale=0.5),
        tiny_config(norm="post"),
        tiny_config(pool="class_and_mean"),
    ],
)
def test_a_class_token_is_followed_to_what_the_last_attention_takes_in(config: ViTConfig) -> None:
    """The last block run by hand from there."""
    model = tiny_model(backbone=config)
    images, backbone = photo(1)[None], model.backbone
    last, taken = backbone.blocks[-1], []
    last.register_forward_pre_hook(lambda module, given: taken.append(given[0]))
    with torch.no_grad():
        backbone(model.normalise(images))
    stream = taken[0].detach()
    cells = (last.norm1(stream) if config.norm == "pre" else stream).detach().requires_grad_()
    mixed = last.ls1(last.attn(cells, (2, 3)))
    if config.norm == "pre":
        middle = stream + mixed
        tokens = backbone.norm(middle + last.ls2(last.mlp(last.norm2(middle))))
    else:
        middle = last.norm1(cells + mixed)
        tokens = backbone.norm(last.norm2(middle + last.mlp(middle)))
    logit = model.task.head(backbone.fc_norm(backbone.pool(tokens)))[0, 1]
    (slope,) = torch.autograd.grad(logit, cells)
    prefix = config.prefix
    expected = (cells[0, prefix:] * slope[0, prefix:].mean(dim=0)).sum(dim=1).view(2, 3)
    found = class_evidence(model, images, [1])[0]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert float(found.abs().max()) > 0


@pytest.mark.parametrize("place", [(0, 0), (1, 4), (3, 5)])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_patch_that_decides_is_found(pool: str, place: tuple[int, int]) -> None:
    model, image = spot_model(pool), spot_image(*place)[None]
    found = GradCam().explain(model, image, [0])[0]
    assert divmod(int(found.argmax()), 6) == place
    others = found.clone()
    others[place] = 0
    assert float(others.max()) < 0.1 * float(found[place])
    # What speaks for one of two opposed classes speaks against the other.
    assert float(GradCam().explain(model, image, [1])[0][place]) == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_is_described(name: str) -> None:
    config = PRESETS[name]
    said = describe_evidence(config)
    assert said.endswith(".")
    assert ("from that place" in said) == (name in BY_CLASS_TOKEN)


def test_pools_that_are_not_linear_in_the_cells_promise_no_sum() -> None:
    for config in (
        tiny_config(pool="mean", norm_after_pool=True),
        tiny_config(pool="attention"),
        tiny_config(pool="class_and_mean"),
    ):
        assert "add up to nothing" in describe_evidence(config)
