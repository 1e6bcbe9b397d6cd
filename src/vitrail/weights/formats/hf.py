"""What Hugging Face folders have in common: config.json, preprocessor_config.json, names, labels.

`config.json` may leave out whatever is the default of its class, so every reader brings those
defaults. Files hold the parameter names of transformers 4.x; 5.x renames them in memory only. Both
are read, the older ones are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from safetensors.torch import save
from torch import Tensor

from vitrail.config import build, nearest
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks import TaskConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf_processor import (
    Processor,
    check_processor,
    class_default,
    processor_json,
    read_processor,
)
from vitrail.weights.formats.hf_settings import LARGEST, Settings
from vitrail.weights.formats.shapes import outputs
from vitrail.weights.mapping import Entry, Joined, pair
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
"""`hidden_act` to ours."""


@dataclass(frozen=True, slots=True)
class LayerNames:
    """What the linear maps of one encoder layer are called.

    Attributes:
        query: The other two projections differ from it as `key` and `value` do.
        key: Of the keys.
        value: Of the values.
        out: After attention.
        fc1: First of the MLP.
        fc2: Second of the MLP.
    """

    query: str
    key: str
    value: str
    out: str
    fc1: str
    fc2: str

    def qkv(self, layer: str, ours: str, width: int, *, bias: bool) -> list[Entry]:
        """Their three projections as our one.

        Args:
            layer: Their layer, with the dot that follows.
            ours: Our attention module.
            width: Of the tokens.
            bias: Whether they have one.
        """
        joined = Joined((width, width, width))
        return [
            Entry(
                f"{ours}.qkv.{kind}",
                tuple(f"{layer}{name}.{kind}" for name in (self.query, self.key, self.value)),
                joined,
            )
            for kind in (("weight", "bias") if bias else ("weight",))
        ]

    def rest(self, layer: str, ours: str, norms: tuple[str, str]) -> list[Entry]:
        """All else that is alike: what follows attention, the norms, the MLP."""
        return [
            *pair(f"{ours}.attn.proj", f"{layer}{self.out}."),
            *pair(f"{ours}.norm1", f"{layer}{norms[0]}."),
            *pair(f"{ours}.norm2", f"{layer}{norms[1]}."),
            *pair(f"{ours}.mlp.fc1", f"{layer}{self.fc1}."),
            *pair(f"{ours}.mlp.fc2", f"{layer}{self.fc2}."),
        ]


RENAMED = LayerNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    out="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)
"""In the memory of transformers 5.x, all families but Swin v2."""


class HfReader(Reader):
    """A folder of Hugging Face.

    Attributes:
        types: Values of `model_type` that are read.
        processor: The class that prepares images where no file says so.
    """

    name = "hf"
    publisher_licence = "Apache-2.0"
    types: ClassVar[tuple[str, ...]]
    processor: Processor

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.settings = Settings(f"{checkpoint.path}: config.json", checkpoint.config)
        self.model_type = self.settings.text("model_type", "")
        self.stem = f"{self.model_type}." if self.any(f"{self.model_type}.") else ""
        self.renamed = any(".attention.q_proj." in name for name in checkpoint.tensors)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """By `model_type` in `config.json`, and nothing else."""
        return checkpoint.config.get("model_type") in cls.types

    def activation(self) -> str:
        """Ours for `hidden_act`."""
        given = self.settings.text("hidden_act", "gelu")
        if given not in ACTIVATIONS:
            raise CheckpointError(
                f"{self.settings.source}: hidden_act = '{given}' is not known"
                f"{nearest(given, ACTIVATIONS)}; known are {', '.join(ACTIVATIONS)}"
            )
        return ACTIVATIONS[given]

    def patch_and_image(self, patch: int) -> tuple[int, tuple[int, int], list[str]]:
        """Side of a patch, image size as whole patches, and what is to be said of them."""
        settings, notes = self.settings, list[str]()
        settings.insist("num_channels", wanted=3, why="images have three colours")
        rows, columns = settings.side_or_sides("patch_size", patch)
        if rows != columns:
            raise settings.wrong("patch_size", "one side")
        size = settings.side_or_sides("image_size", 224)
        whole = (size[0] // rows * rows, size[1] // rows * rows)
        if min(whole) == 0:
            raise settings.wrong("image_size", f"at least one patch of {rows} pixels")
        if whole != size:
            notes.append(f"image_size {size} is cut to whole patches: {whole}")
        return rows, whole, notes

    def insist_layers(self, layers: str, depth: int, field: str) -> None:
        """Refuse a depth that the file does not have, before a model of it is built.

        Args:
            layers: What leads the numbers of layers.
            depth: By `config.json`.
            field: What it is called there.
        """
        found = self.count(f"{self.stem}{layers}.")
        if found < depth:
            raise CheckpointError(
                f"{self.settings.source}: {field} = {depth}, but the weights have {found}: tensors "
                f"of '{self.stem}{layers}.{found}' are missing"
            )

    def head(self, bias: str, given: Given) -> ClassifyConfig:
        """The classifier whose bias that is, with the names of its outputs."""
        count = outputs(self.checkpoint, (bias.replace("bias", "weight"), bias))
        if count > LARGEST:
            raise CheckpointError(f"{self.checkpoint.path}: tensor '{bias}' names {count} classes")
        kind = self.settings.text("problem_type", "single_label_classification")
        table = {
            "classes": self.class_names(count, given, self.labels()),
            "multilabel": kind == "multi_label_classification",
        }
        return build(ClassifyConfig, table, source=str(self.checkpoint.path))

    def preprocess(self, image_size: tuple[int, int]) -> tuple[Preprocess, tuple[str, ...]]:
        """From `preprocessor_config.json`, else as the processor's class does by default."""
        if not self.checkpoint.preprocessor:
            note = f"no preprocessor_config.json: images are prepared as {self.processor} does"
            return class_default(self.processor, image_size), (note,)
        source = f"{self.checkpoint.path}: preprocessor_config.json"
        return read_processor(Settings(source, self.checkpoint.preprocessor), self.processor)

    def labels(self) -> dict[int, str]:
        """Names of outputs by number, as far as the file has them."""
        labels = self.checkpoint.config.get("id2label")
        if labels is None:
            return {}
        if not isinstance(labels, Mapping):
            raise self.settings.wrong("id2label", "a table of names by number")
        named: dict[int, str] = {}
        for key, label in cast("Mapping[object, object]", labels).items():
            number = str(key)
            if not (number.isascii() and number.isdigit() and len(number) < 10):
                raise self.settings.wrong("id2label", "a table of names by number")
            named[int(number)] = str(label)
        return named


