"""The page of `vitrail explain`: one offline HTML file to look into a model with the pointer."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from vitrail.explain.layers import AttentionLayer
from vitrail.explain.page.about import WORDS
from vitrail.explain.page.curves import CurveView
from vitrail.explain.page.packed import Bits, Packed, tolerance
from vitrail.explain.page.view import ColourView, ImageView, MapView, NormView
from vitrail.report_templates import open_templates, script_hash
from vitrail.types import Grid, Skipped
from vitrail.weights.modelfile import write_atomically

SCRIPTS = ("data", "geometry", "draw", "state", "pictures", "attention", "maps", "plots", "keys")
"""Parts of the script in the order in which they are joined: `templates/explain_<part>.js`."""


@dataclass(frozen=True, slots=True)
class DistanceView:
    """How far each head looks, in the mean (ViT Fig. 7, right).

    Attributes:
        layers: Names of the layers, in their order.
        numbers: Their numbers among all layers of the model.
        pixels: Mean distance of each head of each layer in pixels of the model's input.
        images: Over how many images.
    """

    layers: tuple[str, ...]
    numbers: tuple[int, ...]
    pixels: tuple[tuple[float, ...], ...]
    images: int


@dataclass(frozen=True, slots=True)
class PageView:
    """All that a page shows.

    Attributes:
        model: Name of the model.
        facts: Label and value of what is known of it.
        layers: Its attention.
        images: Those that are shown.
        distances: How far its heads look.
        notes: What is left out, coarser, or has to be said, a sentence each.
        refused: Name of a method that cannot explain this model, and why.
        skipped: Images that could not be read.
    """

    model: str
    facts: tuple[tuple[str, str], ...]
    layers: tuple[AttentionLayer, ...]
    images: tuple[ImageView, ...] = ()
    distances: DistanceView | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    skipped: tuple[Skipped, ...] = ()


def image_bytes(image: ImageView) -> int:
    """Bytes that an image takes on a page, without its attention."""
    return len(_json(_image(image, 0, {})))


def write_page(page: PageView, out: Path) -> Path:
    """Write the page: one file, no requests, nothing else needed.

    Raises:
        ModelFileError: it cannot be written; nothing is left behind.
    """
    write_atomically(out, render_page(page).encode())
    return out


def render_page(page: PageView) -> str:
    """The page as text."""
    environment = open_templates()
    sources = [environment.get_template(f"explain_{part}.js").render() for part in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(sources) + "\n})();\n"
    blobs: dict[str, str] = {}
    return environment.get_template("explain.html").render(
        page=page,
        proof=proof(page),
        precision=precision(page),
        data=_json(_page(page, blobs)),
        blobs=blobs,
        script=script,
        script_hash=script_hash(script),
    )


def proof(page: PageView) -> str:
    """What was checked, in plain words; empty where there is no attention."""
    kept = [(image, i, one) for image in page.images for i, one in enumerate(image.attention)]
    errors = [(one.error, image.id, page.layers[i].name) for image, i, one in kept if one]
    if not errors:
        return ""
    worst, image, layer = max(errors)
    passes = f"{len(errors)} pass{'es' if len(errors) > 1 else ''} of a layer"
    size = f"the largest difference is {worst:.1e} of the largest value"
    found = f"{size} ({layer} on {PurePath(image).name})" if worst else "there is no difference"
    return (
        "The model ran its fast path, which keeps no attention. The weights shown here were "
        "computed beside it and then checked: weights times values must give what the fast path "
        f"gave. Over {passes} {found}."
    )


def precision(page: PageView) -> str:
    """How exact the numbers of the page are."""
    kept = [one.bits for image in page.images for one in image.attention if one]
    if not kept:
        return "Maps are stored in single precision, as they were computed."
    bits: Bits = 8 if 8 in kept else 16
    parts = round(1 / tolerance(bits))
    return (
        f"Attention is stored in {bits} bits a weight: each number is within one part in "
        f"{parts:,} of the largest number of its row. Maps are stored in single precision, as they "
        "were computed."
    )


def _page(page: PageView, blobs: dict[str, str]) -> dict[str, Any]:
    """The data of the page; large arrays go to `blobs`, to be decoded when they are looked at."""
    return {
        "colours": _base64(_viridis()),
        "layers": [{"name": layer.name, "heads": layer.heads} for layer in page.layers],
        "images": [_image(image, i, blobs) for i, image in enumerate(page.images)],
        "distances": None if page.distances is None else _distances(page.distances),
    }


def _image(image: ImageView, number: int, blobs: dict[str, str]) -> dict[str, Any]:
    answer, written = image.answer, image.written
    return {
        "id": image.id,
        "size": image.size,
        "src": image.picture.uri,
        "pixelated": image.picture.pixelated,
        "label": answer.label,
        "score": answer.score,
        "best": answer.best,
        "truth": answer.truth,
        "written": None if written is None else written.symbols,
        "read": None if written is None else written.read,
        "maps": [_map(one) for one in image.maps],
        "features": None if image.features is None else _colours(image.features),
        "norms": [_norms(one) for one in image.norms],
        "attention": [
            None if one is None else _packed(one, f"w-{number}-{i}", blobs)
            for i, one in enumerate(image.attention)
        ],
    }


def _packed(one: Packed, key: str, blobs: dict[str, str]) -> dict[str, Any]:
    blobs[key] = _base64(one.data)
    laid = one.laid
    return {
        "blob": key,
        "shape": one.shape,
        "bits": one.bits,
        "error": one.error,
        "rows": laid.rows,
        "keys": laid.keys,
        "tokens": laid.tokens,
        "others": laid.others,
        "grid": laid.grid,
        "stride": laid.stride,
        "window": laid.window,
        "shift": laid.shift,
        "block": laid.block,
    }


def _map(one: MapView) -> dict[str, Any]:
    return {
        "key": one.key,
        "name": one.name,
        "about": WORDS[one.key],
        "paper": one.paper,
        "target": one.target,
        "said": one.said,
        "cells": _floats(one.cells),
        "cell": one.cell,
        "curves": [_curve(curve) for curve in one.curves],
    }


def _curve(curve: CurveView) -> dict[str, Any]:
    return {
        "kind": curve.kind,
        "shares": _short(curve.shares),
        "values": _short(curve.values),
        "area": curve.area,
        "random": _short(curve.random_values),
        "randomArea": curve.random_area,
    }


def _colours(one: ColourView) -> dict[str, Any]:
    height, width = one.cells.shape[:2]
    cells = {"grid": (height, width), "data": _base64(one.cells.tobytes())}
    return {"cells": cells, "cell": one.cell}


def _norms(one: NormView) -> dict[str, Any]:
    return {
        "name": one.name,
        "cells": _floats(one.cells),
        "cell": one.cell,
        "tokens": one.tokens,
        "outliers": one.outliers,
    }


def _distances(one: DistanceView) -> dict[str, Any]:
    pixels = [_short(heads) for heads in one.pixels]
    return {
        "layers": one.layers,
        "numbers": one.numbers,
        "pixels": pixels,
        "images": one.images,
    }


def _floats(cells: np.ndarray[Grid, np.dtype[np.float32]]) -> dict[str, Any]:
    return {"grid": cells.shape, "data": _base64(np.ascontiguousarray(cells, "<f4").tobytes())}


def _short(values: Sequence[float]) -> list[float | None]:
    """Six digits are enough for a plot; null for what is no number."""
    return [float(f"{value:.6g}") if isfinite(value) else None for value in values]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _viridis() -> bytes:
    """256 colours of even steps in brightness, which the colour-blind see as everyone does."""
    from matplotlib import colormaps

    colours = np.asarray(colormaps["viridis"](np.arange(256)), dtype=np.float64)
    return np.rint(255 * colours[:, :3]).astype(np.uint8).tobytes()


def _json(value: object) -> str:
    """JSON that no HTML parser can mistake for the end of its element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
