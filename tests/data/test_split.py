from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.dataset import Dataset
from vitrail.data.split import duplicate_groups, split
from vitrail.errors import BadSampleError
from vitrail.types import Sample, Target


class Memory(Dataset):
    def __init__(self, contents: list[bytes], targets: list[Target], *, multi: bool = False):
        self.contents = contents
        self.targets = targets
        self.ids = [f"{number}.jpg" for number in range(len(contents))]
        self.multilabel = multi
        self.text = any(isinstance(target, str) for target in targets)
        self.classes = tuple("abcdefgh")

    def read(self, index: int) -> Sample:
        raise NotImplementedError

    def read_bytes(self, index: int) -> bytes:
        if self.contents[index] == b"bad":
            raise BadSampleError("bad")
        return self.contents[index]

    def stored_size(self, index: int) -> int:
        return len(self.contents[index])


def unique(count: int, classes: int) -> Memory:
    return Memory([b"%06d" % i for i in range(count)], [i % classes for i in range(count)])


def test_fractions_and_strata() -> None:
    parts = split(unique(1000, 4), seed=0, test=0.2, val=0.1)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 720,
        "val": 80,
        "test": 200,
    }
    for name, each in (("train", 180), ("val", 20), ("test", 50)):
        assert Counter(parts[name].targets) == dict.fromkeys(range(4), each)
    assert list(parts["test"].indices) == sorted(parts["test"].indices)


def test_only_what_is_asked_for() -> None:
    assert set(split(unique(20, 2), seed=0, test=0.0, val=0.1)) == {"train", "val"}
    whole = split(unique(20, 2), seed=0, test=0.0, val=0.0)
    assert set(whole) == {"train"}
    assert len(whole["train"]) == 20


def test_the_seed_decides_and_nothing_else() -> None:
    first = split(unique(200, 3), seed=1, test=0.2, val=0.1)["test"].ids
    assert first == split(unique(200, 3), seed=1, test=0.2, val=0.1)["test"].ids
    assert first != split(unique(200, 3), seed=2, test=0.2, val=0.1)["test"].ids
    # A further class changes nothing for the others.
    data = unique(200, 3)
    data.contents += [b"more %d" % i for i in range(50)]
    data.targets += [3] * 50
    data.ids = [f"{number}.jpg" for number in range(250)]
    more = split(data, seed=1, test=0.2, val=0.1)["test"]
    assert [name for name, target in zip(more.ids, more.targets, strict=True) if target != 3] == (
        first
    )


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1))])
def test_tiny_classes(count: int, sizes: tuple[int, ...]) -> None:
    parts = split(unique(count, 1), seed=0, test=0.2, val=0.1)
    assert tuple(len(parts[name]) for name in ("train", "val", "test")) == sizes


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=60),
    st.integers(0, 5),
    st.booleans(),
)
def test_properties(samples: list[tuple[int, int]], seed: int, multi: bool) -> None:
    targets: list[Target] = [(label,) if multi else label for _, label in samples]
    data = Memory([b"%d" % content for content, _ in samples], targets, multi=multi)
    parts = split(data, seed=seed, test=0.2, val=0.25)
    indices = sorted(i for part in parts.values() for i in part.indices)
    assert indices == list(range(len(samples)))
    homes: dict[bytes, str] = {}
    for name, part in parts.items():
        for i in part.indices:
            assert homes.setdefault(data.contents[i], name) == name
    assert set(parts["train"].targets) == set(targets)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.text("abcdefgh", min_size=1, max_size=5)),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_every_symbol_stays_in_train(samples: list[tuple[int, str]], seed: int) -> None:
    texts = [text for _, text in samples]
    data = Memory([b"%d" % content for content, _ in samples], [*texts])
    parts = split(data, seed=seed, test=0.2, val=0.25)
    assert sorted(i for part in parts.values() for i in part.indices) == list(range(len(samples)))
    assert all(part.text for part in parts.values())
    trained = [target for target in parts["train"].targets if isinstance(target, str)]
    assert set("".join(trained)) == set("".join(texts))


def test_texts_are_cut_at_random() -> None:
    data = Memory(
        [b"%06d" % i for i in range(1000)], [f"{'abcd'[i % 4]}{i:03}" for i in range(1000)]
    )
    parts = split(data, seed=0, test=0.2, val=0.1)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 720,
        "val": 80,
        "test": 200,
    }


def test_unreadable_files_are_no_duplicates() -> None:
    data = Memory([b"bad", b"bad", b"abc", b"abc"], [0, 0, 0, 0])
    assert duplicate_groups(data) == [[0], [1], [2, 3]]
