"""Sizes are known without decoding, and make batches of one size."""

from __future__ import annotations

import io

from PIL import Image

from marked import FITTED, STRETCHED, Marked, marked
from vitrail.data.box_augment import BoxAugment, BoxAugmentConfig
from vitrail.data.box_geometry import ScaleJitter
from vitrail.data.buckets import UNKNOWN, buckets_of
from vitrail.data.loader import Loader
from vitrail.data.order import Bucketed
from vitrail.data.workers import Serial
from vitrail.types import Boxes

SAMPLES = [marked([(0, 0, 30, 30)], size) for size in [(100, 150), (150, 100), (90, 90)] * 8]


class Files(Marked):
    """As PNG files, with annotations that do not say how large the images are."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        super().__init__(SAMPLES[:4], broken)
        self.targets = [Boxes() for _ in self.targets]

    def read_bytes(self, index: int) -> bytes:
        stream = io.BytesIO()
        pixels = self.samples[index].image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(stream, "png")
        return b"" if index in self.broken else stream.getvalue()


def test_sizes_are_those_of_views() -> None:
    data = Marked(SAMPLES)
    for preprocess in (STRETCHED, FITTED):
        shapes = [tuple(preprocess.view(sample).image.shape[1:]) for sample in SAMPLES]
        assert buckets_of(data, preprocess) == tuple(shapes)
    assert set(buckets_of(data, FITTED)) == {(96, 160), (160, 96), (96, 96)}


def test_annotations_spare_the_files() -> None:
    data = Marked(SAMPLES, broken=range(len(SAMPLES)))
    assert buckets_of(data, FITTED)[0] == (96, 160)


def test_without_a_size_the_file_says_it() -> None:
    assert buckets_of(Files(broken=(1,)), FITTED) == ((96, 160), UNKNOWN, (96, 96), (96, 160))


def test_batches_have_one_size() -> None:
    data = Marked(SAMPLES)
    config = BoxAugmentConfig(geometry=ScaleJitter(), transpose=0.5, mosaic=0.3)
    loader = Loader(
        data,
        BoxAugment(config, FITTED, data),
        batch_size=4,
        order=Bucketed(buckets_of(data, FITTED), batch_size=4),
        seed=0,
        workers=Serial(),
        drop_last=True,
        strict=True,
    )
    for epoch in range(3):
        batches = list(loader.epoch(epoch))
        assert len(batches) == loader.steps == 6, "none was cut in two"
        assert {len(batch.ids) for batch in batches} == {4}
        assert len({tuple(batch.images.shape) for batch in batches}) == 3
        late = list(loader.epoch(epoch, start=4))
        assert [batch.targets for batch in late] == [batch.targets for batch in batches[4:]]
