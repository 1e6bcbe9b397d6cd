"""Is this checkpoint what it claims to be: every tensor accounted for, and the original's numbers.

`verify` recognises a file, holds it against the model name by name, and, where it is given golden
outputs or an installed peer, compares logits, tokens and attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.comparison import Comparison, compare, compare_case
from vitrail.errors import CheckpointError, UserError
from vitrail.explain.outputs import outputs_of, sequence_outputs_of
from vitrail.golden import Case, is_main, read_case
from vitrail.model import Model
from vitrail.peers import Peer, peer_outputs
from vitrail.verification import Verdict, Verification
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
    load_model,
)
from vitrail.weights.origin import insist_nothing_given, own_file
from vitrail.weights.reader import Given

Outputs = Mapping[str, Tensor]

PEER_TOLERANCE = 2e-6
"""Largest difference from an installed peer, relative to the largest value of the output."""

PEER_ATTENTION_TOLERANCE = 1e-5
"""The same for attention: Swin v2's cosine scores are multiplied by up to 100 before the softmax,
and one implementation alone differs from itself in float64 by 5e-6."""


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
    inputs: frozenset[str] = frozenset({"input"})
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
        CheckpointError: the file cannot be read at all, its format is not known, or the reference
            is of another kind of model.
        ModelFileError: a damaged model file of our own.
    """
    if golden is not None and against is not None:
        raise CheckpointError("--golden and --against: one reference at a time; leave one away")
    if sizes and against is None:
        raise CheckpointError("--size: is for --against; a golden case brings its own images")
    case = read_case(golden) if golden is not None else None
    subject = _subject_of_case(str(source), given or Given(), case)
    if not subject.match.whole:
        return _report(subject, "incomplete")
    if case is not None:
        return _beside_case(subject, case)
    if against is not None:
        return _beside_peer(subject, against, sizes)
    return _report(subject, "whole")


def _subject_of_case(source: str, given: Given, case: Case | None) -> _Subject:
    """With what the case says of its checkpoint beside the file."""
    beside = Given() if case is None else case.given
    said = [*beside.backbone, *beside.task]
    if case is None or not said or own_file(source) is not None:
        return _subject(source, given)
    with_case = given.model_copy(
        update={
            "backbone": {**beside.backbone, **given.backbone},
            "task": {**beside.task, **given.task},
        }
    )
    try:
        return _subject(source, with_case)
    except UserError as error:
        raise CheckpointError(
            f"{error}; {', '.join(said)} as golden case {case.folder.name} says: is it a case of "
            "this model?"
        ) from error


def _subject(source: str, given: Given) -> _Subject:
    own, path = own_file(source), Path(source)
    if own is not None:
        insist_nothing_given(source, given)
        return _own(own)
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
        return _outputs(model, inputs)

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
        inputs=frozenset({"src", "tgt"}),
    )


def _run(loaded: Loaded, inputs: Outputs) -> dict[str, Tensor]:
    return _outputs(loaded.backbone() if loaded.described.task is None else loaded.model(), inputs)


def _outputs(model: Model | Backbone, inputs: Outputs) -> dict[str, Tensor]:
    mask = inputs.get("pixel_mask")
    return outputs_of(model, inputs["input"], None if mask is None else mask > 0)


def _beside_case(subject: _Subject, case: Case) -> Verification:
    found, inspected = _outputs_for(subject, case), subject.inspected
    rows, rest = compare_case(found, case)
    if not rows:
        raise CheckpointError(
            f"{case.folder}: nothing to compare; the case has "
            f"{', '.join(case.expected) or 'no outputs'}, this model gives {', '.join(found)}"
        )
    within = all(row.within for row in rows)
    # A head that nobody looked at is not equal to anything.
    heads = {name for name in case.expected if is_main(name)} | ({"logits"} & found.keys())
    whole = heads <= {row.output for row in rows}
    return _report(
        subject,
        ("equal" if whole else "partly") if within else "differs",
        reference=f"golden case {case.folder.name}: {case.implementation}",
        comparisons=rows,
        not_compared=rest,
        suspects=() if within or not inspected else transposed(inspected, case),
    )


def _outputs_for(subject: _Subject, case: Case) -> dict[str, Tensor]:
    if not subject.inputs <= case.inputs.keys():
        raise CheckpointError(
            f"{case.folder}: a case of another kind of model; its inputs are "
            f"{', '.join(case.inputs) or 'none'}, this model takes {', '.join(subject.inputs)}"
        )
    try:
        return subject.run(case.inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{case.folder}: its inputs do not go through {subject.source} ({error}); is it a case "
            "of this model?"
        ) from error


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
            if name in ours:
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
            if rows and all(row.within for row in rows):
                found.append(name)
                break
    return tuple(found)


def _turns(tensor: Tensor) -> list[Tensor]:
    """The tensor with axes exchanged, where its shape stays and its values do not."""
    if tensor.ndim < 2:
        return []
    turned = (tensor.mT, tensor.permute(*reversed(range(tensor.ndim))))
    return [t for t in turned if t.shape == tensor.shape and not torch.equal(t, tensor)]
