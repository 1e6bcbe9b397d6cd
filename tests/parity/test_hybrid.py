"""What makes the hybrid's outputs those of google-research: none of it can be left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parity.cases import classifier
from vitrail.nn import convolutions
from vitrail.nn.convolutions import StandardisedConv2d
from vitrail.weights.load import read_inspected


def other_kernels(conv: StandardisedConv2d) -> torch.Tensor:
    var, mean = torch.var_mean(conv.weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (conv.weight - mean) / (var + 1e-4).sqrt()


@pytest.mark.parametrize("rule", ["", "kernels", "padding"])
def test_another_rule_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    case, _, inspected = classifier("google_hybrid", tmp_path)
    if rule == "kernels":  # standardised by another epsilon
        monkeypatch.setattr(StandardisedConv2d, "standardised", other_kernels)
    elif rule == "padding":  # the greater half in front
        same = convolutions.same_padding
        monkeypatch.setattr(convolutions, "same_padding", lambda *size: same(*size)[::-1])
    model = read_inspected(inspected).model()
    with torch.no_grad():
        found = model.backbone(case.inputs["input"]).pooled
    error = (found - case.expected["pre_logits"]).abs().max()
    assert (error > 3 * case.atol) == bool(rule)
