"""Is this checkpoint what it claims to be: every tensor accounted for, and the original's numbers.

`verify` recognises a file, holds it against the model name by name, and, where it is given golden
outputs or an installed peer, compares logits, tokens and attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitrail.comparison import Comparison, compare, compare_case
from vitrail.errors import CheckpointError
from vitrail.explain.outputs import outputs_of, sequence_outputs_of
from vitrail.golden import Case, read_case
from vitrail.model import Model
from vitrail.peers import Peer, peer_outputs
from vitrail.tasks.classify import Classify
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.convert import loaded_from
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.torch_transformer import (
    load_transformer,
    match_transformer,
    recognises_transformer,
    transformer_config,
)
from vitrail.weights.load import Inspected, Loaded, inspect_checkpoint, read_inspected
from vitrail.weights.mapping import Match, read_all
from vitrail.weights.modelfile import (
    Certificate,
    is_model_file,
    load_model,
    save_model,
    versions,
)
from vitrail.weights.reader import Given

Verdict = Literal["equal", "whole", "differs", "incomplete"]
"""Equal to the reference; whole, with nothing to compare; not equal; tensors amiss."""

Outputs = Mapping[str, Tensor]

PEER_TOLERANCE = 2e-6
"""Largest difference from an installed peer, relative to the largest value of the output."""

PEER_ATTENTION_TOLERANCE = 1e-5
"""The same for attention: Swin v2's cosine scores are multiplied by up to 100 before the softmax,
and one implementation alone differs from itself in float64 by 5e-6."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        format: Name of the format.
        variant: The published variant with these sizes, or empty.
        source: Path or hub id.
        licence: Licence of the weights, and who says so.
        shapes: Shape of every tensor in the file.
        parameters: Number of values that the model takes from it.
        match: Which tensors are used, unknown, missing, wrong, or need not be there.
        notes: What was inferred and from what.
        verdict: The result.
        reference: What the outputs were compared with, or empty.
        comparisons: Output by output.
        not_compared: Outputs of the reference that this model does not give.
        suspects: Square matrices whose transposition would make the outputs right.
    """

    format: str
    variant: str
    source: str
    licence: str
    shapes: Mapping[str, tuple[int, ...]]
    parameters: int
    match: Match
    notes: tuple[str, ...]
    verdict: Verdict
    reference: str = ""
    comparisons: tuple[Comparison, ...] = ()
    not_compared: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    @property
    def max_abs(self) -> float | None:
        """Largest absolute difference of all outputs; None where nothing was compared."""
        return max((c.max_abs for c in self.comparisons), default=None)

    @property
    def max_rel(self) -> float | None:
        """Largest relative difference of all outputs."""
        return max((c.max_rel for c in self.comparisons), default=None)

    @property
    def passed(self) -> bool:
        """Whether nothing falls short."""
        return self.verdict in ("equal", "whole")

    def table(self) -> dict[str, Any]:
        """All of it, for JSON; the lists of tensors stand at the top."""
        own = asdict(self)
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        own |= {"tensors": len(shapes), "shapes": shapes}
        return own | own.pop("match") | {"max_abs": self.max_abs, "max_rel": self.max_rel}


def seal_certificate(path: Path, found: Verification) -> None:
    """Write a verification into the header of a model file.

    Raises:
        CheckpointError: not a model file of ours.
    """
    if found.format != "vitrail":
        raise CheckpointError(
            f"{path}: --seal writes into a vitrail model file; make one first with "
            f"`vitrail convert {path} --to vitrail`"
        )
    model, provenance = load_model(path)
    certificate = Certificate(
        verdict=found.verdict,
        reference=found.reference,
        max_abs={c.output: c.max_abs for c in found.comparisons},
        versions=versions(),
    )
    save_model(model, path, provenance.model_copy(update={"certificate": certificate}))


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is verified: what it is, and how to run it (not called unless it is whole)."""

    format: str
    source: str
    licence: str
    variant: str
    notes: tuple[str, ...]
    tensors: Mapping[str, tuple[int, ...]]
    match: Match
    run: Callable[[Outputs], dict[str, Tensor]]
    loaded: Callable[[], Loaded] | None = None
    inspected: Inspected | None = None


def verify(
    source: str | Path,
    given: Given | None = None,
    *,
    golden: Path | None = None,
    against: Peer | None = None,
    sizes: Sequence[tuple[int, int]] = (),
) -> Verification:
    """Check a checkpoint of any format, or a model file.

    Args:
        source: A file, a folder or a hub id.
        given: What the file does not tell; it wins over what a golden case says.
        golden: Folder of a case whose outputs are the reference.
        against: An installed library that computes the reference, on random images.
        sizes: Heights and widths of these images; by default the model's own size.

    Raises:
        CheckpointError: the file cannot be read at all, or its format is not known.
        ModelFileError: a damaged model file of our own.
    """
    case = read_case(golden) if golden is not None else None
    subject = _subject(str(source), _with_case(given or Given(), case))
    if not subject.match.whole:
        return _report(subject, "incomplete")
    if case is not None:
        return _beside_case(subject, case)
    if against is not None:
        return _beside_peer(subject, against, sizes)
    return _report(subject, "whole")


def _with_case(given: Given, case: Case | None) -> Given:
    if case is None:
        return given
    return given.model_copy(update={"backbone": {**case.given.backbone, **given.backbone}})


def _subject(source: str, given: Given) -> _Subject:
    path = Path(source)
    if path.is_file() and is_model_file(path):
        return _own(path)
    if path.exists():
        checkpoint = open_checkpoint(path, given.part)
        if recognises_transformer(checkpoint):
            return _transformer(source, checkpoint, given)
    return _foreign(inspect_checkpoint(source, given))


