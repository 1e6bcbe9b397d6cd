"""The moving average, against a computation by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitrail.train.ema import Ema


def model(weight: float, count: int = 0) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    module.register_buffer("mean", torch.tensor([10 * weight], dtype=torch.float64))
    module.register_buffer("count", torch.tensor(count))
    return module


def test_by_hand() -> None:
    ema = Ema(model(1.0), decay=0.25)
    ema.update(model(2.0, 5), step=0)  # decay min(0.25, 1 / 10) = 0.1
    assert ema.state["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    ema.update(model(4.0, 6), step=1)  # 2 / 11
    value = 2 / 11 * 1.9 + 9 / 11 * 4
    assert ema.state["weight"].item() == pytest.approx(value)
    ema.update(model(8.0, 7), step=100)  # 0.25
    assert ema.state["weight"].item() == pytest.approx(0.25 * value + 0.75 * 8)
    assert ema.state["mean"].item() == pytest.approx(10 * ema.state["weight"].item())
    assert ema.state["count"].item() == 7, "integers are taken over"
    assert ema.state["count"].dtype == torch.int64


def test_it_is_a_copy_and_leaves_the_model_alone() -> None:
    followed = model(1.0)
    ema = Ema(followed, decay=0.9)
    with torch.no_grad():
        followed.get_parameter("weight").fill_(3.0)
    assert ema.state["weight"].item() == 1.0
    ema.update(followed, step=1000)
    assert followed.get_parameter("weight").item() == 3.0
    assert not ema.state["weight"].requires_grad


def test_load_needs_the_same_model() -> None:
    ema, other = Ema(model(1.0), decay=0.9), Ema(model(2.0, 3), decay=0.9)
    ema.load(other.state)
    assert ema.state["weight"].item() == 2.0
    assert ema.state["count"].item() == 3
    with pytest.raises(KeyError):
        ema.load({"weight": torch.zeros(1)})
