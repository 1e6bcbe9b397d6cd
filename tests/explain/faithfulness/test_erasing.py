from __future__ import annotations

import pytest
import torch

from linear import flat
from tiny import photo, tiny_model
from vitrail.explain.faithfulness.erasing import FILLINGS, erased, filled, probabilities


def test_the_mean_is_each_images_own_colour() -> None:
    images = torch.stack([photo(1), photo(2)])
    blank = filled(images, "mean")
    assert blank.shape == images.shape
    expected = images.float().mean(dim=(2, 3)).round()
    assert torch.equal(blank[:, :, 5, 7].float(), expected)
    assert torch.equal(blank.amax(dim=(2, 3)), blank.amin(dim=(2, 3)))


def test_the_blur_keeps_the_brightness_and_loses_the_detail() -> None:
    stripes = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    stripes[..., ::4, :] = 255
    stripes[..., 1::4, :] = 255
    blank = filled(stripes, "blur").float()
    assert float(stripes.float().std()) > 120
    assert float(blank[..., 8:-8, 8:-8].std()) < 1
    assert abs(float(blank.mean()) - 127.5) < 4


def test_the_blur_is_a_gaussian_of_a_tenth_of_the_side() -> None:
    image = torch.zeros(1, 3, 41, 61, dtype=torch.uint8)
    image[..., 20, 30] = 255
    image[..., 20, :] = 255  # along the columns nothing changes, so that only the rows blur
    profile = filled(image, "blur")[0, 0, :, 30].double()
    away = torch.arange(41) - 20.0
    sigma = ((profile * away**2).sum() / profile.sum()).sqrt()
    assert 0.9 * 4.1 < float(sigma) < 1.05 * 4.1


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 12)])
def test_even_images_stay_as_they_are(filling: str, size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 93, dtype=torch.uint8)
    assert torch.equal(filled(image, filling), image)


def test_only_what_is_in_the_span_is_erased() -> None:
    seen: list[torch.Tensor] = []
    model = tiny_model()
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    images, blank = flat([[10, 20, 30], [40, 50, 60]])[None], flat([[0] * 3] * 2)[None]
    order = torch.arange(96).view(1, 8, 12)
    erased(model, images, blank, order, [(0, 0), (2, 5), (0, 96)], [0])
    assert torch.equal(seen[0][0], images[0])
    assert torch.equal(seen[0][2], blank[0])
    gone = (seen[0][1] == 0).all(dim=0)
    assert gone.flatten().nonzero().flatten().tolist() == [2, 3, 4]
    assert torch.equal(seen[0][1][:, ~gone], images[0][:, ~gone])


def test_probabilities_are_those_of_a_prediction() -> None:
    model = tiny_model(temperature=2.0)
    images = torch.stack([photo(seed) for seed in range(5)])
    classes = [0, 1, 2, 0, 1]
    scores = [list(p.scores.values()) for p in model.task.postprocess(model(images))]
    expected = [row[c] for row, c in zip(scores, classes, strict=True)]
    torch.testing.assert_close(probabilities(model, images, classes), torch.tensor(expected))


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_memory_is_bounded_and_the_batch_changes_nothing(batch_size: int) -> None:
    sizes: list[int] = []
    model = tiny_model()
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    images = torch.stack([photo(seed) for seed in range(3)])
    order = torch.stack([torch.randperm(96).view(8, 12) for _ in range(3)])
    spans = [(0, 10), (10, 40), (5, 96)]
    found = erased(
        model, images, filled(images, "mean"), order, spans, [0, 1, 2], batch_size=batch_size
    )
    assert max(sizes) <= batch_size
    one = [
        float(erased(model, images[i : i + 1], filled(images, "mean")[i : i + 1],
                     order[i : i + 1], [span], [i])[0, 0])
        for i in range(3) for span in spans
    ]  # fmt: skip
    torch.testing.assert_close(found.flatten(), torch.tensor(one))
