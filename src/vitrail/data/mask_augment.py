"""Training-time augmentation of images with segments: image and masks move as one.

Every random number comes from the generator that is passed in, so a view is a function of
(seed, epoch, index) and of nothing else.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from vitrail.config import Config
from vitrail.data.augment import Probability
from vitrail.data.color_jitter import ColorJitter, color_jitter
from vitrail.data.dataset import Dataset
from vitrail.data.framing import show
from vitrail.data.mask_geometry import Cut, MaskCrop, MaskGeometry, Point, cut, shown, turned
from vitrail.data.preprocess import CenterCrop, Line, Preprocess, fill_black
from vitrail.data.segment_views import compact, filled_void
from vitrail.data.tiles import Tiles, Windows
from vitrail.errors import ConfigError
from vitrail.types import VOID, Grid, Sample, Segments, View


class MaskAugmentConfig(Config):
    """What happens to a training image with segments.

    Attributes:
        geometry: Which part is shown, and how large.
        rare: Chance that the part is drawn around a pixel of a class of the image, each of its
            classes as likely as the others; else any part is as likely.
        min_visible: An object of which less is shown is not judged there. Regions of classes are,
            however little there is of them.
        transpose: Chance that rows and columns change places. With both flips at 0.5 as well, all
            eight symmetries of a square are equally likely, for images without an up.
        hflip: Chance of a mirror image.
        vflip: Chance of an upside-down image.
        color_jitter: Colour jitter, or None.
    """

    geometry: MaskGeometry = MaskCrop()
    rare: Probability = 0.5
    min_visible: float = Field(default=0.3, ge=0, le=1)
    transpose: Probability = 0.0
    hflip: Probability = 0.0
    vflip: Probability = 0.0
    color_jitter: ColorJitter | None = None


class MaskAugment:
    """A random view of a sample with segments.

    Its size and extent are those of evaluation; of `Tiles` and `Windows`, those of one of them.

    Args:
        config: What to do.
        preprocess: Size, filter and colours that the model is made for.
        dataset: Says whether segments are classes or objects.

    Raises:
        ConfigError: the preprocessing cuts parts of the image off.
    """

    def __init__(self, config: MaskAugmentConfig, preprocess: Preprocess, dataset: Dataset) -> None:
        if isinstance(preprocess.resize, CenterCrop | Line):
            raise ConfigError(
                f"preprocess.resize.kind = '{preprocess.resize.kind}' does not keep whole images, "
                "as masks need it; take 'squash', 'fit', 'tiles' or 'windows'"
            )
        self.config, self.preprocess, self.dataset = config, preprocess, dataset
        rgb = slice(None) if preprocess.channel_order == "rgb" else slice(None, None, -1)
        self._mean = np.rint(np.array(preprocess.mean[rgb]) * 255).astype(np.uint8)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """Draw one view.

        Args:
            sample: Its target is `Segments`; it is not changed.
            rng: The only source of randomness.

        Returns:
            An image that may share the sample's memory, and those segments that have pixels in
            it. What lies outside the image is void.
        """
        config = self.config
        assert isinstance(sample.target, Segments), "a sample with segments"
        evaluated = self.preprocess.resize.resized(*sample.target.size)
        size, filled = self._sizes(evaluated, sample.target.size)
        swapped, flipped, upset = rng.random(3) < (config.transpose, config.hflip, config.vflip)
        frame = (size[1], size[0]) if swapped else size
        image, segments = self._framed(sample.image, sample.target, evaluated, frame, rng)
        ids = segments.ids
        if swapped:
            image, ids = image.transpose(1, 2), ids.transpose(1, 2)
        if axes := [axis for axis, yes in ((1, upset), (2, flipped)) if yes]:
            image, ids = image.flip(axes), ids.flip(axes)
        if config.color_jitter:
            image = _recoloured(config.color_jitter, image, rng)
        segments = Segments(ids.contiguous(), segments.labels, segments.crowds)
        view = View(fill_black(image, filled), compact(filled_void(segments, filled)))
        return view if size == filled else View(view.image, view.target, size)

    def _sizes(self, evaluated: Grid, image: Grid) -> tuple[Grid, Grid]:
        """How much of a view shows the image, and how large the view is."""
        rule = self.preprocess.resize
        if isinstance(rule, Tiles | Windows):
            return (min(evaluated[0], rule.size[0]), min(evaluated[1], rule.size[1])), rule.size
        return evaluated, self.preprocess.output_size(*image)

    def _framed(
        self,
        image: torch.Tensor,
        segments: Segments,
        evaluated: Grid,
        size: Grid,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, Segments]:
        """A part of the image in a view of this size, and its segments."""
        config = self.config
        point = somewhere(segments, rng) if rng.random() < config.rare else None
        part = cut(config.geometry, segments.size, evaluated, size, point, rng)
        if part.angle:
            image, view = turned(image, segments, part, size, self._mean)
        else:
            image = show(image, part.window, size, self.preprocess, self._mean)
            view = shown(segments, part.window, size)
        if self.dataset.segments == "semantic" or not config.min_visible:
            return image, compact(view)
        return image, compact(view, _least(segments, part, config.min_visible, len(view.labels)))


def somewhere(segments: Segments, rng: np.random.Generator) -> Point | None:
    """A random pixel of a random segment of a random class; None where there is no class.

    A class with few pixels is drawn as often as one with many.
    """
    crowds = segments.crowds or (False,) * len(segments.labels)
    own: dict[int, list[int]] = {}
    for number, (label, crowd) in enumerate(zip(segments.labels, crowds, strict=True), start=1):
        if label != VOID and not crowd:
            own.setdefault(label, []).append(number)
    if not own:
        return None
    numbers = own[sorted(own)[int(rng.integers(len(own)))]]
    number = numbers[int(rng.integers(len(numbers)))]
    places = np.flatnonzero(segments.ids.numpy() == np.int16(number))
    if not len(places):
        return None
    height, width = segments.size
    place = int(places[int(rng.integers(len(places)))]) % (height * width)
    return place // width + 0.5, place % width + 0.5


def _least(
    segments: Segments, part: Cut, min_visible: float, labels: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Pixels of a view that each segment must have; a crowd is kept whatever is left of it."""
    source, place = part.window
    pixels = place.rows / source.rows * place.columns / source.columns
    whole = np.bincount(segments.ids.numpy().ravel(), minlength=len(segments.labels) + 1)[1:]
    least = np.zeros(labels)
    least[: len(whole)] = whole * pixels * min_visible
    if segments.crowds:
        least[: len(whole)][np.array(segments.crowds)] = 0
    return least


def _recoloured(jitter: ColorJitter, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = np.array(color_jitter(jitter, picture, rng))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
