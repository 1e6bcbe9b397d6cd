"""Outputs of detectors by the names of golden cases."""

from __future__ import annotations

import pytest
import torch

from detector import SIZE, tiny_detector
from vitrail.explain.outputs import outputs_of

IMAGES = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def hidden_half() -> torch.Tensor:
    mask = torch.ones(2, *SIZE, dtype=torch.bool)
    mask[1, :, SIZE[1] // 2 :] = False
    return mask


def test_a_decoder_has_hidden_states_and_attention_by_both_names() -> None:
    found = outputs_of(tiny_detector("dense"), IMAGES, hidden_half())
    assert found["logits"].shape == (2, 5, 3)
    assert found["pred_boxes"].shape == (2, 5, 4)
    assert torch.equal(found["last_hidden_state"], found["decoder_last_hidden_state"])
    pairs = {
        "attn_encoder_0_self": "attn_encoder_0",
        "attn_decoder_1_self": "attn_decoder_1",
        "attn_decoder_1_cross": "attn_cross_1",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(found[ours], found[theirs])
    cells = found["attn_cross_0"][1].mean(dim=(0, 1))
    assert bool((cells == 0).any()), "what was filled up is not read"
    torch.testing.assert_close(cells.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("readout", ["dense", "tokens", "deformable"])
def test_answers_are_those_of_the_model(readout: str) -> None:
    model = tiny_detector(readout)
    with torch.no_grad():
        logits, boxes, *_ = model.task(model.backbone(IMAGES))
    found = outputs_of(model, IMAGES)
    assert torch.equal(found["logits"], logits)
    assert torch.equal(found["pred_boxes"], boxes)
    assert ("enc_outputs_class" in found) == (readout == "deformable")


def test_tokens_that_find_objects_come_last() -> None:
    model = tiny_detector("tokens")
    found, features = outputs_of(model, IMAGES), model.backbone(IMAGES)
    tokens, queries = found["last_hidden_state"], features.queries
    assert queries is not None
    torch.testing.assert_close(tokens[:, -5:], queries)
    torch.testing.assert_close(tokens[:, 0], features.tokens[:, 0])
    torch.testing.assert_close(tokens[:, 1:-5], features.tokens[:, 6:])
    attention = found["attn_0"]
    assert attention.shape[-1] == tokens.shape[1]
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


def test_a_backbone_alone_has_no_answers() -> None:
    found = outputs_of(tiny_detector("dense").backbone, IMAGES)
    assert "logits" not in found
    assert {"last_hidden_state", "attn_0"} <= found.keys()
