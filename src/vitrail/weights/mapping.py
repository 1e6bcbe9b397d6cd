"""Which tensor of theirs is which of ours: one table a format, read in both directions.

A table is a list of entries. It is made from a configuration, so that it is complete: whatever
stands in the file and in no entry is unknown, whatever stands in an entry and not in the file is
missing, and the shape that each tensor must have follows from our own model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Stored

PAIR = ("weight", "bias")
"""What torch calls the two tensors of a layer."""


class Layout(ABC):
    """How one tensor of ours lies in theirs, there and back.

    `write` also runs on the meta device, where it tells the shapes.
    """

    @abstractmethod
    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Their tensors to ours."""

    @abstractmethod
    def write(self, tensor: Tensor) -> list[Tensor]:
        """Our tensor to theirs."""

    def fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether `read` can make ours from a tensor of that shape."""
        return shape == wanted


class Same(Layout):
    """The same values in the same order."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """As it is."""
        return parts[0]

    def write(self, tensor: Tensor) -> list[Tensor]:
        """As it is."""
        return [tensor]


class Transposed(Layout):
    """A matrix with inputs first, as JAX keeps it."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs first."""
        return parts[0].T

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Inputs first."""
        return [tensor.T]


class Hwio(Layout):
    """A convolution kernel as height, width, inputs, outputs, as JAX keeps it."""

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs, inputs, height, width."""
        return parts[0].permute(3, 2, 0, 1)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Height, width, inputs, outputs."""
        return [tensor.permute(2, 3, 1, 0)]


@dataclass(frozen=True)
class Reshaped(Layout):
    """The same values in another shape.

    Attributes:
        ours: Our shape.
        theirs: Their shape.
    """

    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """In our shape."""
        return parts[0].reshape(self.ours)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """In their shape."""
        return [tensor.reshape(self.theirs)]


@dataclass(frozen=True)
class Joined(Layout):
    """Several of theirs side by side: query, key and value; class token and registers.

    Attributes:
        sizes: Size of each part in ours along the axis.
        axis: Along which they stand.
        each: Layout of every part by itself.
    """

    sizes: tuple[int, ...]
    axis: int = 0
    each: Layout = field(default_factory=Same)

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Joined."""
        return torch.cat([self.each.read([part]) for part in parts], dim=self.axis)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Taken apart."""
        parts = torch.split(tensor, list(self.sizes), dim=self.axis)
        return [self.each.write(part)[0] for part in parts]


@dataclass(frozen=True)
class Rows(Layout):
    """Some rows of a larger tensor of theirs, which several of ours share.

    Attributes:
        start: First row.
        count: Rows that are ours.
        total: Rows of theirs.
    """

    start: int
    count: int
    total: int

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Our rows."""
        return parts[0][self.start : self.start + self.count]

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Our rows among zeros; `write_all` adds up what belongs together."""
        whole = tensor.new_zeros(self.total, *tensor.shape[1:])
        whole[self.start : self.start + self.count] = tensor
        return [whole]


@dataclass(frozen=True)
class Absent(Layout):
    """Of ours alone: they store nothing for it, and it is zero or has no elements.

    Attributes:
        shape: Our shape.
        dtype: Our type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """Zeros."""
        del parts
        return torch.zeros(self.shape, dtype=self.dtype)

    def write(self, tensor: Tensor) -> list[Tensor]:
        """Nothing."""
        del tensor
        return []


@dataclass(frozen=True)
class Entry:
    """A tensor of ours and those of theirs that make it up.

    Attributes:
        ours: Name in the state of `Model`, such as `backbone.norm.weight`.
        theirs: Names in the file.
        layout: How they lie.
    """

    ours: str
    theirs: tuple[str, ...]
    layout: Layout = field(default_factory=Same)


@dataclass(frozen=True)
class Derived:
    """A tensor of theirs that we do not take, since it follows from the rest or is never used.

    Attributes:
        theirs: Name in the file; it may be absent.
        shape: The shape that it must have.
        value: What it must hold; None where its values do not matter at inference.
    """

    theirs: str
    shape: tuple[int, ...]
    value: Tensor | None = None


