"""Who prepares the batches: this thread, other threads or other processes.

Whatever the choice, the batches are the same bit for bit, and they come in the same order.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, Literal, TypeVar, cast

import torch
from annotated_types import Gt
from pydantic import ConfigDict
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from vitrail.machine import usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")

PREFETCH = 2
"""Batches that are prepared ahead, for each worker."""


@dataclass(frozen=True, slots=True)
class Serial:
    """Prepare each batch when it is asked for."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    kind: Literal["serial"] = "serial"


@dataclass(frozen=True, slots=True)
class Threads:
    """Prepare batches in threads: best where C code does the work and releases the GIL."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    count: Annotated[int, Gt(0)]
    kind: Literal["threads"] = "threads"


@dataclass(frozen=True, slots=True)
class Processes:
    """Prepare batches in processes: best where Python does the work, and there is much of it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    count: Annotated[int, Gt(0)]
    kind: Literal["processes"] = "processes"


@dataclass(frozen=True, slots=True)
class Auto:
    """Measure which of the others is fastest for the data at hand."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    kind: Literal["auto"] = "auto"


Workers = Serial | Threads | Processes | Auto


@dataclass(frozen=True, slots=True)
class SharedCores:
    """As `Auto`, where the cores that prepare batches are those that a model uses them up on.

    A worker then takes its time from the model, and holds up every core that waits for the one it
    runs on: training steps on two cores took 1.2 times as long in float32, 1.07 times in bfloat16,
    beside workers as with batches prepared in their own thread. Workers pay off only where samples
    are dear.
    """


def workers_for(workers: Workers, device: torch.device) -> Workers | SharedCores:
    """What `Auto` means for a model on a device; every other choice stays.

    Args:
        workers: As asked for.
        device: Where the model runs that uses up the batches.
    """
    return SharedCores() if isinstance(workers, Auto) and device.type == "cpu" else workers


def run(
    work: Callable[[Job, threading.Event], Result],
    jobs: Sequence[Job],
    workers: Serial | Threads | Processes,
) -> Generator[Result, None, None]:
    """Do jobs and give their results in order.

    At most `PREFETCH` results a worker are held. Closing the generator, an error in a job and an
    interrupt all end the workers before control comes back.

    Args:
        work: Does one job; it may look at the event, which is set once results are unwanted.
        jobs: What to do.
        workers: Who does it.
    """
    match workers:
        case Serial():
            never = threading.Event()
            return (work(job, never) for job in jobs)
        case Threads(count=count):
            return _run_threads(work, jobs, min(count, max(len(jobs), 1)))
        case Processes(count=count):
            return _run_processes(work, jobs, min(count, max(len(jobs), 1)))


def _run_threads(
    work: Callable[[Job, threading.Event], Result], jobs: Sequence[Job], count: int
) -> Generator[Result, None, None]:
    stop = threading.Event()
    pool = ThreadPoolExecutor(count, thread_name_prefix="vitrail-loader")
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job, stop))
            if len(waiting) > PREFETCH * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way from a worker process to the caller."""

    error: Exception


class _Jobs(TorchDataset["Result | _Failure"], Generic[Job, Result]):
    """Jobs as torch's loader wants them."""

    def __init__(self, work: Callable[[Job, threading.Event], Result], jobs: Sequence[Job]) -> None:
        self.work, self.jobs = work, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Result | _Failure:
        try:
            return self.work(self.jobs[index], threading.Event())
        except Exception as error:  # noqa: BLE001 whatever it is, the caller raises it
            return _Failure(_portable(error))


def _portable(error: Exception) -> Exception:
    """The error with the worker's traceback as a note, if it survives the way, else its text."""
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    except Exception:  # noqa: BLE001 pickling may fail in any way
        return RuntimeError("".join(traceback.format_exception_only(error)))
    return error


def _first(items: list[Result]) -> Result:
    return items[0]


