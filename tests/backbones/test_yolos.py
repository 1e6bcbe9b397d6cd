"""YOLOS: a ViT with tokens that find objects."""

from __future__ import annotations

import pytest
import torch

from tiny import randomise
from vitrail.backbones import FAMILIES
from vitrail.backbones.vit import ViT, ViTConfig
from vitrail.backbones.yolos_sizes import YOLOS
from vitrail.explain.layers import prefix_names

PARAMETERS = {"yolos_tiny": 6.5e6, "yolos_small": 30.7e6, "yolos_base": 127e6}
"""Of the README of the owners, with their heads."""


def tiny() -> ViT:
    config = YOLOS["yolos_nano_patch2_8"].config
    assert isinstance(config, ViTConfig)
    return randomise(ViT(config), std=0.2).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name: str) -> None:
    config = FAMILIES["yolos"][name].config
    with torch.device("meta"):
        found = sum(p.numel() for p in ViT(config).parameters())
    heads = 4 * (config.width**2 + config.width) + 97 * (config.width + 1)
    assert found + heads == pytest.approx(PARAMETERS[name], rel=0.01)


def test_queries_are_its_own_tokens_behind_the_class_token() -> None:
    backbone = tiny()
    features = backbone(torch.randn(2, 3, 6, 10))
    assert features.queries is not None
    assert features.queries.shape == (2, 4, 32)
    assert torch.equal(features.queries, features.tokens[:, 1:5])
    assert prefix_names(backbone) == ("class", "query 1", "query 2", "query 3", "query 4")


def test_every_later_block_is_told_places_again() -> None:
    backbone = tiny()
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = backbone(images).tokens
        for table in backbone.layer_pos_embed.parameters():
            table[:, 1:5, 0] += 1.0  # of the queries alone
        after = backbone(images).tokens
    assert len(backbone.layer_pos_embed) == 2
    assert not torch.allclose(before[:, 1:5], after[:, 1:5])


def test_a_classifier_has_none() -> None:
    assert (
        ViT(ViTConfig(image_size=(8, 8), stem={"kind": "patch", "patch_size": 4}, depth=1))(  # pyright: ignore[reportArgumentType]
            torch.zeros(1, 3, 8, 8)
        ).queries
        is None
    )