@dataclass(frozen=True)
class Match:
    """A table held against a file.

    Attributes:
        used: Names that were taken.
        missing: Names that the model needs and the file has not.
        unused: Names that the file has and the model knows nothing of.
        wrong: Names of another shape or type, with what is wrong.
        derived: Names in the file that need not be read.
        absent: Names that need not be there and are not.
    """

    used: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrong: Mapping[str, str]
    derived: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the file is exactly what the model needs."""
        return not (self.missing or self.unused or self.wrong)

    def describe(self) -> str:
        """One sentence with every name that is amiss, at most five of a kind."""
        kinds = {
            "missing": list(self.missing),
            "unknown": list(self.unused),
            "wrong": [f"{name} ({what})" for name, what in self.wrong.items()],
        }
        shown = [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]
        return "; ".join(shown)


def pair(
    ours: str, theirs: str, layout: Layout | None = None, *, names: tuple[str, str] = PAIR
) -> list[Entry]:
    """Weight and bias of one layer; the layout is that of the weight.

    Args:
        ours: Our layer.
        theirs: Their layer, with the separator that follows it (`.` or `/`).
        layout: Of the weight.
        names: What they call weight and bias.
    """
    weight, bias = names
    return [
        Entry(f"{ours}.weight", (f"{theirs}{weight}",), layout or Same()),
        Entry(f"{ours}.bias", (f"{theirs}{bias}",)),
    ]


def match(
    entries: Iterable[Entry],
    derived: Iterable[Derived],
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Stored],
) -> Match:
    """Hold a table against a file, name by name.

    Args:
        entries: The table.
        derived: What else the format may hold.
        wanted: State of our model, on the meta device.
        found: The file.
    """
    entries = list(entries)
    told = [entry.ours for entry in entries]
    assert sorted(told) == sorted(wanted), f"not a table of this model: {set(told) ^ set(wanted)}"
    used: list[str] = []
    missing: list[str] = []
    wrong: dict[str, str] = {}
    for entry in entries:
        shapes = [tuple(part.shape) for part in entry.layout.write(wanted[entry.ours])]
        for name, shape in zip(entry.theirs, shapes, strict=True):
            if name not in found:
                missing.append(name)
                continue
            used.append(name)
            fault = _fault(found[name], shape, entry.layout, floating=_floats(wanted[entry.ours]))
            if fault:
                wrong[name] = fault
    rest = {item.theirs: item for item in derived}
    for name, item in rest.items():
        if name in found and (fault := _contradiction(item, found[name])):
            wrong[name] = fault
    taken = {*used, *rest}
    return Match(
        used=tuple(dict.fromkeys(used)),
        missing=tuple(dict.fromkeys(missing)),
        unused=tuple(name for name in found if name not in taken),
        wrong=wrong,
        derived=tuple(name for name in rest if name in found),
        absent=tuple(name for name in rest if name not in found),
    )


def read_all(entries: Iterable[Entry], found: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Our state from a file that matches: one tensor after the other, in float32.

    Raises:
        CheckpointError: damaged, or values that are no numbers; the tensor is named.
    """
    state: dict[str, Tensor] = {}
    names: tuple[str, ...] = ()
    parts: list[Tensor] = []
    for entry in entries:
        if entry.theirs != names:  # several entries in a row may take from the same tensors
            names = entry.theirs
            parts = [_numbers(name, found[name].read()) for name in names]
        state[entry.ours] = entry.layout.read(parts).contiguous()
    return state


def write_all(entries: Iterable[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors from our state."""
    theirs: dict[str, Tensor] = {}
    for entry in entries:
        parts = entry.layout.write(state[entry.ours].detach().cpu())
        for name, part in zip(entry.theirs, parts, strict=True):
            theirs[name] = theirs[name] + part if name in theirs else part.contiguous()
    return theirs


def _numbers(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    # The sum is finite unless a value is not; it costs no second tensor.
    if not torch.isfinite(tensor.sum()) and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"tensor '{name}' holds NaN or infinity")
    return tensor


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _fault(found: Stored, shape: tuple[int, ...], layout: Layout, *, floating: bool) -> str:
    if not layout.fits(found.shape, shape):
        return f"shape {list(found.shape)} instead of {list(shape)}"
    if found.dtype.is_floating_point != floating:
        return f"{found.dtype} instead of {'floating-point' if floating else 'whole'} numbers"
    return ""


def _contradiction(item: Derived, found: Stored) -> str:
    if found.shape != item.shape:
        return f"shape {list(found.shape)} instead of {list(item.shape)}"
    if item.value is None:
        return ""
    near = torch.allclose(found.read().double(), item.value.double(), atol=1e-4)
    return "" if near else "other values than the configuration gives"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
