from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tiny import randomise
from vitrail.nn.patches import ConvStem, PatchStem, Stem, pad_to_multiple, resize_patches


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


def published_resize(weight: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """FlexiViT eq. 4 as it is written: one matrix B for all pixels of a patch, resized one by one.

    Bilinear with centres at half pixels and no smoothing, as in the authors' code.
    """
    old = weight.shape[-2:]

    def bilinear(pixels: np.ndarray) -> np.ndarray:
        out = np.zeros(size)
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = (
                    min(max((place + 0.5) * before / after - 0.5, 0), before - 1)
                    for place, before, after in zip((row, column), old, size, strict=True)
                )
                top, left = int(y), int(x)
                for i, share in ((top, 1 - (y - top)), (min(top + 1, old[0] - 1), y - top)):
                    for j, part in ((left, 1 - (x - left)), (min(left + 1, old[1] - 1), x - left)):
                        out[row, column] += share * part * pixels[i, j]
        return out

    units = np.eye(old[0] * old[1]).reshape(-1, *old)
    B = np.stack([bilinear(unit).ravel() for unit in units], axis=1)
    flat = weight.reshape(-1, old[0] * old[1])
    return (flat @ np.linalg.pinv(B.T).T).reshape(*weight.shape[:2], *size)


@pytest.mark.parametrize("size", [(7, 9), (4, 5), (8, 10), (3, 2), (2, 6), (1, 1)])
def test_resized_patches_are_those_of_the_paper(size: tuple[int, int]) -> None:
    weight = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = torch.from_numpy(published_resize(weight.double().numpy(), size)).float()
    torch.testing.assert_close(resize_patches(weight, size), expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 6))
def test_larger_patches_that_show_the_same_have_the_same_tokens(patch: int, more: int) -> None:
    small, large = PatchStem(5, patch), PatchStem(5, patch + more)
    with torch.no_grad():
        large.proj.weight.copy_(resize_patches(small.proj.weight, (large.stride, large.stride)))
    pixels = image(2 * patch, 3 * patch)
    patches = F.unfold(pixels, patch, stride=patch).transpose(1, 2).reshape(-1, 3, patch, patch)
    enlarged = F.interpolate(patches, size=(large.stride, large.stride), mode="bilinear")
    torch.testing.assert_close(large(enlarged), small(patches), atol=1e-5, rtol=1e-5)


def test_smaller_patches_fit_as_well_as_weights_can() -> None:
    """Least squares over noise: no other weights answer closer to what the resized patch did."""
    weight = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(4000, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    smaller = F.interpolate(noise, size=(4, 4), mode="bilinear")
    wanted = (noise * weight).sum((1, 2, 3))

    def error(weights: torch.Tensor) -> float:
        return float((((smaller * weights).sum((1, 2, 3)) - wanted) ** 2).mean())

    found = resize_patches(weight, (4, 4))
    plain = F.interpolate(weight, size=(4, 4), mode="bilinear")
    assert error(found) < error(plain)
