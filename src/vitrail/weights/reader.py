"""The seam of foreign formats: recognise a checkpoint, say what model it is, and name its tensors.

What a format decides (activation, epsilon, order of tokens, resampling, preprocessing) is decided
in its own file. What no file can tell comes from the user, or from the published variant whose
shapes these are; if it stays unknown, one error lists all that has to be given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field
from torch import Tensor

from vitrail.backbones import VARIANTS, BackboneConfig
from vitrail.backbones.backbone import BackboneBase
from vitrail.config import Config, build, merge, nearest
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, ConfigError
from vitrail.tasks import TaskConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.mapping import Derived, Entry

C = TypeVar("C", bound=BackboneBase)


class Given(Config):
    """What the user says of a checkpoint beside the file.

    Attributes:
        variant: A name of `vitrail models`.
        backbone: Fields of the backbone's configuration, such as `heads`; they win over the file.
        task: Fields of the task's configuration, likewise.
        preprocess: Fields of the preprocessing, likewise.
        classes: Class names in the order of the outputs.
        part: Which table of weights to take from a training dump, such as `model_ema`.
    """

    variant: str | None = None
    backbone: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    task: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    preprocess: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    classes: tuple[str, ...] = ()
    part: str | None = None


class Described(Config):
    """What a checkpoint holds.

    Attributes:
        backbone: From normalised images to features.
        task: The head; None for a file that has none.
        preprocess: How its images are prepared.
        variant: The published variant whose sizes these are, or empty.
        notes: What was inferred and from what, for people.
        licence: Of the weights, for formats that have a place for it; empty where none is known.
    """

    backbone: BackboneConfig
    task: TaskConfig | None
    preprocess: Preprocess
    variant: str = ""
    notes: tuple[str, ...] = ()
    licence: str = ""

    @property
    def classifier(self) -> ClassifyConfig | None:
        """The head, for formats that hold classifiers and backbones alone."""
        assert self.task is None or isinstance(self.task, ClassifyConfig), "of another task"
        return self.task


class Reader(ABC):
    """One format, with one checkpoint of it at hand.

    Attributes:
        name: The format, as people call it.
        publisher_licence: Licence that the publisher of this format gives its own weights.
    """

    name: ClassVar[str]
    publisher_licence: ClassVar[str]

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @classmethod
    @abstractmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Whether names, container or config are those of this format."""

    @abstractmethod
    def describe(self, given: Given) -> Described:
        """The model, from the file and from what was given.

        Raises:
            CheckpointError: a tensor that is needed to tell is missing (by name), or something
                that no file of this format tells was not given.
        """

    @abstractmethod
    def entries(self, described: Described) -> list[Entry]:
        """The whole table; our names are those of `vitrail.model.Model`.

        Without a task, only the backbone's.
        """

    def derived(self, described: Described) -> list[Derived]:
        """Tensors of the format that need not be read."""
        del described
        return []

    def shape(self, name: str, dims: int | None = None) -> tuple[int, ...]:
        """Shape of a tensor that must be there.

        Raises:
            CheckpointError: it is missing, or has another number of dimensions.
        """
        if name not in self.checkpoint.tensors:
            near = nearest(name, self.checkpoint.tensors)
            raise CheckpointError(f"{self.checkpoint.path}: tensor '{name}' is missing{near}")
        shape = self.checkpoint.tensors[name].shape
        if dims is not None and len(shape) != dims:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor '{name}' has shape {list(shape)}, "
                f"{dims} dimensions are wanted"
            )
        return shape

    def any(self, *beginnings: str) -> bool:
        """Whether some tensor's name begins like this."""
        return any(name.startswith(beginnings) for name in self.checkpoint.tensors)

    def count(self, beginning: str) -> int:
        """Layers `beginning0...`, `beginning1...`, counted from 0 up to the first gap."""
        rest = {
            name.removeprefix(beginning)
            for name in self.checkpoint.tensors
            if name.startswith(beginning)
        }
        numbers = {int(digits) for digits in map(_leading_digits, rest) if digits}
        count = 0
        while count in numbers:
            count += 1
        return count

    def class_names(self, outputs: int, given: Given, named: Mapping[int, str]) -> tuple[str, ...]:
        """Names of the outputs: as given, as the file has them, or their numbers.

        A name that occurs twice (ImageNet has two cranes) is told apart by its number.
        """
        if given.classes:
            if len(given.classes) != outputs:
                raise CheckpointError(
                    f"{self.checkpoint.path}: the head has {outputs} outputs, "
                    f"{len(given.classes)} class names were given"
                )
            return given.classes
        names = [named.get(i, str(i)) for i in range(outputs)]
        counts = Counter(names)
        return tuple(n if counts[n] == 1 else f"{n} ({i})" for i, n in enumerate(names))


