"""The lines of the installed package that do a step: read, never copied."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vitrail
from vitrail.explain.trace.data import Source

_ROOT = Path(vitrail.__file__).parent.parent


def source(function: Callable[..., Any], first: str, last: str = "") -> Source:
    """Lines of a function, from one that holds `first` to the next that holds `last`.

    Args:
        function: A function or method of this package.
        first: Part of the first line.
        last: Part of the last line; the first line alone where it is empty.
    """
    inner = inspect.unwrap(function)
    lines, number = inspect.getsourcelines(inner)
    begin = next((i for i, line in enumerate(lines) if first in line), None)
    assert begin is not None, f"{function.__qualname__} has no line with '{first}'"
    end = next((i for i in range(begin, len(lines)) if last in lines[i]), None) if last else begin
    assert end is not None, f"{function.__qualname__} has no line with '{last}' after '{first}'"
    file = Path(inspect.getsourcefile(inner) or "").resolve().relative_to(_ROOT.resolve())
    code = textwrap.dedent("".join(lines[begin : end + 1])).rstrip("\n")
    return Source(file.as_posix(), number + begin, code)
