"""The picture of a study of masks: image, truth, and what two of its arms make of it."""
# pyright: reportUnknownMemberType=false
# Keyword arguments of matplotlib have no types.

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from vitrail.studies.study import Job
from vitrail.weights.modelfile import write_atomically

WINDOW = 256
"""Side of what is shown of a large image: fine lines would vanish in a smaller picture of it."""

_RIGHT, _MISSED, _FALSE, _NONE = (245, 245, 245), (232, 113, 42), (66, 133, 214), (20, 22, 26)

Mask = Bool[np.ndarray, "H W"]
Masks = Sequence[Bool[np.ndarray, "_H _W"]]
"""Of images of any sizes."""


def most_foreground(truths: Masks, count: int) -> list[int]:
    """The images that show the most of it, whatever a model makes of them."""
    shares = [-float(mask.mean()) for mask in truths]
    return np.argsort(shares, kind="stable")[:count].tolist()


def keep_answers(job: Job, answers: Masks) -> None:
    """Keep what a run answers, for the picture."""
    for place, answer in enumerate(answers):
        Image.fromarray(np.uint8(255) * answer).save(_kept(job, place))


def draw_examples(
    jobs: Sequence[Job],
    images: Sequence[UInt8[Tensor, "3 _H _W"]],
    truths: Masks,
    arms: Sequence[str],
) -> Path:
    """One row an image: itself, the truth, and the answer of each arm with the first seed.

    Args:
        jobs: All runs; their answers are kept.
        images: What was asked.
        truths: What is right.
        arms: Whose answers are shown.

    Returns:
        The PNG, beside the page.
    """
    from matplotlib.figure import Figure

    first = {job.arm: job for job in reversed(jobs)}
    figure = Figure(figsize=(2.6 * (2 + len(arms)), 2.6 * len(images) + 0.3), layout="constrained")
    grid = figure.subplots(len(images), 2 + len(arms), squeeze=False)
    for row, (image, truth) in enumerate(zip(images, truths, strict=True)):
        window = busiest_window(truth)
        pixels = image.permute(1, 2, 0).numpy()
        shown = [pixels, coloured(truth, truth)]
        for arm in arms:
            answer = np.asarray(Image.open(_kept(first[arm], row)).convert("L")) > 127
            shown.append(coloured(answer, truth))
        for axes, picture in zip(grid[row], shown, strict=True):
            axes.imshow(picture[window], interpolation="nearest")
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("image", "truth", *arms), strict=True):
        axes.set_title(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    path = jobs[0].folder / f"{jobs[0].study}-examples.png"
    write_atomically(path, buffer.getvalue())
    return path


def coloured(answer: Mask, truth: Mask) -> UInt8[np.ndarray, "H W 3"]:
    """An answer beside the truth: what is right, what is missed, what is a false alarm."""
    colours = np.array([_NONE, _MISSED, _FALSE, _RIGHT], dtype=np.uint8)
    return colours[truth + 2 * answer.astype(np.intp)]


def busiest_window(truth: Mask) -> tuple[slice, slice]:
    """The part of a large image that shows the most foreground."""
    height, width = (min(side, WINDOW) for side in truth.shape)
    sums = np.pad(truth, ((1, 0), (1, 0))).astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    inside = sums[height:, width:] - sums[:-height, width:]
    inside = inside - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _kept(job: Job, place: int) -> Path:
    return job.run / f"example-{place}.png"
