"""How much of a token was there before attention came (after Kobayashi et al. 2021, mixing ratio).

A block adds what attention brings to what a token is. Rollout takes both for halves; lengths tell
how it was: where attention brings a long vector the token changed, where a short one it stayed.
The paper also counts as kept what a token takes from itself by attention. Here that is attention,
since a rollout multiplies by whole rows of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.swin import SwinBlock, SwinV2Block
from vitrail.nn.blocks import PostNormBlock, PreNormBlock
from vitrail.nn.soft_split import TokenBlock


@contextmanager
def residual_shares(backbone: Backbone, shares: list[Tensor]) -> Generator[None]:
    """Append |x| / (|x| + |what attention added to x|) of every token as each block runs.

    Args:
        backbone: Any.
        shares: Takes one tensor `B N` a block, in the order in which the blocks run.
    """
    handles = [handle for part in backbone.modules() for handle in _watched(part, _Sum(shares))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Sum:
    """The two sides of one residual sum, as they come."""

    def __init__(self, shares: list[Tensor]) -> None:
        self.shares = shares
        self.before: Tensor | None = None

    def comes(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """The token as the block takes it in."""
        del module
        self.before = given[0].detach()

    def values(self, module: nn.Module, given: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        """A token block's width changes: its values are what attention is added to."""
        del module, given
        self.before = out[1].detach()

    def summed(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """The token after attention was added."""
        del module
        assert self.before is not None, "a block takes in before it adds"
        after: Tensor = given[0].detach()
        stayed, added = _length(self.before), _length(after - self.before)
        # Where attention added nothing, nothing changed, be it a token of zeros.
        moved = added > 0
        self.shares.append(stayed.where(moved, 1) / (stayed + added).where(moved, 1))
        self.before = None


def _length(tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]:
    return tokens.float().square().sum(dim=2).sqrt()


def _watched(part: nn.Module, both: _Sum) -> list[RemovableHandle]:
    """Hooks where a block's residual sum can be seen; none on other modules."""
    match part:
        case TokenBlock():
            first = part.attn.register_forward_hook(both.values)
            return [first, part.norm2.register_forward_pre_hook(both.summed)]
        # The norms of Swin v2 stand on the branches: its sum goes into the MLP as it is.
        case (
            SwinV2Block(mlp=after)
            | SwinBlock(norm2=after)
            | PreNormBlock(norm2=after)
            | PostNormBlock(norm1=after)
        ):
            first = part.register_forward_pre_hook(both.comes)
            return [first, after.register_forward_pre_hook(both.summed)]
        case _:
            return []
