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


Order = Sequential | Shuffled


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
