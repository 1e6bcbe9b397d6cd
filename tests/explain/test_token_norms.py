"""Norms of tokens after every block, and which of them stick out."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.token_norms import TokenNorms, token_norms

IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])

BLOCKS = {
    "vit": 4,
    "windowed": 4,
    "deit": 4,
    "t2t": 4,
    "yolos": 3,
    "swin": 4,
    "swinv2": 4,
    "hybrid": 2,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_the_norms_of_its_blocks_and_output(name: str) -> None:
    model = preset_model(PRESETS[name])
    found = token_norms(model, IMAGES)
    assert len(found) == BLOCKS.get(name.split("_", maxsplit=1)[0], 0) + 1
    assert len({one.name for one in found}) == len(found)
    with torch.no_grad():
        features = model.backbone(model.normalise(IMAGES))
    last, prefix = found[-1], model.backbone.prefix
    assert last.name == "output"
    lengths = torch.linalg.vector_norm(features.tokens, dim=2)
    torch.testing.assert_close(last.norms.flatten(1), lengths[:, prefix:])
    assert len(last.prefix) == prefix
    for i, own in enumerate(last.prefix.values()):
        torch.testing.assert_close(own, lengths[:, i])
    for one in found:
        assert one.norms.shape[0] == 2
        assert (one.norms > 0).all()
    assert not any(m._forward_hooks for m in model.modules())


def test_blocks_of_windows_lie_on_the_grid_of_their_stage() -> None:
    found = token_norms(preset_model(PRESETS["swin_nano_8"]), IMAGES)
    assert [(one.name, tuple(one.norms.shape[1:])) for one in found] == [
        ("stage 1, block 1", (9, 20)),
        ("stage 1, block 2", (9, 20)),
        ("stage 2, block 1", (5, 10)),
        ("stage 2, block 2", (5, 10)),
        ("output", (5, 10)),
    ]


def test_a_block_is_measured_where_it_ends() -> None:
    model, seen = tiny_model(backbone=tiny_config(registers=2)), []
    model.backbone.blocks[0].register_forward_hook(lambda module, given, out: seen.append(out))
    found = token_norms(model, photo(1)[None])[0]
    lengths = seen[0].norm(dim=2)
    torch.testing.assert_close(found.norms.flatten(1), lengths[:, 3:])
    assert list(found.prefix) == ["class", "register 1", "register 2"]
    torch.testing.assert_close(found.prefix["register 2"], lengths[:, 2])


def test_a_planted_artefact_is_found_at_its_place() -> None:
    model = tiny_model(backbone=tiny_config(image_size=(16, 16)))

    def plant(module: object, given: object, tokens: torch.Tensor) -> torch.Tensor:
        tokens = torch.nn.functional.normalize(tokens, dim=2)
        tokens[1, 1 + 6] *= 20
        return tokens

    model.backbone.blocks[1].register_forward_hook(plant)
    found = token_norms(model, torch.stack([photo(1, 16, 16), photo(2, 16, 16)]))[1]
    assert found.outliers().nonzero().tolist() == [[1, 1, 2]]
    assert found.share().tolist() == [0, 1 / 16]


@pytest.mark.parametrize(("factor", "share"), [(3.0, 1 / 9), (1.5, 2 / 9), (9.0, 0.0)])
def test_an_outlier_is_so_many_times_the_median(factor: float, share: float) -> None:
    norms = torch.tensor([[[1.0, 1.1, 0.9], [1.0, 8.0, 1.0], [0.2, 2.0, 1.0]]])
    for scale in (1.0, 1000.0):  # a length by itself means nothing
        found = TokenNorms("block 1", scale * norms, {})
        assert float(found.share(factor)) == pytest.approx(share)
