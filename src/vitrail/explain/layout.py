"""Where the rows and columns of an attention matrix lie: on the image, or on a text.

A row is a query and a column a key. Places are told in pixels of the model's input, which mean the
same in every layer of every model, or by the name of a token that is no place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.errors import ExplainError
from vitrail.nn.windows import Windows
from vitrail.types import Grid

Query = int | str | tuple[int, int]
"""A row: its number, the name of a token ("class"), or a pixel (y, x) of the model's input."""


class Layout(ABC):
    """What the rows and columns of one attention matrix stand for."""

    @abstractmethod
    def row(self, query: Query) -> int:
        """Number of the row that is meant.

        Raises:
            ExplainError: there is none such; it says what there is.
        """


@dataclass(frozen=True, slots=True)
class OnImage(Layout):
    """Keys that lie on the image.

    Attributes:
        grid: Rows and columns of places.
        stride: Pixels from one place to the next.
    """

    grid: Grid
    stride: int

    @abstractmethod
    def lay(self, row: int, weights: Float[Tensor, "*B N"]) -> Float[Tensor, "*B _h _w"]:
        """One row of weights on the grid: how much of each place it takes."""

    def place(self, pixel: tuple[int, int]) -> int:
        """Number of the place that holds a pixel, in raster order.

        Raises:
            ExplainError: the pixel is outside.
        """
        y, x = (at // self.stride for at in pixel)
        rows, columns = self.grid
        if not (0 <= y < rows and 0 <= x < columns):
            raise ExplainError(
                f"pixel {pixel} (row, column) is outside the image: rows go from 0 to "
                f"{rows * self.stride - 1}, columns to {columns * self.stride - 1}"
            )
        return y * columns + x


@dataclass(frozen=True, slots=True)
class OfTokens(OnImage):
    """Keys are all tokens: those that are no places first, then the places in raster order.

    Attributes:
        prefix: Names of the tokens that are no places.
    """

    prefix: tuple[str, ...] = ()

    def lay(self, row: int, weights: Float[Tensor, "*B N"]) -> Float[Tensor, "*B _h _w"]:
        """What a row takes of each place; what it takes of the prefix is left out."""
        del row
        places = weights[..., len(self.prefix) :]
        return places.reshape(*weights.shape[:-1], *self.grid)


@dataclass(frozen=True, slots=True)
class Whole(OfTokens):
    """All tokens to all tokens."""

    @property
    def rows(self) -> int:
        """Number of tokens."""
        return len(self.prefix) + self.grid[0] * self.grid[1]

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        match query:
            case int():
                return _in_range(query, self.rows)
            case str():
                return _named(query, self.prefix)
            case _:
                return len(self.prefix) + self.place(query)


@dataclass(frozen=True, slots=True)
class Pooled(OfTokens):
    """One learned query to all tokens (attention pooling)."""

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        if isinstance(query, int):
            return _in_range(query, 1)
        raise ExplainError(f"query {query!r}: this pooling has one learned query, number 0")


@dataclass(frozen=True, slots=True)
class Reading(OfTokens):
    """Symbols of a text to the tokens of an image (a decoder's cross-attention)."""

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        return _symbol(query)


@dataclass(frozen=True, slots=True)
class Windowed(OnImage):
    """Places to places of the same window; rows are in the order of windows, padding included.

    Attributes:
        windows: How the map is cut.
    """

    windows: Windows

    @property
    def rows(self) -> int:
        """Places of all windows."""
        return self.windows.count * self.windows.size**2

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        match query:
            case int():
                return _in_range(query, self.rows)
            case str():
                raise ExplainError(f"query '{query}': windows have no such token; give a pixel")
            case _:
                return int((self.places() == self.place(query)).nonzero().item())

    def lay(self, row: int, weights: Float[Tensor, "*B N"]) -> Float[Tensor, "*B _h _w"]:
        """What a row takes of each place of its window, cutting and shift undone; zero elsewhere.

        What it takes of padding is left out.
        """
        size = self.windows.size**2
        start = row // size * size
        here = self.places()[start : start + size].to(weights.device)
        laid = weights.new_zeros(*weights.shape[:-1], self.grid[0] * self.grid[1])
        laid[..., here[here >= 0]] = weights[..., here >= 0]
        return laid.reshape(*weights.shape[:-1], *self.grid)

    def places(self) -> Tensor:
        """The place of each row in raster order; -1 for padding."""
        return self.windows.places().flatten()


@dataclass(frozen=True, slots=True)
class Symbols(Layout):
    """Symbols of a text to symbols of a text."""

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        return _symbol(query)


@dataclass(frozen=True, slots=True)
class Searching(OnImage):
    """Queries for objects to the cells of one map or several (a detector's cross-attention).

    Attributes:
        grids: Rows and columns of each map; their cells stand side by side in the columns. Each
            covers the whole of `grid`.
    """

    grids: tuple[Grid, ...]

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        return _searcher(query)

    def lay(self, row: int, weights: Float[Tensor, "*B N"]) -> Float[Tensor, "*B _h _w"]:
        """What a row takes of each place; a cell of another map is shared out by area."""
        del row
        laid = weights.new_zeros(*weights.shape[:-1], *self.grid)
        start = 0
        for grid in self.grids:
            end = start + grid[0] * grid[1]
            cells = weights[..., start:end].reshape(*weights.shape[:-1], *grid)
            down = _overlaps(self.grid[0], grid[0], like=weights)
            across = _overlaps(self.grid[1], grid[1], like=weights)
            laid += down @ cells @ across.mT
            start = end
        return laid


@dataclass(frozen=True, slots=True)
class Searchers(Layout):
    """Queries for objects to queries for objects."""

    def row(self, query: Query) -> int:
        """Number of the row that is meant."""
        return _searcher(query)


def _overlaps(fine: int, cells: int, *, like: Tensor) -> Float[Tensor, "F C"]:
    """Share of each of `cells` equal parts of a line that lies in each of `fine` equal parts."""
    ours, theirs = (
        torch.arange(count + 1, device=like.device, dtype=torch.float64) / count
        for count in (fine, cells)
    )
    ends = torch.minimum(ours[1:, None], theirs[None, 1:])
    starts = torch.maximum(ours[:-1, None], theirs[None, :-1])
    return ((ends - starts).clamp_min(0) * cells).to(like.dtype)


def _in_range(query: int, rows: int) -> int:
    if not 0 <= query < rows:
        raise ExplainError(f"query {query}: the queries of this layer go from 0 to {rows - 1}")
    return query


def _named(query: str, names: tuple[str, ...]) -> int:
    if query not in names:
        known = ", ".join(f"'{name}'" for name in names)
        have = f"the named tokens are {known}" if names else "this model has no named tokens"
        raise ExplainError(f"query '{query}': {have}; a place is given by its pixel (row, column)")
    return names.index(query)


def _symbol(query: Query) -> int:
    if not isinstance(query, int) or query < 0:
        raise ExplainError(f"query {query!r}: a text's symbols are given by number, from 0 on")
    return query


def _searcher(query: Query) -> int:
    if not isinstance(query, int) or query < 0:
        raise ExplainError(
            f"query {query!r}: queries for objects are given by number, from 0 on; "
            "`Detection.queries` has that of each object"
        )
    return query
