"""All numbers of an image as an archive of numpy, for those who compute on.

Keys of an archive (`np.load` opens it without pickle):

- `image`: the model's input, H W 3, uint8.
- `answer`: what the model says of it, and `truth`, where it is known.
- `map/<method>`: h w; a second class that was asked about is `map/<method>/2`.
  `about/<method>` is the name of the class, `cell/<method>` height and width of a cell in pixels.
- `attention/<layer>`: heads, queries, keys; float32, as captured. Layers have the names of
  `vitrail.explain.layers.AttentionLayer.key`.
- `queries/<layer>`: for each query the first row and column of its pixels; -1 for a query that is
  no place. In a layer with windows the keys of query i are the queries of its window: those from
  `i // keys * keys` on.
- `error/<layer>`: largest difference of `weights @ v` from the fused output, relative.
- `features`: three principal components of the patch features, h w 3, uint8.
- `norms/<block>`: lengths of the tokens, h w.
- `region/<n>`: of a segmenter, the mask that the n-th map of each method is about, H W, bool.
- `symbols`: what a transcriber wrote, one symbol a step.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitrail.errors import ExplainError
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import Layout, OnImage, Pooled, Reading, Searching, Whole, Windowed
from vitrail.explain.page.stream import stream_attention
from vitrail.explain.page.view import ImageView
from vitrail.model import Model

Named = tuple[str, NDArray[Any]]
"""A key and its array."""


def write_arrays(model: Model, view: ImageView, image: UInt8[Tensor, "3 H W"], out: Path) -> Path:
    """Write the archive of one image; attention goes to the disk one layer after the other.

    Args:
        model: In evaluation mode.
        view: What was found; of its attention nothing is read.
        image: Prepared.
        out: An .npz file. It appears when it is complete.

    Raises:
        ExplainError: it cannot be written.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, array in _arrays(model, view, image):
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array, order="C"))
        beside.replace(out)
    except OSError as error:
        raise ExplainError(
            f"{out}: cannot write ({error.strerror}); free space or give another --out"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return out


def query_pixels(layout: Layout, queries: int) -> Int[np.ndarray, "Q 2"]:
    """First row and column of the pixels of each query; -1 for one that is no place."""
    none = np.full((queries, 2), -1)
    match layout:
        case Windowed():
            places = layout.places().numpy(force=True)
            at = _corners(places, layout)
            return np.where(places[:, None] >= 0, at, -1)
        case Whole(prefix=prefix):
            none[len(prefix) :] = _corners(np.arange(queries - len(prefix)), layout)
            return none
        case _:
            assert not isinstance(layout, OnImage) or isinstance(
                layout, Pooled | Reading | Searching
            )
            return none


def _arrays(model: Model, view: ImageView, image: UInt8[Tensor, "3 H W"]) -> Iterator[Named]:
    yield "image", image.permute(1, 2, 0).numpy(force=True)
    yield "answer", np.array(view.answer.label)
    if view.answer.truth:
        yield "truth", np.array(view.answer.truth)
    yield from _maps(view)
    for number, mask in enumerate(() if view.masks is None else view.masks, start=1):
        yield f"region/{number}", mask
    if view.features is not None:
        yield "features", view.features.cells
    for norm in view.norms:
        yield f"norms/{norm.name}", norm.cells
    if view.written is not None:
        yield "symbols", np.array(view.written.symbols)
    layers = attention_layers(model)
    for seen in stream_attention(model, image, range(len(layers)), view.written):
        key = seen.layer.key
        yield f"attention/{key}", seen.weights[0].numpy(force=True)
        yield f"queries/{key}", query_pixels(seen.layout, seen.weights.shape[2])
        yield f"error/{key}", np.array(seen.error)


def _maps(view: ImageView) -> Iterator[Named]:
    # Names of classes may hold anything, names of members become paths: so classes are numbered.
    counted: Counter[str] = Counter()
    for one in view.maps:
        counted[one.key] += 1
        key = one.key if counted[one.key] == 1 else f"{one.key}/{counted[one.key]}"
        yield f"map/{key}", one.cells
        yield f"about/{key}", np.array(one.target)
        yield f"cell/{key}", np.array(one.cell)


def _corners(places: NDArray[np.int64], layout: OnImage) -> NDArray[np.int64]:
    columns = layout.grid[1]
    return np.stack([places // columns, places % columns], axis=1) * layout.stride
