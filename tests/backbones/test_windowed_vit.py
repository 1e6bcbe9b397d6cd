"""The windowed ViT: what its windows hide, its taps, its table of positions, any image size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import randomise
from vitrail.backbones import VARIANTS
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViT, ViTConfig
from vitrail.backbones.windowed_vit import WindowedViT, WindowedViTConfig
from vitrail.backbones.windowed_vit_sizes import PUBLISHED, WINDOWED_VIT
from vitrail.config import build
from vitrail.errors import ConfigError


def config(**changes: Any) -> WindowedViTConfig:
    table: dict[str, Any] = {
        "image_size": (16, 16),
        "patch_size": 4,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "windows": 2,
        "whole": (),
        "taps": (1, 2),
        "mlp_ratio": 2.0,
    }
    return WindowedViTConfig(**(table | changes))


def built(**changes: Any) -> WindowedViT:
    torch.manual_seed(0)
    return randomise(WindowedViT(config(**changes)), std=0.3).eval()


def images(height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def vit(**changes: Any) -> ViT:
    table: dict[str, Any] = {
        "image_size": (16, 16),
        "stem": PatchStemConfig(patch_size=4),
        "positions": Learned1dConfig(),
        "width": 16,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
        "pool": "mean",
    }
    return ViT(ViTConfig(**(table | changes))).eval()


def test_with_one_window_it_is_a_vit() -> None:
    model, plain = built(windows=1, registers=2, layer_scale=0.1), vit(registers=2, layer_scale=0.1)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        found, expected = model(images(12, 20)), plain(images(12, 20))
    torch.testing.assert_close(found.tokens, expected.tokens)
    torch.testing.assert_close(found.maps[-1], expected.maps[-1])
    torch.testing.assert_close(found.pooled, expected.pooled)


def test_with_blocks_over_the_whole_image_windows_change_nothing() -> None:
    model, plain = built(whole=(0, 1), class_token=False), vit(class_token=False)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(images()).tokens, plain(images()).tokens)


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_exchanged_windows_are_those_of_transformers(windows: int) -> None:
    """`window_partition`, then `window_unpartition` (RfDetrDinov2Embeddings and Backbone)."""
    rows, columns = 6, 12
    tall, wide = rows // windows, columns // windows
    shared = {"windows": windows, "whole": (0, 1), "norm_taps": False, "class_token": False}
    true, other = built(**shared, taps=(0, 2)), built(**shared, taps=(0, 2), exchanged=True)
    other.load_state_dict(true.state_dict())
    with torch.no_grad():
        stem, found = true(images(24, 48)).maps[0], other(images(24, 48)).maps[0]
    theirs = stem.permute(0, 2, 3, 1).contiguous().view(1, windows, wide, windows, tall, 16)
    theirs = theirs.transpose(2, 3).reshape(1, windows, windows, tall, wide, 16)
    theirs = theirs.transpose(2, 3).reshape(1, rows, columns, 16).permute(0, 3, 1, 2)
    assert torch.equal(found, theirs)
    assert torch.equal(found, stem) == (windows == 1)


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (13, 26)])
def test_exchanged_or_not_is_the_same_where_sides_are_equal_or_filled_up(
    size: tuple[int, int],
) -> None:
    true, other = built(), built(exchanged=True)
    other.load_state_dict(true.state_dict())
    with torch.no_grad():
        assert torch.equal(true(images(*size)).tokens, other(images(*size)).tokens)


def changed(model: WindowedViT) -> Tensor:
    """Where the last map changes when the upper left pixel does."""
    other = images()
    other[..., 0, 0] += 1
    with torch.no_grad():
        difference = model(other).maps[-1] - model(images()).maps[-1]
    return difference.abs().amax(dim=(0, 1)) > 1e-6


@pytest.mark.parametrize("class_token", [False, True])
def test_a_window_knows_nothing_of_the_others(class_token: bool) -> None:
    seen = changed(built(class_token=class_token))
    assert bool(seen[:2, :2].all())
    assert not seen[2:].any()
    assert not seen[:, 2:].any()


def test_one_block_over_the_whole_image_tells_all() -> None:
    assert bool(changed(built(whole=(1,))).all())


def test_every_window_has_copies_of_class_token_and_registers() -> None:
    """They begin alike; after a block of windows each is its own."""
    model = built(registers=1, depth=1, taps=(0, 1))
    assert model.prefix == 8
    start = model._placed(torch.zeros(1, 16, 16), (4, 4))  # pyright: ignore[reportPrivateUsage]
    pairs = start[0, :8].unflatten(0, (4, 2))
    assert torch.equal(pairs, pairs[:1].expand(4, -1, -1))
    assert not torch.equal(pairs[0, 0], pairs[0, 1])
    with torch.no_grad():
        after = model(images()).tokens[0, :8].unflatten(0, (4, 2))
    assert len({tuple(row.flatten().tolist()) for row in after}) == 4


def test_taps_are_the_outputs_of_their_blocks() -> None:
    """The map before the last block is the last map of a model without it."""
    model = built(taps=(0, 1, 2))
    shorter = built(depth=1, taps=(0, 1))
    shorter.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        maps, fewer = model(images()).maps, shorter(images()).maps
    assert len(maps) == 3
    torch.testing.assert_close(maps[:2], fewer)
    assert model.channels == (16, 16, 16)
    assert model.strides == (4, 4, 4)


def test_without_a_norm_taps_are_as_the_blocks_leave_them() -> None:
    model = built(norm_taps=False)
    assert not [name for name in model.state_dict() if name.startswith("norm.")]
    with torch.no_grad():
        patches = built(norm_taps=False, taps=(0, 1, 2))(images()).maps[0]
        places = model.pos_embed.table((4, 4)).mT.unflatten(2, (4, 4))
        expected = model.patch_embed(images()) + places
    torch.testing.assert_close(patches, expected)


def test_what_is_padded_is_cut_away_and_the_rest_is_that_of_the_padded_image() -> None:
    model, image = built(), images(12, 20)
    padded = torch.zeros(1, 3, 16, 24)
    padded[..., :12, :20] = image
    with torch.no_grad():
        found, expected = model(image), model(padded)
    assert found.maps[-1].shape == (1, 16, 3, 5)
    torch.testing.assert_close(found.maps[-1], expected.maps[-1][..., :3, :5])
    torch.testing.assert_close(found.tokens[:, :4], expected.tokens[:, :4])


def test_the_table_may_be_of_another_grid() -> None:
    model = built(table=(3, 5), resampling="bicubic")
    assert model.pos_embed.weight.shape == (1, 1 + 15, 16)
    with torch.no_grad():
        assert model(images()).maps[-1].shape == (1, 16, 4, 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"taps": (2, 1)}, "not in ascending order"),
        ({"taps": (1,)}, "make depth the last of the taps"),
        ({"whole": (2,)}, "counted from 0 to 1"),
        ({"heads": 3}, "not a multiple of heads"),
        ({"windows": 100}, "windows"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        build(WindowedViTConfig, config().model_dump() | changes, source="test")
    assert "\n" not in str(caught.value)


def test_published_ones_cut_their_own_images_into_whole_windows() -> None:
    assert set(WINDOWED_VIT) <= set(VARIANTS)
    for name, variant in PUBLISHED.items():
        size = variant.config.image_size
        assert all(side % variant.config.multiple == 0 for side in size), name
        assert variant.source
