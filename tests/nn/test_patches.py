from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tiny import randomise
from vitrail.nn.patches import ConvStem, PatchStem, Stem, pad_to_multiple


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_padding_adds_zeros_at_right_and_bottom(height: int, width: int, multiple: int) -> None:
    given_image = image(height, width)
    padded = pad_to_multiple(given_image, multiple)
    rows, columns = padded.shape[2:]
    assert rows % multiple == columns % multiple == 0
    assert rows - height < multiple
    assert columns - width < multiple
    assert torch.equal(padded[:, :, :height, :width], given_image)
    assert not padded[:, :, height:].any()
    assert not padded[:, :, :, width:].any()


def test_nothing_is_copied_where_nothing_is_missing() -> None:
    fits = image(8, 12)
    assert pad_to_multiple(fits, 4) is fits


def test_a_patch_is_one_linear_map_of_its_pixels() -> None:
    stem = randomise(PatchStem(5, 4))
    pixels = image(8, 12)
    unfolded = F.unfold(pixels, kernel_size=4, stride=4)
    expected = torch.einsum("dk,bkn->bdn", stem.proj.weight.flatten(1), unfolded)
    expected = expected + stem.proj.bias[:, None]
    torch.testing.assert_close(stem(pixels).flatten(2), expected)


def test_convolutional_stem_is_convolution_norm_relu_then_a_linear_map() -> None:
    stem = randomise(ConvStem(5, (4, 6), (2, 1))).eval()
    pixels = image(6, 8)
    x = pixels
    for index, stride in ((0, 2), (3, 1)):
        conv, bn = stem.convs[index], stem.convs[index + 1]
        x = F.conv2d(x, conv.weight, stride=stride, padding=1)
        x = x / (1 + bn.eps) ** 0.5 * bn.weight[:, None, None] + bn.bias[:, None, None]
        x = x.clamp_min(0)
    expected = torch.einsum("dc,bchw->bdhw", stem.proj.weight[:, :, 0, 0], x)
    torch.testing.assert_close(stem(pixels), expected + stem.proj.bias[:, None, None])


@pytest.mark.parametrize("stem", [PatchStem(5, 4), ConvStem(5, (4, 6), (2, 2))])
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (5, 11), (1, 1)])
def test_grid_counts_started_patches(stem: Stem, size: tuple[int, int]) -> None:
    assert stem.stride == 4
    assert stem.eval()(image(*size)).shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
