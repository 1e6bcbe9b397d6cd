from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hostile_bombs import table_pickle, tensor_opcodes, torch_zip, zipped
from hostile_files import dump, state, torch_bytes
from vitrail.errors import CheckpointError
from vitrail.weights.files.torch_file import TorchFile, open_torch_legacy, open_torch_zip

LAYOUTS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def opened(folder: Path, value: Any, *, legacy: bool = False, part: str | None = None) -> TorchFile:
    path = folder / "model.pth"
    path.write_bytes(value if isinstance(value, bytes) else torch_bytes(value, legacy=legacy))
    return (open_torch_legacy if legacy else open_torch_zip)(path, part)


def refusal(folder: Path, value: Any, *, legacy: bool = False, part: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        opened(folder, value, legacy=legacy, part=part)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@LAYOUTS
def test_tensors_are_those_that_torch_reads(tmp_path: Path, legacy: bool) -> None:
    weights = state(random.Random(0))
    weights["parameter"] = nn.Parameter(torch.randn(2, 2))
    weights["permuted"] = torch.randn(2, 3, 4).permute(2, 0, 1)
    weights["every second"] = torch.arange(10)[1::2]
    weights["scalar"] = torch.tensor(2.5, dtype=torch.float64)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64):
        weights[str(dtype)] = torch.arange(3).to(dtype)
    found = opened(tmp_path, weights, legacy=legacy)
    assert (found.part, found.parts, found.extras) == ("", (), {})
    assert list(found.tensors) == list(weights)
    expected = torch.load(tmp_path / "model.pth", weights_only=True)
    for name, stored in found.tensors.items():
        read = stored.read()
        assert read.dtype == stored.dtype == expected[name].dtype
        assert stored.shape == tuple(read.shape)
        assert torch.equal(read, expected[name])
        assert read.is_contiguous()
        assert read.untyped_storage().nbytes() == read.numel() * read.itemsize


def test_types_without_a_storage_of_their_own(tmp_path: Path) -> None:
    weights = {"a": torch.tensor([1, 40_000], dtype=torch.uint16)}
    assert torch.equal(opened(tmp_path, weights).tensors["a"].read(), weights["a"])
    assert "float8" in refusal(tmp_path, {"a": torch.zeros(2, dtype=torch.float8_e4m3fn)})
    message = refusal(tmp_path, {"a": torch.zeros(2, dtype=torch.complex64)})
    assert "tensor 'a' is a 'ComplexFloatStorage', which is not read" in message


@LAYOUTS
def test_a_training_dump(tmp_path: Path, legacy: bool) -> None:
    found = opened(tmp_path, dump(random.Random(0)), legacy=legacy)
    assert found.part == "model"
    assert found.parts == ("model", "model_ema")
    assert found.tensors.keys() == state(random.Random(0)).keys()  # without `module.`
    assert found.extras["args"] == {
        "lr": 1e-3, "model": "deit", "out": "/tmp/x", "size": (1, 2.5, None)
    }  # fmt: skip
    assert found.extras["config"]["MODEL"] == {"NAME": "swin", "DEPTHS": [2, 2]}
    assert found.extras["best"] == 0.5
    assert found.extras["history"] == [0, 1, 2, 3, 4]
    assert found.extras["optimizer"] == {"state": {0: {"step": 1}}, "param_groups": [{}]}
    assert found.extras["long"] == 1 << 70
    averaged = opened(tmp_path, dump(random.Random(0)), legacy=legacy, part="model_ema")
    assert averaged.part == "model_ema"
    words = "no table 'ema'; tables of weights: 'model', 'model_ema'"
    assert words in refusal(tmp_path, dump(random.Random(0)), legacy=legacy, part="ema")


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["model", "state_dict_ema", "state_dict"], "state_dict_ema"),
        (["state_dict", "model"], "model"),
        (["model_ema", "state_dict"], "state_dict"),
        (["teacher"], "teacher"),
        (["module"], "module"),
    ],
)
def test_the_table_that_is_taken(tmp_path: Path, keys: list[str], chosen: str) -> None:
    table = {key: {key: torch.zeros(1)} for key in keys}
    found = opened(tmp_path, table)
    assert (found.part, list(found.tensors)) == (chosen, [chosen])
    if len(keys) > 1:  # a lone tensor among the tables is no table
        assert opened(tmp_path, {"loss": torch.zeros(1), **table}).part == chosen


def test_names_keep_a_module_that_is_not_everywhere(tmp_path: Path) -> None:
    names = ["module.a", "b"]
    assert list(opened(tmp_path, {name: torch.zeros(1) for name in names}).tensors) == names


