"""A trace as one self-contained page in two languages: no requests, nothing else needed."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail.explain.trace.data import Heat, Text, Tiles, Trace
from vitrail.explain.trace.words import PAGE
from vitrail.report_templates import open_templates, script_hash
from vitrail.weights.modelfile import write_atomically

NOTHING = 255
"""The byte of a cell without a number."""

Language = Literal["en", "zh"]


def write_trace(trace: Trace, out: Path, language: Language = "en") -> Path:
    """Write the page of a trace.

    Args:
        trace: What to show.
        out: The HTML file.
        language: The one shown first; the page has a switch.
    """
    write_atomically(out, render_trace(trace, language).encode())
    return out


def render_trace(trace: Trace, language: Language = "en") -> str:
    """The page as text; only its own script may run, whatever stands in names."""
    environment = open_templates()
    script = environment.get_template("trace.js").render()
    data = json.dumps(_page(trace), ensure_ascii=False, separators=(",", ":"))
    return environment.get_template("trace.html").render(
        trace=trace,
        words={key.removeprefix("page."): Text(*entry) for key, entry in PAGE.items()},
        language=language,
        # In a script element nothing else needs an escape.
        data=data.replace("<", "\\u003c"),
        script=script,
        script_hash=script_hash(script),
    )


def _page(trace: Trace) -> dict[str, Any]:
    """All that the script draws from."""
    return {
        "words": {key.removeprefix("page."): entry for key, entry in PAGE.items()},
        "name": trace.name,
        "image": {"uri": _png(trace.image), "size": list(trace.image.shape[1:])},
        "grid": trace.grid,
        "stride": trace.stride,
        "queries": trace.queries,
        "start": trace.start,
        "steps": [plain(step.items) for step in trace.steps],
    }


def _png(image: UInt8[Tensor, "3 H W"]) -> str:
    """Every pixel as it is: a patch that is enlarged shows the numbers that stand beside it."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def plain(value: Any) -> Any:
    """An item as plain data: its fields by name, texts as pairs, numbers in base64."""
    match value:
        case Text(en=english, zh=chinese):
            return [english, chinese]
        case Tensor():
            return _exact(value) if value.is_floating_point() else value.numpy().tolist()
        case tuple():
            return [plain(part) for part in cast("tuple[Any, ...]", value)]
        case Tiles(tiles=tiles):
            return _fields(value) | {"tiles": [[plain(name), _rough(v)] for name, v in tiles]}
        case Heat(exact=False):
            return _fields(value) | {"values": _rough(value.values)}
        case _:
            return _fields(value) if is_dataclass(value) else value


def _fields(item: Any) -> dict[str, Any]:
    named = {field.name: plain(getattr(item, field.name)) for field in fields(item)}
    return {"kind": type(item).__name__.lower(), **named}


def _exact(values: Tensor) -> dict[str, Any]:
    """32-bit numbers as they are."""
    array = values.detach().float().contiguous().numpy().astype("<f4")
    return {"shape": list(array.shape), "f4": _base64(array)}


def _rough(values: Tensor) -> dict[str, Any]:
    """255 steps between the least and the greatest number of each entry of the first axis."""
    flat = values.detach().float().flatten(1)
    known = ~flat.isnan()
    low = torch.where(known, flat, torch.inf).amin(dim=1)
    high = torch.where(known, flat, -torch.inf).amax(dim=1)
    span = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    steps = ((flat - low[:, None]) / span[:, None] * (NOTHING - 1)).round()
    bytes_ = torch.where(known, steps, NOTHING).to(torch.uint8).numpy()
    bounds = torch.stack([low, high], dim=1)
    return {"shape": list(values.shape), "u1": _base64(bytes_), "bounds": _exact(bounds)}


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
