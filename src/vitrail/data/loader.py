"""From a data set to prepared batches, in an order that is a function of seed and epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.data.order import Order, sample_rng
from vitrail.data.workers import (
    Auto,
    Choice,
    Processes,
    Serial,
    SharedCores,
    Threads,
    Workers,
    choose,
    choose_beside,
    run,
)
from vitrail.errors import BadSampleError
from vitrail.types import Batch, Sample, Skipped, View

Transform = Callable[[Sample, np.random.Generator], View]
"""A sample and the random numbers for it, to what the model sees."""

ImageTransform = Callable[[Tensor, np.random.Generator], Tensor]
"""The same for labels that do not lie on the image: (3, H, W) in uint8, there and back."""


def on_image(transform: ImageTransform) -> Transform:
    """A transform that leaves the label as it is."""

    def view(sample: Sample, rng: np.random.Generator) -> View:
        return View(transform(sample.image, rng), sample.target)

    return view


@dataclass(frozen=True, slots=True)
class _Job:
    """One planned batch: the samples to show, as (index, repeat)."""

    epoch: int
    picks: tuple[tuple[int, int], ...]


class Loader:
    """Batches of prepared images.

    Samples that cannot be read are left out of their batch and named in `Batch.skipped`; nothing
    takes their place. Images that come out in different sizes are given as several batches.

    Args:
        dataset: Where samples come from.
        transform: Prepares one sample; all its randomness comes from the generator it is given.
        batch_size: Samples a planned batch.
        order: Order of the samples.
        seed: Seed of order and augmentation, 0 or more.
        workers: Who prepares batches; the batches do not depend on it.
        drop_last: Leave out the last batch if it is smaller than the others.
        strict: Make a sample that cannot be used an error.

    Attributes:
        steps: Planned batches an epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        *,
        batch_size: int,
        order: Order,
        seed: int,
        workers: Workers | SharedCores,
        drop_last: bool,
        strict: bool,
    ) -> None:
        assert batch_size > 0
        self.dataset, self.transform, self.batch_size = dataset, transform, batch_size
        self.order, self.seed, self.strict = order, seed, strict
        full, rest = divmod(len(dataset), batch_size)
        self.steps = full + (rest > 0 and not drop_last)
        self._beside = isinstance(workers, SharedCores)
        self._choice = (
            None if isinstance(workers, Auto | SharedCores) else Choice(workers, "as asked")
        )

    @property
    def chosen(self) -> Serial | Threads | Processes:
        """Who prepares the batches; if nothing told so before, the first look measures it."""
        if self._choice is None:
            self._choice = choose(self._probe, len(self.dataset))
        return self._choice.workers

    @property
    def why(self) -> str | None:
        """The reason for that choice, for people; None before it is made."""
        return None if self._choice is None else self._choice.why

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch.

        Args:
            epoch: Epoch, from 0.
            start: Planned batches to leave out at the beginning: an epoch that was interrupted
                after `start` steps goes on with exactly the batches that it would have had.

        Raises:
            BadSampleError: a sample cannot be used, and the loader is strict.
        """
        indices = self.order.indices(len(self.dataset), self.seed, epoch)
        picks = [(int(index), place % self.order.repeats) for place, index in enumerate(indices)]
        size = self.batch_size
        jobs = [
            _Job(epoch, tuple(picks[step * size : (step + 1) * size]))
            for step in range(start, self.steps)
        ]
        if self._beside and self._choice is None:
            first, jobs = jobs[:_WATCHED], jobs[_WATCHED:]
            yield from self._watch(first)
        results = run(self._load, jobs, self.chosen)
        try:
            for batches in results:
                yield from batches
        finally:
            results.close()

    def _watch(self, jobs: Sequence[_Job]) -> Generator[Batch, None, None]:
        """Prepare batches in this thread; what that costs beside their use decides for the rest."""
        never, own, use = threading.Event(), 0.0, 0.0
        for number, job in enumerate(jobs):
            start = time.perf_counter()
            batches = self._load(job, never)
            ready = time.perf_counter()
            yield from batches
            if number > 0:  # the first batch finds everything cold
                own, use = own + ready - start, use + time.perf_counter() - ready
        if use > 0:
            self._choice = choose_beside(own / use, self._probe, len(self.dataset))

    def _load(self, job: _Job, stop: threading.Event) -> list[Batch]:
        """Prepare one planned batch; several batches if sizes differ, never none."""
        groups: dict[tuple[int, int], list[tuple[Sample, View]]] = {}
        skipped: list[Skipped] = []
        for index, repeat in job.picks:
            if stop.is_set():
                break
            try:
                sample, view = self._prepare(index, job.epoch, repeat)
            except BadSampleError as error:
                skipped.append(self._skip(index, error))
            else:
                size = (view.image.shape[1], view.image.shape[2])
                groups.setdefault(size, []).append((sample, view))
        batches = [_collate(group) for group in groups.values()] or [_EMPTY]
        return [replace(batches[0], skipped=tuple(skipped)), *batches[1:]]

    def _prepare(self, index: int, epoch: int, repeat: int) -> tuple[Sample, View]:
        try:
            sample = self.dataset.read(index)
            rng = sample_rng(self.seed, epoch, index, repeat)
            return sample, self.transform(sample, rng)
        except BadSampleError:
            raise
        except Exception as error:
            error.add_note(f"while preparing sample {self.dataset.ids[index]}")
            raise

    def _skip(self, index: int, error: BadSampleError) -> Skipped:
        name = self.dataset.ids[index]
        if self.strict:
            raise BadSampleError(f"{name}: {error}") from error
        return Skipped(name, str(error))

    def _probe(self, index: int) -> None:
        with suppress(BadSampleError):
            self._prepare(index, epoch=0, repeat=0)


_WATCHED = 4

_EMPTY = Batch((), torch.empty((0, 3, 0, 0), dtype=torch.uint8), ())


def _collate(group: list[tuple[Sample, View]]) -> Batch:
    views = [view for _, view in group]
    whole = views[0].image.shape[1], views[0].image.shape[2]
    filled = any(view.extent not in (None, whole) for view in views)
    return Batch(
        ids=tuple(sample.id for sample, _ in group),
        images=_stack([view.image for view in views]),
        targets=tuple(view.target for view in views),
        sizes=tuple((sample.image.shape[1], sample.image.shape[2]) for sample, _ in group),
        extents=tuple(view.extent or whole for view in views) if filled else (),
    )


def _stack(images: list[Tensor]) -> UInt8[Tensor, "B 3 H W"]:
    """Copy images into one contiguous batch.

    In numpy, since torch would start its own threads beside the workers for a copy this large.
    """
    batch = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:] = image.numpy()
    return torch.from_numpy(batch)  # pyright: ignore[reportUnknownMemberType]
