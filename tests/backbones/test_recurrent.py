from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tiny import STEMS, randomise
from vitrail.backbones.recurrent import Recurrent, RecurrentConfig
from vitrail.errors import ImageSizeError

CELLS = get_args(RecurrentConfig.model_fields["cell"].annotation)
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def images(height: int = 8, width: int = 12) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def tiny(**changes: Any) -> RecurrentConfig:
    table: dict[str, Any] = {"image_size": (8, 12), "stem": STEMS[0], "width": 8, "layers": 2}
    return RecurrentConfig(**(table | changes))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", ["last", "mean"])
@pytest.mark.parametrize("stem", STEMS)
def test_any_image_size(cell: str, bidirectional: bool, pool: str, stem: Any) -> None:
    config = tiny(cell=cell, bidirectional=bidirectional, pool=pool, stem=stem)
    backbone = randomise(Recurrent(config), std=0.3)
    assert backbone.pooled_width == backbone.channels[0] == 8 * (1 + bidirectional)
    for height, width in ((8, 12), (7, 13), (16, 5), (4, 4)):
        features = backbone(images(height, width))
        rows, columns = -(-height // 4), -(-width // 4)
        assert features.maps[0].shape == (2, backbone.pooled_width, rows, columns)
        assert torch.equal(features.maps[0].flatten(2), features.tokens.transpose(1, 2))
        features.pooled.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def step(cell: str, x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, ...]:
    """One step by the equations of the cell, as torch's reference writes them."""
    w_ih, w_hh, b_ih, b_hh = weights
    given, kept = (x @ w_ih.T + b_ih), (h @ w_hh.T + b_hh)
    if cell == "rnn":
        return (given + kept).tanh(), c
    if cell == "gru":
        (r, z, n), (r2, z2, n2) = given.chunk(3, 1), kept.chunk(3, 1)
        r, z = (r + r2).sigmoid(), (z + z2).sigmoid()
        return (1 - z) * (n + r * n2).tanh() + z * h, c
    i, f, g, o = (given + kept).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def read(cell: str, steps: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    h = c = torch.zeros(2, 8)
    out: list[Tensor] = []
    for x in steps:
        h, c = step(cell, x, h, c, weights)
        out.append(h)
    return out


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_read_the_patches_row_by_row(cell: str) -> None:
    backbone = randomise(Recurrent(tiny(cell=cell, layers=1, bidirectional=True))).eval()
    weights = list(backbone.rnn.parameters())
    with torch.no_grad():
        patches = backbone.patch_embed(images())
        steps = [patches[:, :, row, column] for row in range(2) for column in range(3)]
        forward = read(cell, steps, weights[:4])
        backward = read(cell, steps[::-1], weights[4:])
        features = backbone(images())
    expected = torch.cat([torch.stack(forward, 1), torch.stack(backward[::-1], 1)], 2)
    torch.testing.assert_close(features.tokens, expected)
    torch.testing.assert_close(features.pooled, torch.cat([forward[-1], backward[-1]], 1))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_last_state_is_torchs(cell: str, bidirectional: bool) -> None:
    backbone = randomise(Recurrent(tiny(cell=cell, bidirectional=bidirectional))).eval()
    with torch.no_grad():
        features = backbone(images())
        _, state = backbone.rnn(backbone.patch_embed(images()).flatten(2).transpose(1, 2))
    hidden = state[0] if cell == "lstm" else state
    torch.testing.assert_close(
        features.pooled, hidden[-1 - bidirectional :].transpose(0, 1).flatten(1)
    )


def test_the_mean_is_that_of_all_outputs() -> None:
    features = Recurrent(tiny(pool="mean"))(images())
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_maps_start_orthogonal_and_forget_gates_open(cell: str) -> None:
    backbone = Recurrent(tiny(cell=cell, bidirectional=True))
    for name, parameter in backbone.rnn.named_parameters():
        gates = parameter.chunk(GATES[cell])
        if name.startswith("weight_hh"):
            for gate in gates:
                torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
        elif name.startswith("weight_ih"):
            limit = (6 / (8 + parameter.shape[1])) ** 0.5
            assert 0.8 * limit < parameter.abs().max() <= limit
        else:
            opened = cell == "lstm" and name.startswith("bias_ih")
            values = [float(opened and i == 1) for i in range(GATES[cell])]
            assert [gate.tolist() for gate in gates] == [[value] * 8 for value in values]


def test_dropout_stands_between_the_layers() -> None:
    backbone = Recurrent(tiny(dropout=0.5)).train()
    assert not torch.equal(backbone(images()).pooled, backbone(images()).pooled)
    backbone.eval()
    assert torch.equal(backbone(images()).pooled, backbone(images()).pooled)


def test_layers_are_the_stem_and_the_recurrent_module() -> None:
    backbone = Recurrent(tiny())
    assert backbone.layers() == [[backbone.patch_embed], [backbone.rnn]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cell": "qrnn"}, "cell"),
        ({"layers": 1, "dropout": 0.1}, "layers of at least 2"),
        ({"image_size": (3, 12)}, "at least 4 x 4"),
        ({"drop_path": 0.1}, "drop_path"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**wrong)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(ImageSizeError, match="at least 4 x 4"):
        Recurrent(tiny())(images(3, 12))
