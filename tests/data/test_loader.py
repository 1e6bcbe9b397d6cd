"""The loader: the same batches whoever prepares them, and nothing lost in silence."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.data import loader as loader_module
from vitrail.data import workers as workers_module
from vitrail.data.augment import Affine, Augment, AugmentConfig
from vitrail.data.dataset import Dataset
from vitrail.data.loader import Loader, Transform, on_image
from vitrail.data.order import Order, Sequential, Shuffled
from vitrail.data.preprocess import Preprocess, Squash, TokenBudget
from vitrail.data.rand_augment import RandAugment
from vitrail.data.workers import (
    Auto,
    Choice,
    Processes,
    Serial,
    SharedCores,
    Threads,
    Workers,
    workers_for,
)
from vitrail.errors import BadSampleError
from vitrail.types import Batch, Sample

EVERY = (Serial(), Threads(2), Processes(2), Auto(), SharedCores())
SQUARE = Preprocess(resize=Squash(size=(12, 12)))
AUGMENT = on_image(
    Augment(
        AugmentConfig(geometry=Affine(), hflip=0.5, rand_augment=RandAugment(), erasing=0.5), SQUARE
    )
)


class Noise(Dataset):
    """Images of noise; some are bad, one makes the program fail."""

    classes = ("a", "b")
    multilabel = False

    def __init__(self, count: int, bad: Iterable[int] = (), bug: int = -1, sides: int = 1) -> None:
        self.ids = [f"train/{index}.png" for index in range(count)]
        self.targets = [index % 2 for index in range(count)]
        self.bad, self.bug, self.sides = frozenset(bad), bug, sides

    def read(self, index: int) -> Sample:
        if index in self.bad:
            raise BadSampleError("cut off")
        if index == self.bug:
            raise RuntimeError("a bug")
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (16, 16 * (1 + index % self.sides), 3), dtype=np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return Sample(self.ids[index], image, self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        return self.ids[index].encode()

    def stored_size(self, index: int) -> int:
        return len(self.ids[index])


def loader(
    dataset: Dataset,
    workers: Workers | SharedCores = Serial(),  # noqa: B008 a frozen value
    transform: Transform = AUGMENT,
    order: Order = Shuffled(),  # noqa: B008
    *,
    batch_size: int = 4,
    drop_last: bool = False,
    strict: bool = False,
) -> Loader:
    return Loader(
        dataset, transform, batch_size=batch_size, order=order, seed=5, workers=workers,
        drop_last=drop_last, strict=strict,
    )  # fmt: skip


def as_it_is(image: Tensor, rng: np.random.Generator) -> Tensor:
    del rng
    return image


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.ids == y.ids
        and x.targets == y.targets
        and x.skipped == y.skipped
        and torch.equal(x.images, y.images)
        for x, y in zip(a, b, strict=True)
    )


def nobody_is_left() -> bool:
    threads = [t for t in threading.enumerate() if t.name.startswith("vitrail-loader")]
    return not threads and not multiprocessing.active_children()


@pytest.mark.parametrize("workers", EVERY[1:], ids=repr)
@pytest.mark.parametrize("order", [Shuffled(), Shuffled(3), Sequential()], ids=repr)
def test_batches_do_not_depend_on_the_workers(workers: Workers | SharedCores, order: Order) -> None:
    data = Noise(18, bad={2, 7}, sides=2)
    wanted = list(loader(data, order=order).epoch(1))
    assert same(wanted, list(loader(data, workers, order=order).epoch(1)))
    assert nobody_is_left()


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 20), size=st.integers(1, 7), start=st.integers(0, 8), drop=st.booleans()
)
def test_resuming_gives_the_rest_of_the_epoch(
    count: int, size: int, start: int, drop: bool
) -> None:
    source = loader(Noise(count), batch_size=size, drop_last=drop)
    whole = list(source.epoch(3))
    assert len(whole) == source.steps == (count // size if drop else -(-count // size))
    assert same(whole[start:], list(source.epoch(3, start)))
    if not drop:
        assert sorted(i for batch in whole for i in batch.ids) == sorted(source.dataset.ids)


def test_epochs_differ() -> None:
    source = loader(Noise(16))
    first, second = list(source.epoch(0)), list(source.epoch(1))
    assert not same(first, second)
    assert same(first, list(source.epoch(0)))


def test_repeats_are_augmented_differently() -> None:
    (batch,) = loader(Noise(6), order=Shuffled(3), batch_size=6).epoch(0)
    assert len(set(batch.ids)) == 2
    assert len({image.numpy().tobytes() for image in batch.images}) == 6


def test_batches_are_contiguous_bytes() -> None:
    (batch,) = loader(Noise(3)).epoch(0)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert batch.images.shape == (3, 3, 12, 12)


@pytest.mark.parametrize("workers", EVERY, ids=repr)
def test_bad_samples_are_left_out_and_named(workers: Workers | SharedCores) -> None:
    source = loader(Noise(8, bad={1, 4, 5, 6, 7}), workers, order=Sequential())
    first, second = source.epoch(0)
    assert first.ids == ("train/0.png", "train/2.png", "train/3.png")
    assert first.targets == (0, 0, 1)
    assert [(s.id, s.reason) for s in first.skipped] == [("train/1.png", "cut off")]
    assert second.ids == ()
    assert second.images.shape[0] == 0
    assert [s.id for s in second.skipped] == [f"train/{i}.png" for i in range(4, 8)]


@pytest.mark.parametrize("workers", EVERY, ids=repr)
def test_strict_names_the_file(workers: Workers | SharedCores) -> None:
    source = loader(Noise(40, bad={9}), workers, order=Sequential(), strict=True)
    with pytest.raises(BadSampleError, match=r"train/9\.png: cut off"):
        list(source.epoch(0))
    assert nobody_is_left()


@pytest.mark.parametrize("workers", EVERY[:3], ids=repr)
def test_a_bug_names_the_sample(workers: Workers | SharedCores) -> None:
    source = loader(Noise(8, bug=6), workers, order=Sequential())
    with pytest.raises(RuntimeError, match="a bug") as caught:
        list(source.epoch(0))
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "train/6.png" in told
    assert nobody_is_left()


@pytest.mark.parametrize("workers", EVERY[:3], ids=repr)
def test_leaving_early_leaves_nobody_behind(workers: Workers | SharedCores) -> None:
    for step, _ in enumerate(loader(Noise(400), workers).epoch(0)):
        if step == 2:
            break
    assert nobody_is_left()


def test_other_sizes_become_other_batches() -> None:
    def keep(image: Tensor, rng: np.random.Generator) -> Tensor:
        return Preprocess(resize=TokenBudget(patch=4, tokens=8)).prepare(image)

    source = loader(
        Noise(5, bad={4}, sides=2), transform=on_image(keep), order=Sequential(), batch_size=5
    )
    first, second = source.epoch(0)
    assert first.ids == ("train/0.png", "train/2.png")
    assert second.ids == ("train/1.png", "train/3.png")
    assert first.images.shape[2:] != second.images.shape[2:]
    assert [len(batch.skipped) for batch in (first, second)] == [1, 0]


def test_the_choice_is_told() -> None:
    asked = loader(Noise(4), Threads(2))
    assert (asked.chosen, asked.why) == (Threads(2), "as asked")
    measured = loader(Noise(4, bad={0}), Auto())
    assert measured.why is None
    assert isinstance(measured.chosen, Serial | Threads | Processes)
    assert measured.why


@pytest.mark.parametrize(("use", "wanted"), [(5.1, Serial()), (4.9, Threads(2))])
def test_on_shared_cores_the_first_batches_decide(
    use: float, wanted: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cheap beside their use, samples stay with this thread; dear ones are measured as ever."""
    now = 0.0

    def dear(image: Tensor, rng: np.random.Generator) -> Tensor:
        nonlocal now
        del rng
        now += 0.25  # a batch of four takes a second
        return image

    measured = Choice(Threads(2), "measured")
    monkeypatch.setattr(workers_module, "choose", lambda prepare, count: measured)
    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=lambda: now))
    given = loader(Noise(40), SharedCores(), transform=on_image(dear))
    seen: list[Batch] = []
    for batch in given.epoch(0):
        assert (given.why is None) == (len(seen) < 4)
        # The first batch warms everything up, whatever that takes.
        now += use if seen else 0.0
        seen.append(batch)
    assert given.chosen == wanted
    assert same(seen, list(loader(Noise(40), transform=on_image(as_it_is)).epoch(0)))


def test_too_few_batches_decide_nothing() -> None:
    given = loader(Noise(3), SharedCores())
    assert len(list(given.epoch(0))) == 1
    assert isinstance(given.chosen, Serial | Threads | Processes)


def test_auto_shares_the_cores_of_a_model_on_the_cpu() -> None:
    assert workers_for(Auto(), torch.device("cpu")) == SharedCores()
    assert workers_for(Auto(), torch.device("cuda")) == Auto()
    assert workers_for(Threads(3), torch.device("cpu")) == Threads(3)