def test_no_table_of_weights(tmp_path: Path) -> None:
    a = {"x": torch.zeros(1)}
    assert "name one of 'a', 'b' as part" in refusal(tmp_path, {"a": a, "b": a})
    assert "no table of weights in it" in refusal(tmp_path, {"epoch": 3})
    assert "no table of weights in it" in refusal(tmp_path, torch.zeros(3))
    whole = refusal(tmp_path, nn.Linear(2, 2))
    assert "an object of class 'torch.nn.modules.linear.Linear'" in whole
    assert "save its state_dict()" in whole
    assert "objects of 'torch.nn.modules.linear.Linear'" in refusal(
        tmp_path, {"model": nn.Linear(2, 2)}
    )


def test_torchscript_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO(torch_bytes(state(random.Random(0))))
    with zipfile.ZipFile(stream, "a") as archive:
        prefix = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{prefix}/constants.pkl", b"")
    assert "TorchScript" in refusal(tmp_path, stream.getvalue())


@pytest.mark.parametrize(
    ("shape", "strides", "numel", "words"),
    [
        ((4, 4), (4, 1), 16, ""),
        ((17,), (1,), 16, "tensor 't0': damaged: it reaches beyond its storage"),
        ((17,), (1,), 17, "its storage has 64 bytes"),
        ((2,), (15,), 16, ""),
        ((2,), (16,), 16, "reaches beyond"),
        ((1 << 30,), (0,), 16, "refused: [1073741824] values out of 64 bytes"),
        ((8, 8), (1, 1), 16, "refused: [8, 8] values out of 64 bytes"),
        ((4,), (-1,), 16, "a shape that no tensor has"),
        ((-4,), (1,), 16, "a shape that no tensor has"),
        ((1 << 50, 0), (1, 1), 16, "a shape that no tensor has"),
        ((4,), (1, 1), 16, "1 sizes, 2 strides"),
        ((4,), (1,), -16, "its storage has 64 bytes"),
    ],
)
def test_views_stay_in_their_storage(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], numel: int, words: str
) -> None:
    data = torch_zip(table_pickle(tensor_opcodes(shape, strides, numel)))
    if words:
        assert words in refusal(tmp_path, data)
    else:
        assert opened(tmp_path, data).tensors["t0"].read().shape == shape


def test_damage_that_only_the_checksum_shows(tmp_path: Path) -> None:
    weights = {"a": torch.ones(1000)}
    data = bytearray(torch_bytes(weights))
    data[data.index(b"\x00\x00\x80?") + 500] ^= 1
    found = opened(tmp_path, bytes(data))
    with pytest.raises(CheckpointError, match="damaged: the checksum of tensor 'a' is wrong"):
        found.tensors["a"].read()


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    found = opened(tmp_path, {"a": torch.ones(100_000)})
    data = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(data[:5000])
    with pytest.raises(CheckpointError, match="cut off in tensor 'a'"):
        found.tensors["a"].read()
    (tmp_path / "model.pth").unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        found.tensors["a"].read()


def test_members_that_torch_does_not_write(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(torch_bytes({"a": torch.zeros(100)})))
    members = {name: archive.read(name) for name in archive.namelist()}
    assert "is compressed" in refusal(tmp_path, zipped(members, deflated=True))
    big = {n: b"big" if n.endswith("byteorder") else data for n, data in members.items()}
    assert "big-endian" in refusal(tmp_path, zipped(big))
    without = {n: data for n, data in members.items() if not n.endswith("data/0")}
    assert "tensor 'a' is not in the file" in refusal(tmp_path, zipped(without))
    assert "a zip without weights" in refusal(tmp_path, zipped({"model.pth": b"x"}))


def test_old_files_that_are_cut(tmp_path: Path) -> None:
    data = torch_bytes(state(random.Random(0)), legacy=True)
    for length in range(0, len(data), 37):
        refusal(tmp_path, data[:length], legacy=True)
    other = torch_bytes({"a": 1}, legacy=True)
    assert "no table of weights" in refusal(tmp_path, other, legacy=True)
    assert "a pickle that torch.save did not write" in refusal(tmp_path, b"\x80\x02}.", legacy=True)


def test_too_many_tensors(tmp_path: Path) -> None:
    one = torch.zeros(1)
    message = refusal(tmp_path, {str(i): one for i in range(10_001)})
    assert "10001 tensors, at most 10000 are read" in message
    assert "unreadable name" in refusal(tmp_path, {"a\nb": one})
