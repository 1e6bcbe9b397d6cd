"""Typed access to `config.json` and `preprocessor_config.json`, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from vitrail.errors import CheckpointError

LARGEST = 1 << 16
"""Sizes beyond it are nonsense; the bound keeps shapes within what a 64-bit count can hold."""

MOST_STAGES = 16
"""Entries of a list; widths double with each stage."""


class Settings:
    """Typed access to a JSON table that somebody else wrote.

    Args:
        source: Path of the file, for errors.
        table: Its content.
    """

    def __init__(self, source: str, table: Mapping[str, Any]) -> None:
        self.source, self.table = source, table

    def whole(self, name: str, default: int, *, least: int = 1) -> int:
        """A count."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise self.wrong(name, f"a whole number from {least} to {LARGEST}")
        return value

    def number(self, name: str, default: float, *, most: float = 1e6) -> float:
        """A positive number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise self.wrong(name, f"a positive number up to {most:g}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """A word."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def wholes(self, name: str, default: tuple[int, ...], *, least: int = 1) -> tuple[int, ...]:
        """A list of counts."""
        value = self._get(name, list(default))
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "a list of whole numbers")
        items = cast("list[Any]", value)
        if len(items) > MOST_STAGES or not all(_is_count(item, least) for item in items):
            raise self.wrong(name, "a list of whole numbers")
        return tuple(cast("list[int]", items))

    def side_or_sides(self, name: str, default: int) -> tuple[int, int]:
        """Height and width, which may be given as one number."""
        value = self._get(name, default)
        if isinstance(value, list | tuple):
            sides = self.wholes(name, ())
            if len(sides) != 2:
                raise self.wrong(name, "one side, or height and width")
            return sides[0], sides[1]
        side = self.whole(name, default)
        return side, side

    def triple(self, name: str, default: tuple[float, float, float]) -> tuple[float, ...]:
        """One number a colour."""
        value = self._get(name, list(default))
        items = cast("list[Any]", value) if isinstance(value, list | tuple) else []
        if len(items) != 3 or not all(_is_finite(item) for item in items):
            raise self.wrong(name, "three numbers")
        return tuple(float(item) for item in items)

    def insist(self, name: str, *, wanted: object, why: str) -> None:
        """Refuse any other value than the default, which alone can be expressed."""
        if self._get(name, wanted) != wanted:
            raise CheckpointError(
                f"{self.source}: {name} = {_shown(self.table.get(name))}: {why}; "
                f"only {_shown(wanted)} can be read"
            )

    def wrong(self, name: str, wanted: str) -> CheckpointError:
        """The error for a value of another kind."""
        return CheckpointError(
            f"{self.source}: {name} = {_shown(self.table.get(name))}: {wanted} is wanted"
        )

    def _get(self, name: str, default: object) -> Any:
        value = self.table.get(name)
        return default if value is None else value


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
