"""Windows that cut the image into equal parts, with copies of the prefix in each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiny import randomise
from vitrail.nn.attention import Attention
from vitrail.nn.image_windows import ImageWindowAttention, ImageWindows
from vitrail.nn.positions import Placeless
from vitrail.nn.probe import AttentionWeights


def tokens(count: int, batch: int = 2, width: int = 16) -> Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(0))


def numbered(count: int) -> Tensor:
    """Each token is its own number."""
    return torch.arange(float(count)).view(1, 1, count, 1)


def test_windows_and_their_places_are_in_raster_order() -> None:
    """A map of 2 x 4 in 2 x 2 windows: each is one row and two columns."""
    cut = ImageWindows((2, 4), 2).cut(numbered(8))[0, :, 0, :, 0]
    assert cut.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    cut = ImageWindows((4, 4), 2).cut(numbered(16))[0, :, 0, :, 0]
    assert cut[1].tolist() == [2, 3, 6, 7]
    assert cut[2].tolist() == [8, 9, 12, 13]


def test_each_window_begins_with_its_copy_of_the_prefix() -> None:
    """Two prefix tokens, four windows: tokens 0 to 7, then the places."""
    windows = ImageWindows((2, 2), 2, prefix=2)
    cut = windows.cut(numbered(12))[0, :, 0, :, 0]
    assert cut.tolist() == [[0, 1, 8], [2, 3, 9], [4, 5, 10], [6, 7, 11]]
    window = windows.of_tokens(torch.device("cpu"))
    assert window.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_join_undoes_cut(side: int, rows: int, columns: int, prefix: int) -> None:
    windows = ImageWindows((side * rows, side * columns), side, prefix)
    x = torch.randn(2, 3, windows.count * (prefix + rows * columns), 5)
    cut = windows.cut(x)
    assert cut.shape == (2, windows.count, 3, prefix + rows * columns, 5)
    assert torch.equal(windows.join(cut), x)


def attention(side: int, prefix: int) -> ImageWindowAttention:
    return randomise(ImageWindowAttention(16, 2, side=side, prefix=prefix)).eval()


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_window_by_itself_gives_the_same(prefix: int) -> None:
    windows, module = ImageWindows((4, 6), 2, prefix), attention(2, prefix)
    x = tokens(4 * prefix + 24)
    whole = Attention(16, 2, Placeless()).eval()
    whole.load_state_dict(module.state_dict())
    apart = windows.cut(x[:, None])[:, :, 0]  # B W M D
    with torch.no_grad():
        expected = torch.stack([whole(apart[:, i], (2, 3)) for i in range(4)], dim=1)
        found = module(x, (4, 6))
    torch.testing.assert_close(found, windows.join(expected[:, :, None])[:, 0])


def test_one_window_is_attention_over_the_whole_image() -> None:
    module, whole = attention(1, 1), Attention(16, 2, Placeless())
    whole.load_state_dict(module.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(module(tokens(13), (3, 4)), whole(tokens(13), (3, 4)))


def test_who_watches_sees_one_matrix_with_nothing_between_windows() -> None:
    module, x = attention(2, 1), tokens(4 + 16)
    with torch.no_grad():
        alone = module(x, (4, 4))
    seen: list[tuple[AttentionWeights, Tensor, Tensor]] = []
    module.probe = lambda *given: seen.append(given)
    with torch.no_grad():
        watched = module(x, (4, 4))
    assert torch.equal(alone, watched)
    ((weights, v, out),) = seen
    rows = weights.rows()
    apart = ImageWindows((4, 4), 2, 1).apart(torch.device("cpu"))
    assert rows.shape == (2, 2, 20, 20)
    assert not rows[..., apart].any()
    assert bool((rows[..., ~apart] > 0).all())
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 2, 20))
    torch.testing.assert_close(rows @ v, out)


def test_gradients_flow_through_what_was_seen() -> None:
    """Explanations ask for the gradient of what the kernel gave, and hold queries and keys."""
    module, seen = attention(2, 1), list[Tensor]()
    module.probe = lambda weights, v, out: seen.extend([out, v])
    x = tokens(20).requires_grad_()
    result = module(x, (4, 4))
    slopes = torch.autograd.grad(result.square().sum(), [*seen, x])
    assert all(bool(slope.abs().sum() > 0) for slope in slopes)
