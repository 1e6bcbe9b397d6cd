"""What a trace is made of: steps with their words, formulas, lines of code and numbers.

Data only; `vitrail.explain.trace` fills it and `vitrail.explain.trace.page` draws it. A tensor's
first axis goes over the queries, the patches that a reader can choose, or is 1 where a number does
not depend on the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vitrail.types import Grid


@dataclass(frozen=True, slots=True)
class Text:
    """One sentence or name in both languages."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Source:
    """Lines of the installed package.

    Attributes:
        file: Path from the folder that holds the package, e.g. `vitrail/nn/attention.py`.
        first: Number of the first line, from 1.
        code: The lines, without the indentation that all share.
    """

    file: str
    first: int
    code: str

    @property
    def last(self) -> int:
        """Number of the last line."""
        return self.first + self.code.count("\n")


@dataclass(frozen=True, slots=True)
class Row:
    """The first numbers of a vector.

    Attributes:
        name: What it is.
        values: The first of its numbers.
        width: How many it has.
        sign: What stands before it in a sum: `+`, `=` or nothing.
    """

    name: Text
    values: Float[Tensor, "Q n"]
    width: int
    sign: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors one under another; the last may be the sum of those before it."""

    caption: Text
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Corner:
    """A corner of the array of pixels, channel by channel.

    Attributes:
        raw: 0 to 255.
        normalised: What the model sees.
        channels: The name of each channel, in the model's order.
    """

    caption: Text
    raw: Float[Tensor, "Q 3 r c"]
    normalised: Float[Tensor, "Q 3 r c"]
    channels: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Dot:
    """One dot product: the first products, the sum of the others, the bias and the result.

    Attributes:
        left: What the first factors are of.
        right: What the second factors are of.
        x: The first factors.
        w: The second factors.
        rest: Sum of the products that are not shown.
        count: Number of all products.
        bias: Added at the end; None for none.
        total: The result of this sum, computed here as a check.
        real: The number that the model computed.
    """

    caption: Text
    left: Text
    right: Text
    x: Float[Tensor, "Q n"]
    w: Float[Tensor, "#Q n"]
    rest: Float[Tensor, " Q"]
    count: int
    bias: float | None
    total: Float[Tensor, " Q"]
    real: Float[Tensor, " Q"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Scores of one query with a few keys, as products that are summed.

    Attributes:
        place: The key's cell in the raster order of the grid; below 0 a token that is no patch:
            -1 is the first of `others`.
        others: Names of those tokens.
        grid: Rows and columns of the cells.
        q: First numbers of the query.
        k: First numbers of each key.
        rest: Sum of the products that are not shown.
        width: Number of all products.
        scale: Factor of q·k.
        bias: Added to the scaled product, or None.
        score: What enters the softmax.
        weight: What leaves it.
    """

    caption: Text
    place: Int[Tensor, "Q K"]
    others: tuple[Text, ...]
    grid: Grid
    q: Float[Tensor, "Q n"]
    k: Float[Tensor, "Q K n"]
    rest: Float[Tensor, "Q K"]
    width: int
    scale: float
    bias: Float[Tensor, "Q K"] | None
    score: Float[Tensor, "Q K"]
    weight: Float[Tensor, "Q K"]


@dataclass(frozen=True, slots=True)
class Heat:
    """A map drawn on the image.

    Attributes:
        values: One number a cell in raster order; NaN where there is nothing.
        grid: Rows and columns.
        stride: Pixels a cell.
        low: Value of the dark end of the colours; None for the least of each map.
        high: Value of the bright end; None for the greatest of each map.
        beside: Numbers that lie on no cell, such as the class token's, and the sum of all.
        exact: Whether every number is kept, or 256 steps of them.
    """

    caption: Text
    values: Float[Tensor, "Q M"]
    grid: Grid
    stride: int
    low: float | None = None
    high: float | None = None
    beside: tuple[tuple[Text, Float[Tensor, " Q"]], ...] = ()
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Maps:
    """Many small maps, one under each name.

    Where all have a greatest value and no least one, they share the least of all that are shown.
    """

    caption: Text
    maps: tuple[Heat, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over the blocks.

    Attributes:
        axis: What the points of a line are counted in.
        lines: Name and values of each.
        mark: Point at which a vertical line stands.
    """

    caption: Text
    axis: Text
    lines: tuple[tuple[Text, Float[Tensor, "_q n"]], ...]
    mark: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A function of one number, and points on it.

    Attributes:
        x: Where the function is drawn.
        y: Its values there.
        at: First numbers that went in.
        to: What came out.
    """

    caption: Text
    x: Float[Tensor, " m"]
    y: Float[Tensor, " m"]
    at: Float[Tensor, "Q n"]
    to: Float[Tensor, "Q n"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The image in pieces, and the chosen piece enlarged.

    Attributes:
        grid: Rows and columns of the pieces.
        stride: Pixels from one to the next.
        margin: Pixels by which a piece reaches beyond its cell to the left and the top.
        side: Pixels of a side of a piece.
    """

    caption: Text
    grid: Grid
    stride: int
    margin: int
    side: int


@dataclass(frozen=True, slots=True)
class Tiles:
    """Small pictures of numbers below and above zero, one under each name.

    All of one picture's numbers share its scale; a picture of three channels is drawn in colour.
    """

    caption: Text
    tiles: tuple[tuple[Text, Float[Tensor, "_q _c P P"]], ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """The best classes.

    Attributes:
        names: Class names, best first.
        logits: What the head gave.
        shares: Probabilities.
    """

    caption: Text
    names: tuple[str, ...]
    logits: Float[Tensor, " n"]
    shares: Float[Tensor, " n"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and numbers, or names and words."""

    caption: Text
    rows: tuple[tuple[Text, Float[Tensor, " _q"] | str], ...]


Item = Rows | Corner | Dot | Keys | Heat | Maps | Plot | Curve | Cut | Tiles | Bars | Facts
"""Everything that a step can show."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes:
        key: Its name in the page's addresses; no two steps of a trace share it.
        title: What is done.
        text: One or two plain sentences.
        shapes: The shape of what goes in, of what is between, and of what comes out.
        formula: HTML of our own.
        source: The lines that do it.
        items: The numbers and pictures.
        chapter: Heading that begins with this step, or None.
    """

    key: str
    title: Text
    text: Text
    shapes: tuple[tuple[int, ...], ...]
    formula: str
    source: tuple[Source, ...]
    items: tuple[Item, ...]
    chapter: Text | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of one image through one model.

    Attributes:
        name: Of the model.
        model: What it is, in a few words.
        answer: What it says of the image.
        image: The prepared image, RGB.
        grid: Rows and columns of the cells of the chosen block.
        stride: Pixels a cell.
        queries: Cells that can be chosen, in raster order.
        start: Which of them is shown first.
        layer: The chosen block, from 0.
        depth: Number of blocks.
        head: The chosen head, from 0.
        heads: Number of heads of that block.
        steps: From pixels to the answer.
        difference: Greatest difference between what was traced and what the model gives alone.
    """

    name: str
    model: Text
    answer: Text
    image: UInt8[Tensor, "3 H W"]
    grid: Grid
    stride: int
    queries: tuple[int, ...]
    start: int
    layer: int
    depth: int
    head: int
    heads: int
    steps: tuple[Step, ...]
    difference: float
