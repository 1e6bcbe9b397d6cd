"""Ctrl-C and SIGTERM: training saves first, then stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptedRunError(Exception):
    """A run was asked to stop. Everything is saved; `--resume` goes on with the very same bits.

    Attributes:
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class Interrupt:
    """While this context is open, the first signal only raises a flag; the second one kills.

    Attributes:
        received: The signal, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before = {}
