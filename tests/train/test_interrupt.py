"""The first signal raises a flag, the second one is as if nobody listened."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from vitrail.train.interrupt import Interrupt


@pytest.fixture(autouse=True)
def same_handlers_after() -> Iterator[None]:
    before = [signal.getsignal(number) for number in Interrupt.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == before


@pytest.mark.parametrize("number", Interrupt.SIGNALS)
def test_the_first_is_a_flag(number: signal.Signals) -> None:
    with Interrupt() as interrupt:
        assert interrupt.received is None
        signal.raise_signal(number)
        assert interrupt.received == number


def test_the_second_ends_it() -> None:
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_it_signals_are_as_before() -> None:
    with Interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_signals_are_left_alone() -> None:
    """Only the main thread may set handlers; a library that trains in a thread must still work."""
    seen: list[object] = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.extend([signal.getsignal(signal.SIGINT), interrupt.received])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), None]
