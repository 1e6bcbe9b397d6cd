from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError

from tiny import randomise
from vitrail.backbones.swin import Swin, SwinConfig, SwinV2Config
from vitrail.backbones.swin_sizes import PUBLISHED, SMALL, SWIN
from vitrail.nn.windows import NoWindowPositions, Windows

KINDS = (SwinConfig, SwinV2Config)
POSITIONS = get_args(SwinConfig.model_fields["positions"].annotation)


def tiny(kind: type = SwinConfig, **changes: Any) -> SwinConfig | SwinV2Config:
    """Stages of 8 x 8 and 4 x 4 places with windows of 3: both are padded and shift by 1."""
    table: dict[str, Any] = {
        "image_size": (16, 16),
        "patch_size": 2,
        "width": 8,
        "depths": (2, 2),
        "heads": (2, 4),
        "window": 3,
        "mlp_ratio": 2.0,
    }
    return kind(**(table | changes))


def built(config: SwinConfig | SwinV2Config) -> Swin:
    return randomise(Swin(config), std=0.3).eval()


def images(height: int = 16, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_inference_agree_at_any_size(kind: type, positions: str, shift: bool) -> None:
    """The quick way of inference and the fused one; every parameter has a part in the result."""
    backbone = built(tiny(kind, positions=positions, shift=shift))
    for height, width in ((16, 16), (13, 27), (4, 4), (5, 40)):
        features = backbone(images(height, width))
        for found, stride, channels in zip(features.maps, (2, 4), (8, 16), strict=True):
            assert found.shape == (2, channels, -(-height // stride), -(-width // stride))
        with torch.inference_mode():
            again = backbone(images(height, width))
        for one, other in zip(features.maps, again.maps, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert torch.equal(features.pooled, features.tokens.mean(dim=1))
        weights = torch.randn(features.pooled.shape, generator=torch.Generator().manual_seed(1))
        (features.pooled * weights).sum().backward()
        idle = [name for name, p in backbone.named_parameters() if p.numel() and p.grad is None]
        assert not idle
        backbone.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_the_shift_lets_windows_talk(kind: type) -> None:
    """With windows of 4 on a map of 8 x 8, what a corner sees stops at its window's border."""
    config = tiny(kind, depths=(2,), heads=(2,), window=4)
    for shift, reaches in ((True, True), (False, False)):
        backbone = built(config.model_copy(update={"shift": shift}))
        x = images()
        changed = x.clone()
        changed[:, :, 8:10, 8:10] += 1  # place (4, 4), the first of the last window
        with torch.no_grad():
            gap = (backbone(x).maps[0] - backbone(changed).maps[0]).abs().amax(dim=(0, 1))
        assert bool((gap[:4, :4] > 1e-4).any()) == reaches
        assert bool((gap[4:, 4:] > 1e-4).all())


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_told_once_from_the_size_the_model_is_made_for(kind: type) -> None:
    config = tiny(kind, image_size=(32, 48), window=8)
    assert config.grids == ((16, 24), (8, 12))
    assert config.windows == (Windows((16, 24), 8, 4), Windows((8, 12), 8, 0))
    assert tiny(kind, image_size=(12, 40), window=4).windows[1] == Windows((3, 10), 3, 0)
    sizes = [stage.windows.size for stage in Swin(config).stages]
    assert sizes == [8, 8]
    still = tiny(kind, image_size=(32, 48), window=4, shift=False)
    assert [windows.shift for windows in still.windows] == [0, 0]


def test_positions_are_where_the_study_wants_them() -> None:
    for positions in POSITIONS:
        backbone = Swin(tiny(positions=positions))
        names = [name for name, _ in backbone.named_parameters() if "pos" in name]
        assert any(name.startswith("pos_embed") for name in names) == ("absolute" in positions)
        assert any("attn.positions" in name for name in names) == ("relative" in positions)
        attention = backbone.stages[0].blocks[0].attn
        assert isinstance(attention.positions, NoWindowPositions) == ("relative" not in positions)


def test_version_2_starts_as_if_it_had_no_blocks() -> None:
    backbone = Swin(tiny(SwinV2Config)).eval()
    x = images()
    with torch.no_grad():
        tokens = backbone.patch_norm(backbone.patch_embed(x).flatten(2).transpose(1, 2))
        merged, _ = backbone.stages[1].downsample(tokens, (8, 8))
        torch.testing.assert_close(backbone(x).tokens, backbone.norm(merged))


def test_drop_path_grows_over_all_stages_and_layers_count_blocks() -> None:
    backbone = Swin(tiny(depths=(2, 3), drop_path=0.2))
    blocks = [block for stage in backbone.stages for block in stage.blocks]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    groups = backbone.layers()
    assert groups[0] == [backbone.patch_embed, backbone.patch_norm, backbone.pos_embed]
    assert [group[-1] for group in groups[1:]] == blocks
    assert groups[3][0] is backbone.stages[1].downsample


@pytest.mark.parametrize("name", SMALL)
def test_presets_shift(name: str) -> None:
    config = SWIN[name].config
    assert config.windows[0].shift > 0
    assert max(depth for depth in config.depths) > 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_spell_the_configuration(name: str) -> None:
    config = SWIN[name].config
    assert name.endswith(f"{config.window}_{config.image_size[0]}") or "to" in name
    assert config.kind == name.split("_", maxsplit=1)[0]
    if "12to" in name:
        assert isinstance(config, SwinV2Config)
        assert config.pretrained_windows == (12, 12, 12, 6)
        assert [w.size for w in config.windows] == (
            [24, 24, 24, 12] if "12to24" in name else [16, 16, 16, 8]
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": (3, 4)}, "width 8 cannot have 3 heads"),
        ({"heads": (2,)}, "one entry for each stage"),
        ({"depths": ()}, "at least 1"),
        ({"pretrained_windows": (3,)}, "one entry for each stage, or none"),
        ({"positions": "spiral"}, "positions"),
        ({"image_size": (3, 16)}, "too small"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(SwinV2Config, **wrong)
