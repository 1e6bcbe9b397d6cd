"""EoMT's and Segmenter's heads: shapes, masks that hide, what training sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiny import randomise, tiny_config
from vitrail.backbones.vit import ViT
from vitrail.errors import ConfigError
from vitrail.nn.probe import AttentionWeights
from vitrail.tasks.joint_segmenters import (
    EncoderOnlyMaskTransformer,
    EomtReadout,
    MaskTransformer,
    SegmenterReadout,
)
from vitrail.types import Features

QUERIES, BLOCKS, CLASSES = 3, 2, 4


def eomt(**changes: Any) -> EncoderOnlyMaskTransformer:
    """For patches of 4 pixels, 16 wide."""
    table = {"queries": QUERIES, "depth": BLOCKS, "heads": 2, "upscale": 1, "mlp_ratio": 2.0}
    readout = EomtReadout(**(table | changes))
    head = EncoderOnlyMaskTransformer(readout, 16, 4, CLASSES)
    randomise(head, std=0.3)
    return head.eval()


def features(
    size: tuple[int, int] = (8, 12), batch: int = 2, *, final_norm: bool = False
) -> Features:
    config = tiny_config(positions={"kind": "learned_1d", "prefix": False}, registers=2)
    backbone = ViT(config.model_copy(update={"final_norm": final_norm}))
    randomise(backbone, seed=1)
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return backbone.eval()(images)


def weights_of(head: EncoderOnlyMaskTransformer, given: Features) -> list[Tensor]:
    """Attention of each block."""
    seen: list[Tensor] = []

    def watch(weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del v, out
        seen.append(weights.rows())

    for block in head.blocks:
        block.attn.probe = watch  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        head(given)
    return seen


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), upscale=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_masks_are_finer_than_patches(rows: int, columns: int, upscale: int) -> None:
    head = eomt(upscale=upscale)
    out = head(features((4 * rows, 4 * columns)))
    assert out.logits.shape == (2, QUERIES, CLASSES + 1)
    assert out.masks.shape == (2, QUERIES, rows * 2**upscale, columns * 2**upscale)
    assert head.stride == 4 // 2**upscale
    assert out.earlier == ()


def test_every_block_has_an_opinion_in_training() -> None:
    head = eomt(mask_probs=(1.0, 0.0)).train()
    out = head(features())
    assert len(out.earlier) == BLOCKS
    assert all(one.masks.shape == out.masks.shape for one in out.earlier)
    (sum(one.masks.sum() for one in (*out.earlier, out)) + out.logits.sum()).backward()
    idle = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_masks_on_the_way_are_learned_by_their_own_loss_alone() -> None:
    """What a query sees is a choice, and choices have no gradient."""
    head = eomt(mask_probs=(1.0, 1.0)).train()
    given = features()
    told = head(given).earlier[0].masks
    assert told.requires_grad
    seen = head._seen(told, given.tokens.shape[1] + QUERIES, (2, 3), 1.0)
    assert seen is not None
    assert not seen.requires_grad


def test_a_masked_query_sees_its_mask_and_all_that_is_no_patch() -> None:
    head, given = eomt(mask_probs=(1.0, 1.0), upscale=0), features()
    with torch.no_grad():
        tokens = torch.cat([head.queries.expand(2, -1, -1), given.tokens], dim=1)
        mask = head.tell(head.norm(tokens), (2, 3)).masks.flatten(2) > 0
    first = weights_of(head, given)[0]
    assert 0 < mask.sum() < mask.numel()
    patches = first[:, :, :QUERIES, -6:]
    assert torch.equal(patches > 0, mask[:, None].expand_as(patches))
    assert bool((first[:, :, :QUERIES, :-6] > 0).all())
    assert bool((first[:, :, QUERIES:] > 0).all())


@pytest.mark.parametrize(
    ("chances", "barred"),
    [
        ((), (False, False)),
        ((0.0, 0.0), (False, False)),
        ((0.0, 1.0), (False, True)),
        ((1.0, 0.0), (True, True)),  # as in transformers: the masks stay
        ((1.0, 0.4), (True, False)),
        ((0.6, 0.6), (True, True)),
        ((0.5, 0.5), (True, True)),
    ],
)
def test_chances_decide_who_is_masked(
    chances: tuple[float, ...], barred: tuple[bool, bool]
) -> None:
    head = eomt(mask_probs=chances, upscale=0)
    found = weights_of(head, features())
    assert tuple(bool((weights == 0).any()) for weights in found) == barred


def test_a_finished_model_draws_no_numbers() -> None:
    head, given = eomt(mask_probs=(0.7, 0.3), upscale=0), features()
    with torch.no_grad():
        assert torch.equal(head(given).masks, head(given).masks)
    head.train()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = {float(head(given).masks.sum()) for _ in range(8)}
    assert len(drawn) > 1


def test_order_of_images_does_not_matter() -> None:
    head, given = eomt(mask_probs=(1.0, 1.0)), features()
    turned = Features((given.maps[0].flip(0),), given.tokens.flip(0), given.pooled.flip(0))
    with torch.no_grad():
        torch.testing.assert_close(head(turned).masks, head(given).masks.flip(0))


def test_class_queries_give_a_logit_a_patch() -> None:
    readout = SegmenterReadout(width=8, depth=2, heads=2, hidden=16)
    head = MaskTransformer(readout, 16, 4, CLASSES)
    logits = head(features((8, 12))).logits
    assert logits.shape == (2, CLASSES, 2, 3)
    # A norm over the classes: each patch has a mean of zero while it is fresh.
    torch.testing.assert_close(logits.mean(1), torch.zeros(2, 2, 3), rtol=0, atol=1e-5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_fresh_heads_learn() -> None:
    """A few steps tell two halves of an image apart."""
    torch.manual_seed(0)
    given = features((16, 16), batch=4, final_norm=True)
    wanted = torch.zeros(4, 4, 4, dtype=torch.long)
    wanted[:, :, 2:] = 1
    head = MaskTransformer(SegmenterReadout(width=16, depth=1, heads=2, hidden=32), 16, 4, 2)
    steps = torch.optim.AdamW(head.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(given).logits, wanted)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_what_cannot_be_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="needs two"):
        MaskTransformer(SegmenterReadout(), 16, 4, 1)
    with pytest.raises(ConfigError, match="heads = 3 does not divide the width 16"):
        EncoderOnlyMaskTransformer(EomtReadout(heads=3), 16, 4, 2)
    with pytest.raises(ConfigError, match="no whole pixels"):
        EncoderOnlyMaskTransformer(EomtReadout(heads=2, upscale=3), 16, 4, 2)
    with pytest.raises(ValueError, match="give one a block"):
        EomtReadout(depth=3, mask_probs=(1.0,))
    with pytest.raises(ValueError, match="not a multiple of heads"):
        SegmenterReadout(width=10, heads=4)
    with pytest.raises(ValueError, match="norm_after_pool"):
        tiny_config(norm_after_pool=True, final_norm=False)


def test_a_backbone_without_its_norm_ends_in_its_last_block() -> None:
    whole = ViT(tiny_config())
    bare = ViT(tiny_config(final_norm=False))
    randomise(whole)
    missing, unexpected = bare.load_state_dict(whole.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["norm.weight", "norm.bias"])
    images = torch.randn(1, 3, 8, 12)
    with torch.no_grad():
        found = bare(images)
        torch.testing.assert_close(whole.norm(found.tokens), whole(images).tokens)
    assert torch.equal(found.pooled, found.tokens[:, 0])