def settle(
    kind: type[C],
    known: Mapping[str, Any],
    unknown: Mapping[str, str],
    given: Given,
    checkpoint: Checkpoint,
) -> tuple[C, str, tuple[str, ...]]:
    """A backbone's configuration from all that is known.

    Args:
        kind: The configuration to build.
        known: Fields that the file or its format tells.
        unknown: Fields that it does not, each with an example of what to give.
        given: What the user says; it wins.
        checkpoint: For the error.

    Returns:
        The configuration, the published variant with these sizes (or empty), and notes.

    Raises:
        CheckpointError: something stays unknown, or what is known contradicts itself.
    """
    if given.variant is not None and given.variant not in VARIANTS:
        raise ConfigError(
            f"unknown model '{given.variant}'{nearest(given.variant, VARIANTS)}; "
            "`vitrail models` lists all"
        )
    if given.variant is not None:
        _insist_sizes(given.variant, kind, known, checkpoint)
    alike = _alike(kind, known, given)
    table, notes = dict(known), list[str]()
    for field in unknown.keys() - given.backbone.keys():
        values = {_frozen(VARIANTS[name].config.model_dump()[field]) for name in alike}
        if len(values) == 1:
            table[field] = VARIANTS[alike[0]].config.model_dump()[field]
            notes.append(f"{field} = {table[field]}, as in {alike[0]} with the same shapes")
    missing = [f for f in unknown if f not in table and f not in given.backbone]
    if missing:
        wanted = ", ".join(f"--set {field}={unknown[field]}" for field in missing)
        raise CheckpointError(
            f"{checkpoint.path}: the file does not tell {' and '.join(missing)}; "
            f"give {wanted}, or --variant NAME of `vitrail models`"
        )
    try:
        config = build(kind, merge(table, given.backbone), source=str(checkpoint.path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    return config, _variant(config, given), tuple(notes)


SIZES = frozenset(
    {
        *("kind", "width", "depth", "depths", "stem", "patch_size", "mlp_ratio", "splits"),
        *("token_width", "resnet_depths", "resnet_width", "registers", "distillation_token"),
        *("window", "widths", "dilated", "detection_tokens", "positions_in"),
        *("windows", "whole", "taps"),
    }
)
"""Fields by which a published variant is told."""


def _alike(kind: type[BackboneBase], known: Mapping[str, Any], given: Given) -> list[str]:
    """Published variants of these sizes; the given one alone where one was given."""
    names = [given.variant] if given.variant else [n for n, v in VARIANTS.items() if v.published]
    found: list[str] = []
    for name in names:
        config = VARIANTS[name].config
        if isinstance(config, kind) and not _differing(config, known):
            found.append(name)
    return found


def _insist_sizes(
    name: str, kind: type[BackboneBase], known: Mapping[str, Any], checkpoint: Checkpoint
) -> None:
    """A variant that was named must have the sizes of the file.

    Raises:
        CheckpointError: it has others; the first that differs is named.
    """
    config = VARIANTS[name].config
    if not isinstance(config, kind):
        raise CheckpointError(
            f"{checkpoint.path}: is no {name}, which is of the family '{config.kind}'; "
            "leave --variant out or name another"
        )
    for field in _differing(config, known):
        raise CheckpointError(
            f"{checkpoint.path}: is no {name}: {field} is {known[field]}, there it is "
            f"{config.model_dump()[field]}; leave --variant out or name another"
        )


def _differing(config: BackboneBase, known: Mapping[str, Any]) -> list[str]:
    own = config.model_dump()
    return sorted(f for f in SIZES & known.keys() if not _near(own.get(f), known[f]))


def _variant(config: BackboneBase, given: Given) -> str:
    if given.variant:
        return given.variant
    table = config.model_dump()
    sizes = {*SIZES, "heads", "image_size", "window", "token_block", "pretrained_windows"}
    for name, variant in VARIANTS.items():
        own = variant.config.model_dump()
        if variant.published and all(_near(own.get(f), table.get(f)) for f in sizes):
            return name
    return ""


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float | int):
        return abs(a - b) < 1e-3
    return _frozen(a) == _frozen(b)


def _frozen(value: Any) -> Any:
    """Comparable and hashable: tables as sorted items, lists as tuples, models as tables."""
    match value:
        case Config():
            return _frozen(value.model_dump())
        case dict():
            return tuple(sorted((str(k), _frozen(v)) for k, v in value.items()))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return tuple(_frozen(v) for v in value)  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _leading_digits(text: str) -> str:
    digits = ""
    for character in text[:6]:  # more layers than that no model has
        if character not in "0123456789":
            break
        digits += character
    return digits


class Writer(ABC):
    """One format to write.

    Attributes:
        name: The format.
        task: What its models do; some write a backbone alone, too.
    """

    name: ClassVar[str]
    task: ClassVar[str] = "classify"

    @classmethod
    @abstractmethod
    def refuses(cls, described: Described) -> str:
        """Why this model cannot be expressed in the format, or an empty string."""

    @classmethod
    @abstractmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write file or folder `out`; the paths that were written."""
