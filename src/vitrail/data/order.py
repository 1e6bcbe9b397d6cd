"""Data order is a function of the seed and the epoch.

The random numbers of one sample depend on its index as well. Nothing depends on workers, threads,
ranks or interruptions, so the state of the data stream is two integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray
from pydantic import ConfigDict

_ORDER = 2**64 - 1
"""In the place of a sample's index: the stream that the permutation is drawn from."""


@dataclass(frozen=True, slots=True)
class Sequential:
    """Every sample once, in the order of the data."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    kind: Literal["sequential"] = "sequential"
    repeats: ClassVar[int] = 1

    def indices(self, count: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """Indices 0 to count - 1."""
        del seed, epoch
        return np.arange(count, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A new permutation each epoch.

    Attributes:
        repeats: How often a picked sample follows itself, each time augmented anew; 3 is the
            repeated augmentation of DeiT (Hoffer et al. 2020). An epoch keeps its length, so that
            it shows about count / repeats different samples.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    repeats: Annotated[int, Gt(0)] = 1
    kind: Literal["shuffled"] = "shuffled"

    def indices(self, count: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1, or `count` entries of one with its rows repeated."""
        order = sample_rng(seed, epoch, _ORDER).permutation(count)
        if self.repeats == 1:
            return order
        return order[: math.ceil(count / self.repeats)].repeat(self.repeats)[:count]


@dataclass(frozen=True, slots=True)
class Bucketed:
    """A new permutation each epoch in which samples of one size stand together.

    Batches of one size and the few of several, made of what is left of each, come in random order.
    The samples that are too few for a batch stand at the end. They are drawn first, whatever their
    size: a loader that leaves them out must not always leave out those of a rare size.

    Attributes:
        sizes: Height and width at which the model sees each sample; see `data.buckets`.
        batch_size: Samples that stand together.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    sizes: tuple[tuple[int, int], ...]
    batch_size: Annotated[int, Gt(0)]
    kind: Literal["bucketed"] = "bucketed"
    repeats: ClassVar[int] = 1

    def indices(self, count: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1."""
        assert count == len(self.sizes), "one size a sample"
        rng, size = sample_rng(seed, epoch, _ORDER), self.batch_size
        shuffled: list[int] = rng.permutation(count).tolist()
        rest = count % size
        buckets: dict[tuple[int, int], list[int]] = {}
        for index in shuffled[rest:]:
            buckets.setdefault(self.sizes[index], []).append(index)
        whole: list[int] = []
        left: list[int] = []
        for bucket in buckets.values():
            cut = len(bucket) - len(bucket) % size
            whole += bucket[:cut]
            left += bucket[cut:]
        batches = np.array(whole + left, dtype=np.int64).reshape(-1, size)
        tail = np.array(shuffled[:rest], dtype=np.int64)
        return np.concatenate([rng.permutation(batches).ravel(), tail])


Order = Sequential | Shuffled | Bucketed


def sample_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """The random numbers of one showing of one sample.

    Philox is counter based (Salmon et al. 2011): the key and the upper half of the counter name
    the stream, the lower half counts its 2^128 draws, so that streams never overlap.

    Args:
        seed: Seed of the run, 0 or more.
        epoch: Epoch, from 0.
        index: Index in the data set.
        repeat: Which of the repeated showings within the epoch.
    """
    key = np.array((seed, epoch), dtype=np.uint64)
    counter = np.array((0, 0, index, repeat), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
