"""A checkpoint of another library: named tensors that are read when wanted, and what stands beside.

Opening one allocates nothing for the weights: names, shapes and types come from headers, which are
checked against the size of the file first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor


class Stored(ABC):
    """One tensor in a file.

    Attributes:
        shape: As the file declares it.
        dtype: As stored; what torch has no type for is named by the nearest that holds it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def read(self) -> Tensor:
        """The values in memory of their own, contiguous.

        Raises:
            CheckpointError: the file was cut or damaged.
        """


class Held(Stored):
    """A tensor in memory, in the place of one in a file."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), tensor.dtype

    def read(self) -> Tensor:
        """The tensor itself."""
        return self.tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened file or folder.

    Attributes:
        path: What the user named.
        container: How the tensors are stored.
        tensors: By the names in the file.
        part: Key of the table that the weights stand in, such as `model`; empty for none.
        parts: All tables of weights that the file has.
        config: `config.json` beside the weights; empty where there is none.
        preprocessor: `preprocessor_config.json` beside them, likewise.
        metadata: Free text in the header of a safetensors file, and the front matter of a
            model card (`license`).
        extras: Plain data beside the weights in a training dump: arguments, epoch.
    """

    path: Path
    container: Literal["npz", "safetensors", "torch"]
    tensors: Mapping[str, Stored]
    part: str = ""
    parts: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    preprocessor: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    extras: Mapping[str, Any] = field(default_factory=dict[str, Any])
