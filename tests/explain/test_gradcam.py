"""Grad-CAM: exact where the head is linear, for every family that rollout does not serve."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.backbones import build_backbone
from vitrail.explain.gradcam import class_evidence, describe_evidence, grad_cam
from vitrail.explain.rollout import rolls_out

MAPPED = [name for name, config in PRESETS.items() if not rolls_out(build_backbone(config))]
IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


@pytest.mark.parametrize("name", PRESETS)
def test_tokens_behind_the_prefix_are_the_cells_of_the_last_map(name: str) -> None:
    model = preset_model(PRESETS[name])
    with torch.no_grad():
        features = model.backbone(model.normalise(IMAGES))
    cells = features.tokens[:, model.backbone.prefix :].transpose(1, 2)
    torch.testing.assert_close(cells, features.maps[-1].flatten(2))


@pytest.mark.parametrize("name", MAPPED)
def test_a_cell_is_its_share_of_the_linear_head(name: str) -> None:
    """The heads of these families are linear in the mean or in the last of the cells."""
    model = preset_model(PRESETS[name])
    with torch.no_grad():
        evidence = class_evidence(model, IMAGES, [2, 0])
        features = model.backbone(model.normalise(IMAGES))
    weight = model.task.head.weight.detach()[[2, 0]]
    parts = torch.einsum("bnd,bd->bn", features.tokens, weight) / features.tokens.shape[1]
    torch.testing.assert_close(evidence, parts.view(2, *features.maps[-1].shape[2:]))
    torch.testing.assert_close(grad_cam(model, IMAGES, [2, 0]), evidence.clamp_min(0))
    assert float(evidence.max()) > 0 > float(evidence.min())


@pytest.mark.parametrize("name", MAPPED)
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


def test_a_pooled_class_token_leaves_no_gradient_on_the_patches() -> None:
    model = tiny_model(backbone=tiny_config())
    assert bool((grad_cam(model, photo(1)[None], [0]) == 0).all())


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_is_explained_by_one_of_the_two(name: str) -> None:
    assert bool(describe_evidence(PRESETS[name])) == (name in MAPPED)
