"""Every way in which window attention runs gives the original's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parity.cases import classifier
from vitrail.explain.outputs import attention_of
from vitrail.weights.load import read_inspected


@pytest.mark.parametrize("way", ["quick", "fused", "probed"])
@pytest.mark.parametrize("name", ["swin_v1", "swin_v1_resized", "swin_v2", "timm_swinv2"])
def test_outputs_are_those_of_the_original(name: str, way: str, tmp_path: Path) -> None:
    case, _, inspected = classifier(name, tmp_path)
    model = read_inspected(inspected).model()
    images = case.inputs["input"]
    with torch.set_grad_enabled(way == "fused"):
        if way == "probed":
            with attention_of(model.backbone) as maps:
                features = model.backbone(images)
            assert len(maps) == 4
            for weights in maps.values():
                torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        else:
            features = model.backbone(images)
        logits = model.task(features).detach()
    torch.testing.assert_close(logits, case.expected["logits"], rtol=case.rtol, atol=case.atol)
