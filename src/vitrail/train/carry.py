"""What of a trained model goes into one for other images or other classes, and what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.backbones import build_backbone
from vitrail.backbones.vit import PatchStemConfig, ViTConfig
from vitrail.errors import ConfigError
from vitrail.model import Model
from vitrail.nn.patches import PatchStem, resize_patches
from vitrail.nn.positions import Learned1d, Learned2d, RelativeBias2d, resample_table
from vitrail.nn.windows import RelativePositions
from vitrail.tasks import TaskConfig
from vitrail.tasks.classify import Classify, ClassifyConfig
from vitrail.tasks.detect import Detect, DetectConfig
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.train.carry_classes import with_known_classes
from vitrail.weights.origin import Origin

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Carried:
    """A line of the table of what was loaded and what was not.

    Attributes:
        group: The part of the model, such as `backbone.blocks`.
        found: What the file has of it.
        done: What was done with that.
    """

    group: str
    found: str
    done: str


def carry(origin: Origin, model: Model) -> tuple[Carried, ...]:
    """Put weights into a model that may have another size and other classes.

    Args:
        origin: The weights.
        model: With fresh weights, of the same backbone; changed in place.

    Raises:
        ConfigError: the backbone is another one, so that a tensor has no place; it is named.
    """
    return (*_carry_backbone(origin, model), *_carry_task(origin, model))


def at_patch_size(model: Model, patch_size: int) -> Model:
    """A model that cuts images into other patches, with the same weights and no training.

    Smaller patches see more and cost more. A model that was trained with one size is at its best
    there; how far it may be moved is told by measuring it (Beyer et al. 2023, FlexiViT, Fig. 3).

    Args:
        model: A Vision Transformer with plain patches, and a head that does not depend on them.
        patch_size: Pixels of a side.

    Raises:
        ConfigError: it has no plain patches, or its head is made for theirs.
    """
    config = model.config
    backbone = config.backbone
    if not isinstance(backbone, ViTConfig) or not isinstance(backbone.stem, PatchStemConfig):
        raise ConfigError("patch_size: the model has no plain patches; take a ViT that has")
    stem = PatchStemConfig(patch_size=patch_size)
    wanted = config.model_copy(update={"backbone": backbone.model_copy(update={"stem": stem})})
    other = Model(wanted).to(next(model.parameters()).device)
    state = model.state_dict()
    fits = {name: tensor.shape for name, tensor in other.task.state_dict().items()}
    if fits != {name: tensor.shape for name, tensor in model.task.state_dict().items()}:
        raise ConfigError(
            f"patch_size = {patch_size}: the head is made for patches of "
            f"{backbone.stem.patch_size} pixels; train it with --weights and "
            f"--set model.backbone.stem.patch_size={patch_size}"
        )
    origin = Origin(
        "the model", "", backbone, config.task, config.preprocess, state, licence="", sha256=""
    )
    _carry_backbone(origin, other)
    other.task.load_state_dict(model.task.state_dict())
    return other.train(model.training)


def keeps_head(old: TaskConfig | None, new: TaskConfig) -> bool:
    """Whether the head of a file serves new data: the same classes by name, in any order."""
    match old, new:
        case ClassifyConfig(), ClassifyConfig():
            return old.multilabel == new.multilabel and set(old.classes) == set(new.classes)
        case TranscribeConfig(), TranscribeConfig():
            free = {"max_length", "beams"}
            return old.model_dump(exclude=free) == new.model_dump(exclude=free)
        case _:
            return False


def _carry_backbone(origin: Origin, model: Model) -> list[Carried]:
    """The same of the backbone alone."""
    with torch.device("meta"):
        before = dict(_modules(build_backbone(origin.backbone)))
    state = _below(origin.state, "backbone.")
    resampled: dict[str, str] = {}
    for path, module in _modules(model.backbone):
        start = f"{path}." if path else ""
        for name, (tensor, what) in _resample(
            module, before.get(path), _below(state, start)
        ).items():
            state[start + name], resampled[start + name] = tensor, what
    _insist_same(origin, model, state)
    model.backbone.load_state_dict(state)
    groups: dict[str, list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel():  # a backbone without a class token has one of no vectors
            groups.setdefault(name.split(".", 1)[0], []).append(name)
    return [
        Carried(f"backbone.{group}", _count(names), _taken(names, resampled))
        for group, names in groups.items()
    ]


def _taken(names: Sequence[str], resampled: Mapping[str, str]) -> str:
    kinds = Counter(resampled[name] for name in names if name in resampled)
    told = [what if count == 1 else f"{count} times {what}" for what, count in kinds.items()]
    return ", ".join(["taken as it is" if not told else "taken", *told])


def _insist_same(origin: Origin, model: Model, state: State) -> None:
    wanted = model.backbone.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        new = tuple(wanted[name].shape) if name in wanted else None
        if shapes.get(name) != new:
            raise ConfigError(
                f"model.backbone: makes another model than that of {origin.source}: "
                f"'{name}' is {shapes.get(name, 'nothing')} there and {new or 'nothing'} here; "
                "leave away what changes shapes"
            )


def _resample(new: nn.Module, old: nn.Module | None, state: State) -> dict[str, tuple[Tensor, str]]:
    """Tables of places, stretched by the convention of their kind, where the grid is another."""
    match new, old:
        case Learned1d(), Learned1d() if new.base != old.base:
            prefix, patches = state["weight"][:, : old.prefix], state["weight"][:, old.prefix :]
            patches = resample_table(patches, old.base, new.base, new.resampling)
            table = torch.cat([prefix, patches], dim=1)
            return {"weight": (table, _stretched(old.base, new.base, new.resampling))}
        case Learned2d(), Learned2d():
            pairs = {"rows": new.rows, "columns": new.columns}
            return {
                name: (_line(state[name], wanted.shape[2]), f"{name} resampled (linear)")
                for name, wanted in pairs.items()
                if state[name].shape != wanted.shape
            }
        case RelativeBias2d(), RelativeBias2d() if new.base != old.base:
            table = _bicubic(state["weight"], (new.weight.shape[2], new.weight.shape[3]))
            return {"weight": (table, _stretched(old.base, new.base, "bicubic"))}
        case PatchStem(), PatchStem() if new.stride != old.stride:
            patches = resize_patches(state["proj.weight"], (new.stride, new.stride))
            sides = [f"{stem.stride} x {stem.stride}" for stem in (old, new)]
            what = f"patches resized from {sides[0]} to {sides[1]} pixels (FlexiViT)"
            return {"proj.weight": (patches, what)}
        case RelativePositions(), RelativePositions() if new.size != old.size:
            sides = [2 * size - 1 for size in (old.size, new.size)]
            square = state["table"].T.reshape(1, -1, sides[0], sides[0])
            table = _bicubic(square, (sides[1], sides[1]))[0].flatten(1).T.contiguous()
            windows = (old.size, old.size), (new.size, new.size)
            return {"table": (table, "the bias of windows " + _stretched(*windows, "bicubic"))}
        case _:
            return {}


def _stretched(old: Sequence[int], new: Sequence[int], how: str) -> str:
    return f"resampled from {old[0]} x {old[1]} to {new[0]} x {new[1]} places ({how})"


def _line(line: Tensor, length: int) -> Tensor:
    return F.interpolate(line, size=length, mode="linear", align_corners=False)


def _bicubic(table: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(table, size=size, mode="bicubic", align_corners=False)


def _carry_task(origin: Origin, model: Model) -> list[Carried]:
    old, state = origin.task, _below(origin.state, "task.")
    groups: dict[str, list[str]] = {}
    for name in state:
        groups.setdefault(name.split(".", 1)[0], []).append(name)
    found = {group: _count(names) for group, names in groups.items()}
    if isinstance(model.task, Detect) and isinstance(old, DetectConfig):
        return _carry_detector(old, model.task, state, found)
    if isinstance(model.task, Segment) and isinstance(old, SegmentConfig):
        backbone = model.backbone
        kept = with_known_classes(old, model.task, state, backbone.channels, backbone.strides)
        if kept is not None:
            return _carry_segmenter(old, model.task, kept, found)
    new = model.task.config
    assert isinstance(new, ClassifyConfig | TranscribeConfig | DetectConfig | SegmentConfig)
    if old is not None and origin.named and keeps_head(old, new):
        return _keep_head(old, model, state, found)
    why = _why_new(origin, new)
    rows = [
        Carried(f"task.{name}", found.get(name, "nothing"), f"new: {why}")
        for name, _ in model.task.named_children()
    ]
    if isinstance(model.task, Classify):
        _zero(model.task)
    gone = [name for name in found if f"task.{name}" not in {row.group for row in rows}]
    return rows + [Carried(f"task.{name}", found[name], "left out with the head") for name in gone]


def _carry_detector(
    old: DetectConfig, task: Detect, state: dict[str, Tensor], found: Mapping[str, str]
) -> list[Carried]:
    """Everything but the rows of classes that the file does not know by name."""
    new, fresh = task.config, task.state_dict()
    known = [name for name in new.classes if name in old.classes]
    heads = [name for name, tensor in fresh.items() if _is_class_row(name, tensor, new)]
    for name in heads:
        rows = fresh[name].clone()
        for place, label in enumerate(new.classes):
            if label in old.classes:
                rows[place] = state[name][old.classes.index(label)]
        if new.scoring == "softmax":
            rows[-1] = state[name][-1]
        state[name] = rows
    task.load_state_dict(state)
    new_rows = len(new.classes) - len(known)
    text = f"taken; of {len(new.classes)} classes {len(known)} by name, {new_rows} new"
    return [
        *(Carried(f"task.{name}", count, "taken as it is") for name, count in found.items()),
        Carried("task classes", f"{len(heads)} tensors", text),
    ]


def _carry_segmenter(
    old: SegmentConfig, task: Segment, state: Mapping[str, Tensor], found: Mapping[str, str]
) -> list[Carried]:
    """Everything but what belongs to classes that the file does not know by name."""
    task.load_state_dict(state)
    classes = task.config.classes
    known = len(set(classes).intersection(old.classes))
    text = f"taken; of {len(classes)} classes {known} by name, {len(classes) - known} new"
    return [Carried(f"task.{name}", count, text) for name, count in found.items()]


def _is_class_row(name: str, tensor: Tensor, config: DetectConfig) -> bool:
    """Whether a tensor has one row a class: the last linear map of each classifier."""
    owner = name.rsplit(".", 1)[0]
    last = owner.endswith("classify") or ".classify.layers." in owner
    return last and tensor.shape[0] == config.outputs


def _keep_head(
    old: TaskConfig, model: Model, state: dict[str, Tensor], found: Mapping[str, str]
) -> list[Carried]:
    same = "taken as it is"
    done = dict.fromkeys(found, same)
    if isinstance(old, ClassifyConfig):
        assert isinstance(model.task, Classify)
        classes = model.task.config.classes
        order = [old.classes.index(name) for name in classes]
        for group in found.keys() & {"head", "head_dist"}:
            done[group] = f"{same}: the same {len(classes)} classes"
            if old.classes != classes:
                done[group] = f"taken, its rows in the order of the data's {len(classes)} classes"
        state |= {k: t[order] for k, t in state.items() if k.startswith(("head.", "head_dist."))}
    model.task.load_state_dict(state)
    return [Carried(f"task.{name}", text, done[name]) for name, text in found.items()]


def _why_new(origin: Origin, new: TaskConfig) -> str:
    old = origin.task
    match old, new:
        case None, _:
            return "the file has no head"
        case ClassifyConfig(), ClassifyConfig() if set(old.classes) == set(new.classes):
            several = "one label an image and several need different heads"
            unnamed = "the file numbers its classes, it does not name them"
            return several if origin.named else unnamed
        case ClassifyConfig(), ClassifyConfig():
            return f"the data's {len(new.classes)} classes instead of {len(old.classes)} others"
        case TranscribeConfig(), TranscribeConfig():
            return "another alphabet or decoder"
        case SegmentConfig(), SegmentConfig():
            return "the head is made for patches of another size"
        case _:
            return f"the file's task is {old.kind}"


def _zero(task: Classify) -> None:
    """A new head starts at zero (ViT section 3.2), so that it pulls at nothing at first."""
    for head in (task.head, task.head_dist):
        if head is not None:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)


def _below(state: State, start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): t for k, t in state.items() if k.startswith(start)}


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''}"


def _modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
