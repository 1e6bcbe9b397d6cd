"""DETR's encoder, beside torch's own attention."""

from __future__ import annotations

import torch
from torch import nn

from vitrail.nn.deformable import FeatureMemory
from vitrail.nn.detection_encoder import CellEncoder, CellLayer


def memory(mask: torch.Tensor | None = None) -> FeatureMemory:
    noise = torch.Generator().manual_seed(0)
    tokens, places = (torch.randn(2, 6, 16, generator=noise) for _ in range(2))
    return FeatureMemory(tokens, ((2, 3),), mask, None, places)


def half() -> torch.Tensor:
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 3:] = False
    return mask


def built() -> CellLayer:
    torch.manual_seed(0)
    layer = CellLayer(16, 4, 24).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    return layer


def by_torch(layer: CellLayer, given: FeatureMemory) -> torch.Tensor:
    """The same layer by `nn.MultiheadAttention`, as the authors have it."""
    theirs, ours = nn.MultiheadAttention(16, 4, batch_first=True).eval(), layer.attn
    with torch.no_grad():
        maps = (ours.q, ours.k, ours.v)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in maps]))
        assert theirs.in_proj_bias is not None
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in maps]))
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    assert given.places is not None
    placed = given.tokens + given.places
    padded = None if given.mask is None else ~given.mask
    told, _ = theirs(placed, placed, given.tokens, key_padding_mask=padded)
    tokens = layer.norm1(given.tokens + told)
    return layer.norm2(tokens + layer.mlp(tokens))


def test_a_layer_is_that_of_the_authors() -> None:
    layer = built()
    for mask in (None, half()):
        given = memory(mask)
        expected = by_torch(layer, given)
        torch.testing.assert_close(layer(given).tokens, expected, rtol=1e-5, atol=1e-5)


def test_hidden_cells_are_read_by_nobody() -> None:
    layer, given = built(), memory(half())
    other = given.tokens.clone()
    other[1, 3:] += 5
    found = layer(given).tokens
    again = layer(FeatureMemory(other, given.grids, given.mask, None, given.places)).tokens
    torch.testing.assert_close(again[1, :3], found[1, :3], rtol=0, atol=0)
    assert not torch.equal(again[1, 3:], found[1, 3:])


def test_places_and_mask_go_on() -> None:
    given = memory(half())
    found = CellEncoder([built(), built()])(given)
    assert found.places is given.places
    assert found.mask is given.mask
    assert CellEncoder([])(given) is given
