from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Held
from vitrail.weights.mapping import (
    Derived,
    Entry,
    Hwio,
    Joined,
    Layout,
    Reshaped,
    Rows,
    Same,
    Transposed,
    match,
    pair,
    read_all,
    write_all,
)

LAYOUTS: list[tuple[Layout, tuple[int, ...]]] = [
    (Same(), (3, 4)),
    (Transposed(), (3, 4)),
    (Hwio(), (2, 3, 4, 5)),
    (Reshaped((6,), (2, 1, 3)), (6,)),
    (Joined((1, 2, 3)), (6, 4)),
    (Joined((1, 2), axis=1), (1, 3, 4)),
    (Joined((2, 2), each=Transposed()), (4, 3)),
    (Rows(2, 3, 7), (3, 4)),
]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS, ids=lambda v: type(v).__name__)
def test_a_layout_is_undone_by_its_way_back(layout: Layout, shape: tuple[int, ...]) -> None:
    tensor = values(*shape)
    parts = layout.write(tensor)
    assert torch.equal(layout.read(parts), tensor)
    on_meta = layout.write(tensor.to("meta"))
    assert [p.shape for p in on_meta] == [p.shape for p in parts]


def test_jax_layouts() -> None:
    assert Transposed().write(values(3, 4))[0].shape == (4, 3)
    assert Hwio().write(values(8, 3, 5, 6))[0].shape == (5, 6, 3, 8)


def test_what_shares_a_tensor_is_added_up() -> None:
    """As query and value biases in one vector, whose middle third is zero."""
    entries = [
        Entry("q", ("bias",), Rows(0, 2, 6)),
        Entry("v", ("bias",), Rows(4, 2, 6)),
    ]
    state = {"q": torch.tensor([1.0, 2.0]), "v": torch.tensor([3.0, 4.0])}
    theirs = write_all(entries, state)
    assert theirs["bias"].tolist() == [1, 2, 0, 0, 3, 4]
    found = match(entries, [], state, {"bias": Held(theirs["bias"])})
    assert found.used == ("bias",)
    again = read_all(entries, {"bias": Held(theirs["bias"])})
    assert all(torch.equal(again[name], state[name]) for name in state)


ENTRIES = [*pair("a", "layer.a."), Entry("qkv", ("q", "k"), Joined((2, 2)))]
WANTED = {
    "a.weight": torch.empty(3, 2, device="meta"),
    "a.bias": torch.empty(3, device="meta"),
    "qkv": torch.empty(4, 5, device="meta"),
}
WHOLE = {
    "layer.a.weight": Held(values(3, 2)),
    "layer.a.bias": Held(values(3)),
    "q": Held(values(2, 5)),
    "k": Held(values(2, 5)),
}
BUFFERS = [Derived("index", (2,), torch.tensor([0, 1])), Derived("mask_token", (1, 2))]


def test_a_whole_file() -> None:
    found = match(ENTRIES, BUFFERS, WANTED, WHOLE)
    assert found.whole
    assert found.used == tuple(WHOLE)
    assert found.absent == ("index", "mask_token")
    state = read_all(ENTRIES, WHOLE)
    assert state.keys() == WANTED.keys()
    assert torch.equal(state["qkv"], torch.cat([WHOLE["q"].tensor, WHOLE["k"].tensor]))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(WHOLE)), st.sampled_from(["drop", "rename", "reshape", "whole"]))
def test_whatever_is_amiss_is_named(key: str, fault: str) -> None:
    tensors = dict(WHOLE)
    stored = tensors.pop(key)
    if fault == "rename":
        tensors["other"] = stored
    elif fault == "reshape":
        tensors[key] = Held(stored.tensor[None])
    elif fault == "whole":
        tensors[key] = Held(stored.tensor.long())
    found = match(ENTRIES, [], WANTED, tensors)
    assert not found.whole
    assert key in found.describe()
    if fault in ("drop", "rename"):
        assert found.missing == (key,)
        assert found.unused == (("other",) if fault == "rename" else ())
    else:
        assert set(found.wrong) == {key}


def test_derived_tensors_need_not_be_there_but_must_not_lie() -> None:
    right = WHOLE | {"index": Held(torch.tensor([0, 1])), "mask_token": Held(values(1, 2))}
    found = match(ENTRIES, BUFFERS, WANTED, right)
    assert found.whole
    assert found.derived == ("index", "mask_token")
    wrong = right | {"index": Held(torch.tensor([1, 0])), "mask_token": Held(values(2))}
    found = match(ENTRIES, BUFFERS, WANTED, wrong)
    assert "other values" in found.wrong["index"]
    assert "shape [2] instead of [1, 2]" in found.wrong["mask_token"]


def test_an_incomplete_table_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="qkv"):
        match(ENTRIES[:2], [], WANTED, WHOLE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_named(value: float) -> None:
    damaged = WHOLE["layer.a.weight"].tensor.clone()
    damaged[1, 1] = value
    with pytest.raises(CheckpointError, match=r"'layer\.a\.weight' holds NaN or infinity"):
        read_all(ENTRIES, WHOLE | {"layer.a.weight": Held(damaged)})


def test_half_precision_becomes_float32() -> None:
    half = {name: Held(stored.tensor.bfloat16()) for name, stored in WHOLE.items()}
    state = read_all(ENTRIES, half)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_large_finite_values_are_numbers() -> None:
    large = torch.full((3, 2), 3e38)
    assert torch.equal(
        read_all(ENTRIES, WHOLE | {"layer.a.weight": Held(large)})["a.weight"], large
    )


def test_a_long_list_is_cut() -> None:
    tensors = WHOLE | {f"extra{i}": Held(values(1)) for i in range(9)}
    said = match(ENTRIES, [], WANTED, tensors).describe()
    assert said == "unknown: extra0, extra1, extra2, extra3, extra4 and 4 more"
