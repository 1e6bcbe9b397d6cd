"""Patch features as colours: real components, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from presets import PRESETS, preset_model
from tiny import photo, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain.patch_pca import patch_rgb

IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


@pytest.mark.parametrize("jointly", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_colours_are_scores_of_scikit_learn(name: str, *, jointly: bool) -> None:
    model = preset_model(PRESETS[name])
    for index in range(len(model.backbone.strides)):
        found = patch_rgb(model, IMAGES, feature_map=index, jointly=jointly)
        with torch.no_grad():
            cells = model.backbone(model.normalise(IMAGES)).maps[index]
        assert found.shape == (2, 3, *cells.shape[2:])
        assert 0 <= float(found.min()) < float(found.max()) <= 1
        vectors = cells.flatten(2).transpose(1, 2).double()
        groups = [vectors.flatten(0, 1)] if jointly else list(vectors)
        colours = found.flatten(2).transpose(1, 2)
        parts = [colours.flatten(0, 1)] if jointly else list(colours)
        for group, part in zip(groups, parts, strict=True):
            scores = PCA(3, svd_solver="full").fit_transform(group.numpy())
            for k in range(3):
                # The same but for sign and scale.
                correlation = np.corrcoef(scores[:, k], part[:, k].double().numpy())[0, 1]
                assert abs(correlation) > 0.999
                assert float(part[:, k].min()) == pytest.approx(0, abs=1e-6)
                assert float(part[:, k].max()) == pytest.approx(1, abs=1e-6)


def test_one_image_has_its_own_colours_or_those_of_all() -> None:
    model = preset_model(PRESETS["vit_nano_conv2_8"])
    apart, jointly = patch_rgb(model, IMAGES), patch_rgb(model, IMAGES, jointly=True)
    torch.testing.assert_close(patch_rgb(model, IMAGES[1:])[0], apart[1], rtol=1e-3, atol=1e-4)
    assert float((apart - jointly).abs().max()) > 0.05
    assert torch.equal(patch_rgb(model, IMAGES, jointly=True), jointly)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("order", [(3, 5), (5, 3), (0, 15)])
def test_the_sign_is_that_of_the_largest_weight(order: tuple[int, int], sign: int) -> None:
    """Two kinds of patches that differ along one direction, whichever way it points."""
    model = tiny_model()
    direction = torch.zeros(16)
    direction[order[0]], direction[order[1]] = 2 * sign, 1
    kinds = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    features = (kinds[:, None] * direction).T.reshape(1, 16, 2, 3)
    hook = lambda module, given, out: type(out)((features,), out.tokens, out.pooled)  # noqa: E731
    model.backbone.register_forward_hook(hook)
    found = patch_rgb(model, photo(1)[None])
    expected = kinds if sign > 0 else 1 - kinds
    torch.testing.assert_close(found[0, 0].flatten(), expected)
    assert (found[0, 1:] == 0.5).all()  # no more than one direction varies


def test_even_features_are_grey() -> None:
    model = tiny_model()
    features = torch.full((1, 16, 2, 3), 3.7)
    hook = lambda module, given, out: type(out)((features,), out.tokens, out.pooled)  # noqa: E731
    model.backbone.register_forward_hook(hook)
    assert (patch_rgb(model, photo(1)[None]) == 0.5).all()


def test_a_single_cell_is_grey() -> None:
    assert (patch_rgb(tiny_model(), photo(1, 4, 4)[None]) == 0.5).all()


@pytest.mark.parametrize("wanted", [3, -4])
def test_a_map_that_is_not_there_is_refused(wanted: int) -> None:
    model = preset_model(PRESETS["resnet_nano_8"])
    with pytest.raises(ExplainError, match=f"feature map {wanted}: this model has 3, 0 to 2"):
        patch_rgb(model, IMAGES, feature_map=wanted)
