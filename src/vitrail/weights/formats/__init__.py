"""All formats. To add one: a file with its Reader (and Writer), and a line in each place below."""

from __future__ import annotations

from collections.abc import Mapping

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.bigvision import BigVision
from vitrail.weights.formats.deit import DeiT, DeiTWriter
from vitrail.weights.formats.detr import Detr, DetrWriter
from vitrail.weights.formats.google import Google, GoogleWriter
from vitrail.weights.formats.hf_detr import HfDetrReader, HfDetrWriter
from vitrail.weights.formats.hf_dinov2 import HfDinov2Reader, HfDinov2Writer
from vitrail.weights.formats.hf_lw_detr import HfLwDetrReader
from vitrail.weights.formats.hf_rf_detr import HfRfDetrReader
from vitrail.weights.formats.hf_swin import HfSwinReader, HfSwinWriter
from vitrail.weights.formats.hf_vit import HfViTReader, HfViTWriter
from vitrail.weights.formats.hf_yolos import HfYolosReader, HfYolosWriter
from vitrail.weights.formats.rf_detr import RfDetrReader
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
    GoogleWriter,
    DeiTWriter,
    T2TWriter,
    SwinWriter,
    DetrWriter,
    TorchvisionWriter,
)
"""Every format that is written; of several with one name, the first that can express a model."""

HF_TASKS = {
    "eomt": "segment",
}
"""Hugging Face model types that are known, and the task that they wait for."""


class PendingFormatError(CheckpointError):
    """A format that was recognised and cannot be read before its task is built.

    Attributes:
        task: The task.
    """

    def __init__(self, message: str, task: str) -> None:
        super().__init__(message)
        self.task = task


def recognise(checkpoint: Checkpoint) -> Reader:
    """The format of a checkpoint.

    Raises:
        PendingFormatError: the format belongs to a task that is not built yet.
        CheckpointError: no format has such names; some of them are shown.
    """
    _insist_built(checkpoint)
    for kind in READERS:
        if kind.recognises(checkpoint):
            return kind(checkpoint)
    some = ", ".join(list(checkpoint.tensors)[:5])
    raise CheckpointError(
        f"{checkpoint.path}: of no known format; its {len(checkpoint.tensors)} tensors begin with "
        f"{some or 'nothing'}. Known: {', '.join(dict.fromkeys(r.name for r in READERS))}"
    )


def _insist_built(checkpoint: Checkpoint) -> None:
    task, what = _pending(checkpoint.config, checkpoint.tensors)
    if task:
        raise PendingFormatError(
            f"{checkpoint.path}: recognised as {what}; it needs the task '{task}', which this "
            "version does not have yet",
            task,
        )


def _pending(config: Mapping[str, object], names: Mapping[str, object]) -> tuple[str, str]:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in HF_TASKS:
        return HF_TASKS[model_type], f"a Hugging Face {model_type}"
    if "encoder.patch_embed.proj.weight" in names and any(n.startswith("decoder.") for n in names):
        return "segment", "a Segmenter checkpoint"
    return "", ""
