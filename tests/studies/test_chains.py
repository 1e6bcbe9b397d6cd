from __future__ import annotations

import pytest
import torch
from torch import nn

from vitrail.studies.chains import chain_of, longest_chain


def test_the_longest_path_counts_not_the_number_of_operations() -> None:
    x = torch.ones(1, requires_grad=True)
    short = x * 2
    long = ((x * 2) * 3) * 4
    # AccumulateGrad of x, three products, the sum.
    assert longest_chain(short + long) == 5
    assert longest_chain(x * 2) == 2


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_recurrent_chain_grows_by_the_same_for_every_step(cell: type[nn.RNNBase]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = cell(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0][:, -1]

    model = Last().eval()
    chains = [chain_of(model, torch.zeros(2, steps, 4)) for steps in (10, 20, 30)]
    assert chains[2] - chains[1] == chains[1] - chains[0] >= 20
    assert not model.training, "left as it was"


def test_a_feed_forward_chain_does_not_grow() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    assert chain_of(model, torch.zeros(1, 3, 4)) == chain_of(model, torch.zeros(1, 300, 4))