def check_head(described: Described) -> str:
    """Why head or preprocessing cannot be expressed, or an empty string."""
    task = described.classifier
    if task is not None and task.hidden is not None:
        return "a tanh layer before the head (pre_logits) has no place in Hugging Face classifiers"
    return check_processor(described.preprocess)


def write_folder(
    out: str,
    config: Mapping[str, Any],
    described: Described,
    tensors: Mapping[str, Tensor],
    processor: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write config.json, preprocessor_config.json and model.safetensors.

    Args:
        out: The folder.
        config: What is of the family's own in `config.json`.
        described: For head and preprocessing.
        tensors: Under their names.
        processor: `preprocessor_config.json`, where it is no classifier's.

    Returns:
        The paths that were written.
    """
    folder = Path(out)
    table = {**config, **_labels_of(described.task), "dtype": "float32"}
    files = {
        "model.safetensors": save(dict(tensors), {"format": "pt"}),
        "preprocessor_config.json": _json(processor or processor_json(described.preprocess)),
        "config.json": _json(table),
    }
    if described.licence:  # a model card, where the hub and we look for it
        quoted = described.licence.replace('"', "'")
        files["README.md"] = f'---\nlicense: "{quoted}"\n---\n'.encode()
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [str(folder / name) for name in files]


def _json(table: Mapping[str, Any]) -> bytes:
    return (json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _labels_of(task: TaskConfig | None) -> dict[str, Any]:
    if not isinstance(task, ClassifyConfig | DetectConfig | SegmentConfig):
        return {}
    labels = {
        "id2label": {str(i): name for i, name in enumerate(task.classes)},
        "label2id": {name: i for i, name in enumerate(task.classes)},
    }
    if not isinstance(task, ClassifyConfig):
        return labels
    kind = "multi_label_classification" if task.multilabel else "single_label_classification"
    return {**labels, "problem_type": kind}
