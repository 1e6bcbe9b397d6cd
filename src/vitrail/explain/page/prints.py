"""Maps at print size, with a bar of colours: PNG files for papers."""
# pyright: reportUnknownMemberType=false
# Keyword arguments of matplotlib have no types.

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import OfTokens, OnImage, Pooled, Query, Windowed
from vitrail.explain.page.stream import stream_attention
from vitrail.explain.page.view import ImageView, MapView
from vitrail.model import Model
from vitrail.types import Grid
from vitrail.weights.modelfile import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DOTS = 300
"""Dots an inch."""

INCHES = 3.35
"""Width of one picture: a column of most journals."""

OPACITY = 0.62
"""Of the colours over the grey image."""


def write_prints(
    model: Model, view: ImageView, image: UInt8[Tensor, "3 H W"], folder: Path, stem: str
) -> list[Path]:
    """One file a map, and one with the attention of the last layer, head by head.

    Attention is that of the class token, of attention pooling, or where there is neither of the
    place in the middle of the image.

    Args:
        model: In evaluation mode.
        view: What was found.
        image: Prepared.
        folder: It is made where it is missing.
        stem: Names of the files begin with it.

    Raises:
        ModelFileError: a file cannot be written.
    """
    pixels = image.permute(1, 2, 0).numpy(force=True)
    files = [
        _write(folder / f"{stem}-{i + 1}-{one.key}{_about(one)}.png", map_print(pixels, one))
        for i, one in enumerate(view.maps)
    ]
    wanted = _last(model, view.size)
    if wanted is not None:
        title, maps, cell = _attention(model, view, image, wanted)
        files.append(
            _write(folder / f"{stem}-attention.png", heads_print(pixels, title, maps, cell))
        )
    return files


def map_print(pixels: UInt8[np.ndarray, "H W 3"], one: MapView) -> bytes:
    """A map over its image in grey, with title and bar of colours."""
    figure, (axes,) = _figure(pixels.shape[:2], 1, 1)
    drawn = _draw(axes, pixels, one.cells, one.cell, float(one.cells.max()))
    axes.set_title(f"{one.name}: {_plain(one.target)}" if one.target else one.name, fontsize=9)
    figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
    return _png(figure)


def heads_print(
    pixels: UInt8[np.ndarray, "H W 3"],
    title: str,
    maps: Float[np.ndarray, "n h w"],
    cell: Grid,
) -> bytes:
    """The mean of all heads, then each head, on one scale of colours."""
    shown = np.concatenate([maps.mean(axis=0, keepdims=True), maps])
    columns = min(len(shown), 5)
    figure, axes = _figure(pixels.shape[:2], -(-len(shown) // columns), columns)
    top, drawn = float(shown.max()), None
    for i, one in enumerate(shown):
        drawn = _draw(axes[i], pixels, one, cell, top)
        axes[i].set_title("mean of heads" if i == 0 else f"head {i}", fontsize=8)
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    assert drawn is not None
    figure.suptitle(title, fontsize=9)
    bar = figure.colorbar(drawn, ax=list(axes), fraction=0.03, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    return _png(figure)


def _last(model: Model, size: Grid) -> tuple[int, Query] | None:
    """Number of the last layer that looks at places, and the query that is shown."""
    middle = (size[0] // 2, size[1] // 2)
    for layer in reversed(attention_layers(model.backbone)):
        match layer.place.at(size):
            case Pooled():
                return layer.index, 0
            case OfTokens(prefix=prefix):
                return layer.index, "class" if "class" in prefix else middle
            case OnImage():
                return layer.index, middle
            case _:
                continue
    return None


def _attention(
    model: Model, view: ImageView, image: UInt8[Tensor, "3 H W"], wanted: tuple[int, Query]
) -> tuple[str, Float[np.ndarray, "n h w"], Grid]:
    number, query = wanted
    (seen,) = stream_attention(model, image, [number], view.written)
    maps = np.stack([seen.map(query, head)[0].numpy(force=True) for head in seen.heads])
    match query:
        case str():
            who = f"the {query} token"
        case int():
            who = "attention pooling"
        case _:
            who = f"the place at pixel {query}"
    layout = seen.layout
    assert isinstance(layout, OfTokens | Windowed)
    return f"{seen.layer.name}: where {who} looks", maps, (layout.stride, layout.stride)


def _figure(size: Sequence[int], rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = INCHES if columns == 1 else 1.4 * columns
    height = width / columns * rows * size[0] / size[1] + 0.3 * rows
    figure = Figure(figsize=(width + 0.6, max(height, 0.9)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _draw(
    axes: Axes,
    pixels: UInt8[np.ndarray, "H W 3"],
    cells: Float[np.ndarray, "h w"],
    cell: Grid,
    top: float,
) -> AxesImage:
    height, width = pixels.shape[:2]
    grey: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    extent = (0, cells.shape[1] * cell[1], cells.shape[0] * cell[0], 0)
    drawn = axes.imshow(cells, cmap="viridis", vmin=0, vmax=top or 1, alpha=OPACITY, extent=extent)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return drawn


def _about(one: MapView) -> str:
    return f"-{re.sub(r'[^A-Za-z0-9_-]+', '_', one.target)[:40]}" if one.target else ""


def _plain(name: str) -> str:
    """A name in which matplotlib sees no formula."""
    return name.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # of signs that no font here has: a box stands for them
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> Path:
    write_atomically(path, data)
    return path