def _run_processes(
    work: Callable[[Job, threading.Event], Result], jobs: Sequence[Job], count: int
) -> Generator[Result, None, None]:
    # torch's own machinery: results travel in shared memory, workers run one torch thread each
    # and end by themselves when this process dies.
    loader = DataLoader(
        _Jobs(work, jobs),
        batch_size=1,
        collate_fn=_first,
        num_workers=count,
        prefetch_factor=PREFETCH,
    )
    with warnings.catch_warnings():
        # More workers than cores is the caller's decision; forking beside idle threads is safe
        # here, because workers take no lock that such a thread could hold.
        warnings.simplefilter("ignore")
        results = cast("Iterator[Result | _Failure]", iter(loader))
    try:
        for result in results:
            if isinstance(result, _Failure):
                raise result.error
            yield result
    except BaseException as error:
        # The iterator ends its workers when it is freed; an interrupt inside it must not keep it.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        del results, loader


@dataclass(frozen=True, slots=True)
class Choice:
    """Who prepares the batches, and why.

    Attributes:
        workers: The choice.
        why: One sentence for people, with the figures that led to it.
    """

    workers: Serial | Threads | Processes
    why: str


def choose(prepare: Callable[[int], object], count: int, cores: int | None = None) -> Choice:
    """Measure who prepares samples fastest.

    Samples that cost little are not worth handing over. Otherwise the same samples are prepared
    by one thread and by two at once: if two are much faster, C code does the work and threads
    serve; if not, Python does, and processes pay off once a sample is expensive.

    Args:
        prepare: Reads and prepares one sample; its errors are ignored here.
        count: Samples there are.
        cores: Cores to use; all that this process may use if None.
    """
    cores = cores or math.ceil(usable_cores())
    if cores == 1 or count < 2:
        return Choice(Serial(), "one core" if cores == 1 else "hardly any samples")
    probes = [count * i // min(count, _PROBES) for i in range(min(count, _PROBES))]
    _time(prepare, probes[:1])
    once = max(_time(prepare, probes[:2]) / 2, 1e-9)
    probes = (probes * _PROBES)[: max(2, min(2 * _PROBES, int(_SECONDS / once)))]
    serial = min(_time(prepare, probes) for _ in range(2))
    cost = f"{serial / len(probes) * 1e3:.2g} ms a sample"
    if serial / len(probes) < _CHEAP:
        return Choice(Serial(), f"{cost}: cheaper than handing it over")
    with ThreadPoolExecutor(2) as pool:
        both = min(_time_pair(pool, prepare, probes) for _ in range(2))
    gain = serial / both
    if gain >= _GAIN:
        return Choice(Threads(cores), f"{cost}, two threads are {gain:.1f} times as fast as one")
    if serial / len(probes) >= _EXPENSIVE:
        return Choice(
            Processes(cores),
            f"{cost}, two threads are only {gain:.1f} times as fast as one: Python does the work",
        )
    return Choice(Threads(1), f"{cost}, two threads are only {gain:.1f} times as fast as one")


def choose_beside(share: float, prepare: Callable[[int], object], count: int) -> Choice:
    """Choose who prepares samples on the cores that a model runs on.

    Args:
        share: Time of preparing a batch, over the time of using it up.
        prepare: Reads and prepares one sample; its errors are ignored here.
        count: Samples there are.
    """
    if share < _SMALL:
        return Choice(
            Serial(),
            f"samples take {100 * share:.2g} % of the model's time on the same cores, so that they "
            "are prepared in its thread",
        )
    return choose(prepare, count)


_PROBES = 8
_SECONDS = 0.15
_CHEAP = 0.1e-3
_EXPENSIVE = 3e-3
_GAIN = 1.3
_SMALL = 0.2


def _time(prepare: Callable[[int], object], indices: Sequence[int]) -> float:
    start = time.perf_counter()
    for index in indices:
        prepare(index)
    return time.perf_counter() - start


def _time_pair(
    pool: ThreadPoolExecutor, prepare: Callable[[int], object], indices: Sequence[int]
) -> float:
    start = time.perf_counter()
    halves = [pool.submit(_time, prepare, indices[part::2]) for part in (0, 1)]
    for half in halves:
        half.result()
    return time.perf_counter() - start
