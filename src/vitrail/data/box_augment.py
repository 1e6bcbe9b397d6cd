"""Training-time augmentation of images with boxes.

Every random number comes from the generator that is passed in, so a view is a function of
(seed, epoch, index) and of nothing else; so are the other images that mosaic and copy-paste take.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from vitrail.config import Config
from vitrail.data.augment import NoGeometry, Probability
from vitrail.data.box_geometry import BoxCrop, BoxGeometry, window
from vitrail.data.color_jitter import ColorJitter, color_jitter
from vitrail.data.copy_paste import copy_paste
from vitrail.data.dataset import Dataset
from vitrail.data.framing import mirrored, moved, show, transposed, upside_down
from vitrail.data.mosaic import IMAGES, LEAST, mosaic
from vitrail.data.preprocess import CenterCrop, Fit, Letterbox, Line, Preprocess, fill_black
from vitrail.errors import BadSampleError, ConfigError
from vitrail.types import Boxes, Grid, Sample, View


class BoxAugmentConfig(Config):
    """What happens to a training image with boxes.

    Attributes:
        geometry: Which part is shown, and how large.
        min_visible: A box is kept where at least this share of it is shown, or its centre.
        mosaic: Chance that four images share the view; the geometry is then a crop of each.
        copy_paste: Chance that objects of another image are pasted.
        transpose: Chance that rows and columns change places. With both flips at 0.5 as well, all
            eight symmetries of a square are equally likely, for images without an up.
        hflip: Chance of a mirror image.
        vflip: Chance of an upside-down image.
        color_jitter: Colour jitter, or None.
    """

    geometry: BoxGeometry = NoGeometry()
    min_visible: float = Field(default=0.3, gt=0, le=1)
    mosaic: Probability = 0.0
    copy_paste: Probability = 0.0
    transpose: Probability = 0.0
    hflip: Probability = 0.0
    vflip: Probability = 0.0
    color_jitter: ColorJitter | None = None


_TILE = BoxCrop(area=(0.25, 1.0))
"""What a mosaic shows of an image: from all of it at half its size to a quarter of it as it is."""


class BoxAugment:
    """A random view of a sample with boxes.

    Its size and extent are those of evaluation: they depend on the size of the sample alone, so
    that batches made of samples of one shape stay of one size.

    Args:
        config: What to do.
        preprocess: Size, filter and colours that the model is made for.
        dataset: Where mosaic and copy-paste find other samples.

    Raises:
        ConfigError: the preprocessing cuts parts of the image off, and boxes with them.
    """

    def __init__(self, config: BoxAugmentConfig, preprocess: Preprocess, dataset: Dataset) -> None:
        if isinstance(preprocess.resize, CenterCrop | Line):
            raise ConfigError(
                f"preprocess.resize.kind = '{preprocess.resize.kind}' does not keep whole images, "
                "as boxes need it; take 'squash' or 'fit'"
            )
        self.config, self.preprocess, self.dataset = config, preprocess, dataset
        rgb = slice(None) if preprocess.channel_order == "rgb" else slice(None, None, -1)
        self._mean = np.rint(np.array(preprocess.mean[rgb]) * 255).astype(np.uint8)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> View:
        """Draw one view.

        Args:
            sample: Its target is `Boxes`; it is not changed.
            rng: The only source of randomness.

        Returns:
            An image of size `preprocess.output_size` that may share the sample's memory. Boxes lie
            within what shows the image, and are a pixel wide and high at least.
        """
        config = self.config
        size = self._evaluated(sample)
        turned, flipped, upset = rng.random(3) < (config.transpose, config.hflip, config.vflip)
        frame = (size[1], size[0]) if turned else size
        view = self._composed(sample, frame, rng)
        if turned:
            view = transposed(view)
        if flipped:
            view = mirrored(view)
        if upset:
            view = upside_down(view)
        if config.color_jitter:
            view = _recoloured(config.color_jitter, view, rng)
        if not isinstance(self.preprocess.resize, Fit | Letterbox):
            return view
        filled = self.preprocess.output_size(sample.image.shape[1], sample.image.shape[2])
        return View(fill_black(view.image, filled), view.target, size)

    def _evaluated(self, sample: Sample) -> Grid:
        """Size to which evaluation stretches the image."""
        return self.preprocess.resize.resized(sample.image.shape[1], sample.image.shape[2])

    def _composed(self, sample: Sample, size: Grid, rng: np.random.Generator) -> View:
        """One image, or parts of several; of one if another cannot be read."""
        config = self.config
        several, pasted = rng.random(2) < (config.mosaic, config.copy_paste)
        view: View | None = None
        if several and min(size) >= LEAST and (others := self._others(IMAGES - 1, rng)):
            tile = partial(self._framed, geometry=_TILE, rng=rng)
            view = mosaic([sample, *others], tile, size, rng)
        if view is None:
            view = self._framed(sample, size, geometry=config.geometry, rng=rng)
        if pasted and (others := self._others(1, rng)):
            other = self._framed(others[0], size, geometry=config.geometry, rng=rng)
            view = copy_paste(view, other, config.min_visible, rng)
        return view

    def _others(self, count: int, rng: np.random.Generator) -> list[Sample]:
        """Random samples; none if one of them cannot be used."""
        indices: list[int] = rng.integers(len(self.dataset), size=count).tolist()
        try:
            return [self.dataset.read(index) for index in indices]
        except BadSampleError:
            return []

    def _framed(
        self, sample: Sample, size: Grid, *, geometry: BoxGeometry, rng: np.random.Generator
    ) -> View:
        """A part of one image in a view of this size."""
        boxes = sample.target
        assert isinstance(boxes, Boxes), "a sample with boxes"
        part = window(geometry, boxes, self._evaluated(sample), size, rng)
        image = show(sample.image, part, size, self.preprocess, self._mean)
        return View(image, Boxes(moved(boxes, part, self.config.min_visible), size))


def _recoloured(jitter: ColorJitter, view: View, rng: np.random.Generator) -> View:
    picture = Image.fromarray(view.image.permute(1, 2, 0).numpy())
    pixels = np.array(color_jitter(jitter, picture, rng))
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
    return View(image, view.target)