def _foreign(inspected: Inspected) -> _Subject:
    def run(inputs: Outputs) -> dict[str, Tensor]:
        return _run(read_inspected(inspected), inputs)

    return _Subject(
        format=inspected.reader.name,
        source=inspected.source,
        licence=inspected.licence,
        variant=inspected.described.variant,
        notes=inspected.described.notes,
        tensors={name: t.shape for name, t in inspected.checkpoint.tensors.items()},
        match=inspected.match,
        run=run,
        loaded=lambda: read_inspected(inspected),
        inspected=inspected,
    )


def _own(path: Path) -> _Subject:
    """A model file is whole, or loading it is an error that names the tensor."""
    model, provenance = load_model(path)
    state = model.state_dict()

    def run(inputs: Outputs) -> dict[str, Tensor]:
        return _classify(model, inputs["input"])

    return _Subject(
        format="vitrail",
        source=str(path),
        licence=provenance.licence,
        variant="",
        notes=(),
        tensors={name: tuple(t.shape) for name, t in state.items()},
        match=Match(tuple(state), (), (), {}, (), ()),
        run=run,
        loaded=lambda: loaded_from(model, str(path), provenance.licence),
    )


def _transformer(source: str, checkpoint: Checkpoint, given: Given) -> _Subject:
    config = transformer_config(checkpoint, given.backbone)

    def run(inputs: Outputs) -> dict[str, Tensor]:
        model = load_transformer(checkpoint, config)
        return sequence_outputs_of(model, inputs["src"], inputs["tgt"])

    return _Subject(
        format="torch-transformer",
        source=source,
        licence="not stated",
        variant="",
        notes=(),
        tensors={name: t.shape for name, t in checkpoint.tensors.items()},
        match=match_transformer(checkpoint, config),
        run=run,
    )


def _run(loaded: Loaded, inputs: Outputs) -> dict[str, Tensor]:
    if loaded.described.task is None:
        return outputs_of(loaded.backbone(), None, inputs["input"])
    return _classify(loaded.model(), inputs["input"])


def _classify(model: Model, images: Tensor) -> dict[str, Tensor]:
    task = model.task if isinstance(model.task, Classify) else None
    return outputs_of(model.backbone, task, images)


def _beside_case(subject: _Subject, case: Case) -> Verification:
    rows, rest = compare_case(subject.run(case.inputs), case)
    within, inspected = bool(rows) and all(row.within for row in rows), subject.inspected
    return _report(
        subject,
        "equal" if within else "differs",
        reference=f"golden case {case.folder.name}: {case.implementation}",
        comparisons=rows,
        not_compared=rest,
        suspects=() if within or not inspected else transposed(inspected, case),
    )


def _beside_peer(subject: _Subject, peer: Peer, sizes: Sequence[tuple[int, int]]) -> Verification:
    """Random images through both, one size after the other."""
    if subject.loaded is None:
        raise CheckpointError(f"{subject.source}: {peer} has no model of this kind")
    loaded = subject.loaded()
    rows: list[Comparison] = []
    for height, width in sizes or [loaded.described.backbone.image_size]:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        theirs = peer_outputs(peer, loaded, images)
        ours = _run(loaded, {"input": images})
        for name, expected in theirs.items():
            share = PEER_ATTENTION_TOLERANCE if name.startswith("attn") else PEER_TOLERANCE
            atol = share * max(expected.abs().max().item(), 1.0)
            rows.append(compare(f"{height}x{width}", name, ours[name], expected, atol=atol))
    within = all(row.within for row in rows)
    return _report(
        subject,
        "equal" if within else "differs",
        reference=f"{peer}, as installed here",
        comparisons=tuple(rows),
    )


def _report(
    subject: _Subject,
    verdict: Verdict,
    *,
    reference: str = "",
    comparisons: tuple[Comparison, ...] = (),
    not_compared: tuple[str, ...] = (),
    suspects: tuple[str, ...] = (),
) -> Verification:
    return Verification(
        format=subject.format,
        variant=subject.variant,
        source=subject.source,
        licence=subject.licence,
        shapes=subject.tensors,
        parameters=sum(prod(subject.tensors[name]) for name in subject.match.used),
        match=subject.match,
        notes=subject.notes,
        verdict=verdict,
        reference=reference,
        comparisons=comparisons,
        not_compared=not_compared,
        suspects=suspects,
    )


def transposed(inspected: Inspected, case: Case) -> tuple[str, ...]:
    """Tensors that stand transposed: no shape shows it, but turned back the outputs are right.

    Args:
        inspected: A checkpoint that is whole and whose outputs are wrong.
        case: What they should be.
    """
    stored = inspected.checkpoint.tensors
    values = {name: stored[name].read() for entry in inspected.entries for name in entry.theirs}
    found: list[str] = []
    for name, tensor in values.items():
        for turned in _turns(tensor):
            held = {k: Held(turned if k == name else value) for k, value in values.items()}
            state = read_all(inspected.entries, held)
            loaded = Loaded("", "", inspected.described, state, inspected.match, "")
            rows, _ = compare_case(_run(loaded, case.inputs), case)
            if all(row.within for row in rows):
                found.append(name)
                break
    return tuple(found)


def _turns(tensor: Tensor) -> list[Tensor]:
    """The tensor with axes exchanged, where its shape stays and its values do not."""
    if tensor.ndim < 2:
        return []
    turned = (tensor.mT, tensor.permute(*reversed(range(tensor.ndim))))
    return [t for t in turned if t.shape == tensor.shape and not torch.equal(t, tensor)]
