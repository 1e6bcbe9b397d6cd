"""All formats. To add one: a file with its Reader (and Writer), and a line in each place below."""

from __future__ import annotations

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.bigvision import BigVision
from vitrail.weights.formats.deit import DeiT, DeiTWriter
from vitrail.weights.formats.detr import Detr, DetrWriter
from vitrail.weights.formats.google import Google, GoogleWriter
from vitrail.weights.formats.hf_detr import HfDetrReader, HfDetrWriter
from vitrail.weights.formats.hf_dinov2 import HfDinov2Reader, HfDinov2Writer
from vitrail.weights.formats.hf_eomt import HfEomtReader, HfEomtWriter
from vitrail.weights.formats.hf_lw_detr import HfLwDetrReader
from vitrail.weights.formats.hf_rf_detr import HfRfDetrReader
from vitrail.weights.formats.hf_swin import HfSwinReader, HfSwinWriter
from vitrail.weights.formats.hf_vit import HfViTReader, HfViTWriter
from vitrail.weights.formats.hf_yolos import HfYolosReader, HfYolosWriter
from vitrail.weights.formats.rf_detr import RfDetrReader
from vitrail.weights.formats.segmenter import SegmenterFile, SegmenterWriter
from vitrail.weights.formats.swin import SwinReader, SwinWriter
from vitrail.weights.formats.t2t import T2T, T2TWriter
from vitrail.weights.formats.timm import TIMM_READERS, TimmWriter
from vitrail.weights.formats.torchvision import TORCHVISION_READERS, TorchvisionWriter
from vitrail.weights.reader import Reader, Writer

READERS: tuple[type[Reader], ...] = (
    Google,
    BigVision,
    HfViTReader,
    HfDinov2Reader,
    HfSwinReader,
    HfDetrReader,
    HfYolosReader,
    HfLwDetrReader,
    HfRfDetrReader,
    HfEomtReader,
    SegmenterFile,
    RfDetrReader,
    Detr,
    DeiT,
    T2T,
    SwinReader,
    *TORCHVISION_READERS,
    *TIMM_READERS,
)
"""Every format that is read; a checkpoint belongs to the first that recognises it."""

WRITERS: tuple[type[Writer], ...] = (
    TimmWriter,
    HfViTWriter,
    HfDinov2Writer,
    HfSwinWriter,
    HfDetrWriter,
    HfYolosWriter,
    HfEomtWriter,
    GoogleWriter,
    DeiTWriter,
    T2TWriter,
    SwinWriter,
    DetrWriter,
    SegmenterWriter,
    TorchvisionWriter,
)
"""Every format that is written; of several with one name, the first that can express a model."""


def recognise(checkpoint: Checkpoint) -> Reader:
    """The format of a checkpoint.

    Raises:
        CheckpointError: no format has such names; some of them are shown.
    """
    for kind in READERS:
        if kind.recognises(checkpoint):
            return kind(checkpoint)
    some = ", ".join(list(checkpoint.tensors)[:5])
    raise CheckpointError(
        f"{checkpoint.path}: of no known format; its {len(checkpoint.tensors)} tensors begin with "
        f"{some or 'nothing'}. Known: {', '.join(dict.fromkeys(r.name for r in READERS))}"
    )
