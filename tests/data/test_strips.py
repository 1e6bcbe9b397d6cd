from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitrail.data.builtin import digits
from vitrail.data.order import sample_rng
from vitrail.data.strips import HEIGHT, MAX_LENGTH, SIZES, Strips, named
from vitrail.errors import DataError

SMALL = {"train": 60, "val": 20, "test": 30}
DATA = Strips(sizes=SMALL)
DIGITS = digits()


def layout(data: Strips, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scale, left and right edge of the ink, and top of each digit of a strip."""
    shown = data._shown[index]
    scale, left, top = data._layout(shown, sample_rng(data.seed, *data._places[index]))
    return scale, left, left + data._ink[shown] * scale, top


def test_what_there_is() -> None:
    data = Strips()
    assert data.text
    assert not data.multilabel
    assert data.classes == tuple("0123456789")
    assert {name: len(part) for name, part in data.published.items()} == SIZES
    assert len(data) == len(data.targets) == len(set(data.ids)) == 53_000
    assert [data.ids[part[17]] for part in data.published.values()] == [
        "train/00017",
        "val/00017",
        "test/00017",
    ]
    for part in data.published.values():
        lengths = Counter(len(data.targets[index]) for index in part)
        assert sorted(lengths) == list(range(3, 13))
        assert min(lengths.values()) > 0.7 * len(part) / 10


def test_no_digit_is_shown_in_two_splits() -> None:
    homes: dict[bytes, str] = {}
    for name, part in DATA.published.items():
        sources = set(DATA.sources[name].tolist())
        assert {i for index in part for i in DATA._shown[index]} <= sources
        for i in sources:
            assert homes.setdefault(DIGITS.read_bytes(i), name) == name
    assert sum(map(len, DATA.sources.values())) == len(DIGITS)
    sizes = {name: len(sources) for name, sources in DATA.sources.items()}
    assert sizes == {"train": 1375, "val": 153, "test": 269}


def test_the_seed_and_the_place_decide_everything() -> None:
    again = Strips(sizes={name: 2 * size for name, size in SMALL.items()})
    other = Strips(sizes=SMALL, seed=1)
    for name, part in DATA.published.items():
        for index, (here, there) in enumerate(zip(part, again.published[name], strict=False)):
            assert DATA.ids[here] == again.ids[there]
            assert DATA.targets[here] == again.targets[there]
            if index < 3:
                assert DATA.read_bytes(here) == again.read_bytes(there)
                assert DATA.read_bytes(here) != other.read_bytes(here)
        assert [DATA.targets[i] for i in part] != [other.targets[i] for i in part]
        assert (DATA.sources[name] == other.sources[name]).all()
    assert len({DATA.read_bytes(index) for index in range(len(DATA))}) == len(DATA)


def test_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = DATA.read(61)
    assert (sample.id, sample.target) == ("val/00001", DATA.targets[61])
    assert sample.image.shape == (3, HEIGHT, 256)
    pixels = np.frombuffer(DATA.read_bytes(61), np.uint8).reshape(HEIGHT, 256)
    for channel in sample.image:
        assert (channel.numpy() == pixels).all()
    stored = len(DATA.read_bytes(61))
    monkeypatch.setattr(Strips, "render", None)
    assert DATA.stored_size(61) == stored, "known without rendering"


def test_the_digits_of_the_text_stand_there_in_order() -> None:
    alike: list[float] = []
    for index in range(len(DATA)):
        picture = Image.fromarray(DATA.render(index))
        scale, left, right, top = layout(DATA, index)
        assert "".join(str(DIGITS.targets[i]) for i in DATA._shown[index]) == DATA.targets[index]
        for n, i in enumerate(DATA._shown[index]):
            first = DATA._left[i]
            box = (left[n], top[n], right[n], top[n] + 8 * scale[n])
            ink = round(float((right[n] - left[n]) / scale[n]))
            seen = np.array(picture.resize((ink, 8), Image.Resampling.BOX, box))
            source = DIGITS.images[i][:, int(first) : int(first) + ink]
            alike.append(np.corrcoef(seen.ravel(), source.ravel())[0, 1])
    low, median = np.percentile(alike, [1, 50])
    assert low > 0.9
    assert median > 0.97


@settings(deadline=None, max_examples=30)
@given(st.integers(1, MAX_LENGTH), st.integers(0, 12), st.integers(0, 5))
def test_no_digit_is_cut_off_or_covered(low: int, more: int, seed: int) -> None:
    lengths = (low, min(low + more, MAX_LENGTH))
    data = Strips(lengths, sizes={"test": 8}, seed=seed)
    assert data.width % 32 == 0
    assert 0 <= data.width - lengths[1] * 256 / 12 < 32
    for index in range(len(data)):
        assert lengths[0] <= len(data.targets[index]) <= lengths[1]
        scale, left, right, top = layout(data, index)
        assert (scale * 8 >= 13.99).all()
        assert (scale * 8 <= 26.01).all()
        assert left[0] >= 2
        assert right[-1] <= data.width - 1.5
        assert (left[1:] - right[:-1] >= -0.6).all(), "digits may touch"
        assert (top >= 0).all()
        assert (top + 8 * scale <= HEIGHT + 1e-3).all()


@pytest.mark.parametrize(
    ("name", "lengths", "width"),
    [("strips", (3, 12), 256), ("strips:13-20", (13, 20), 448), ("strips:7-7", (7, 7), 160)],
)
def test_names(name: str, lengths: tuple[int, int], width: int) -> None:
    data = named(name)
    assert data is not None
    assert (data.lengths, data.width) == (lengths, width)
    assert data.read(0).image.shape == (3, HEIGHT, width)


@pytest.mark.parametrize("name", ["digits", "strip", "strips2", "./strips", ""])
def test_other_names(name: str) -> None:
    assert named(name) is None


@pytest.mark.parametrize(
    "lengths", ["", "7", "20-13", "0-3", "3-65", "a-b", "-3-4", "3-4-5", "٣-٤"]
)
def test_lengths_that_are_none(lengths: str) -> None:
    with pytest.raises(DataError, match="from 1 to 64") as caught:
        named(f"strips:{lengths}")
    assert str(caught.value).startswith(f"strips:{lengths}: ")
    assert "\n" not in str(caught.value)
