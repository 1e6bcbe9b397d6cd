from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from hostile_bombs import npz_bytes
from hostile_files import dump, state, torch_bytes
from vitrail.errors import CheckpointError
from vitrail.weights.files.containers import TEXT_LIMIT, open_checkpoint

WEIGHTS = {name: tensor.contiguous().clone() for name, tensor in state(random.Random(0)).items()}
KINDS = {
    "npz": npz_bytes({name: t.numpy() for name, t in WEIGHTS.items() if t.dtype != torch.bfloat16}),
    "safetensors": save(WEIGHTS),
    "torch": torch_bytes(WEIGHTS),
    "torch legacy": torch_bytes(WEIGHTS, legacy=True),
}


def refusal(path: Path, part: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, part)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pth.tar", ".txt", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_the_content_decides_and_not_the_name(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(KINDS[kind])
    found = open_checkpoint(path)
    assert found.path == path
    assert found.container == kind.split(maxsplit=1)[0]
    assert found.tensors.keys() - {"brain"} == WEIGHTS.keys() - {"brain"}
    for name, stored in found.tensors.items():
        assert torch.equal(stored.read(), WEIGHTS[name])


def test_parts_of_a_dump(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(torch_bytes(dump(random.Random(0))))
    assert open_checkpoint(path).part == "model"
    found = open_checkpoint(path, "model_ema")
    assert (found.part, found.parts) == ("model_ema", ("model", "model_ema"))
    assert found.extras["epoch"] == 3
    assert "tables of weights: 'model', 'model_ema'" in refusal(path, "nothing")
    for kind in ("npz", "safetensors"):
        path.write_bytes(KINDS[kind])
        assert "no table 'model'; the file is one table" in refusal(path, "model")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pt"])
def test_folders(tmp_path: Path, name: str) -> None:
    if name == "model.safetensors":
        save_file(WEIGHTS, tmp_path / name, {"format": "pt"})
    else:
        torch.save(WEIGHTS, tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: cc-by-nc-4.0\n---\n# Model\n")
    found = open_checkpoint(tmp_path)
    assert found.path == tmp_path
    assert found.tensors.keys() == WEIGHTS.keys()
    assert found.config == {"model_type": "vit"}
    assert found.preprocessor == {"size": 224}
    assert found.metadata["license"] == "cc-by-nc-4.0"
    # The file itself finds what stands beside it, if its name is that of the hub.
    beside = open_checkpoint(tmp_path / name)
    assert beside.config == ({} if name == "weights.pt" else found.config)


def test_the_best_of_several_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"b": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "io.safetensors").write_bytes(b"")
    assert list(open_checkpoint(tmp_path).tensors) == ["a"]


def shards(folder: Path) -> dict[str, str]:
    names = list(WEIGHTS)
    where = {name: f"model-0000{i % 2 + 1}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: WEIGHTS[n] for n in names if where[n] == file}, folder / file)
    return where


def test_a_model_in_several_files(tmp_path: Path) -> None:
    where = shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    found = open_checkpoint(tmp_path)
    assert found.container == "safetensors"
    assert found.tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(found.tensors[name].read(), t) for name, t in WEIGHTS.items())
    assert open_checkpoint(index).tensors.keys() == WEIGHTS.keys()
    name, file = next(iter(where.items()))
    for changed, words in [
        ({**where, name: "../secret"}, "does not stand beside it"),
        ({**where, name: "/etc/passwd"}, "does not stand beside it"),
        ({**where, name: 3}, "does not stand beside it"),
        ({**where, name: ""}, "does not stand beside it"),
        ({**where, name: "gone.safetensors"}, "'gone.safetensors' is missing"),
        ({**where, "more": file}, "tensor 'more' is not in"),
        (
            {n: f for n, f in where.items() if n != name},
            f"tensor '{name}' in '{file}' is not named",
        ),
        ({}, "no 'weight_map'"),
        ({n: f"{i}" for i, n in enumerate(map(str, range(200)))}, "more than 100 files"),
    ]:
        index.write_text(json.dumps({"weight_map": changed}))
        assert words in refusal(tmp_path)


def _tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("model.pth")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"hello", "no checkpoint of a known format"),
        (gzip.compress(KINDS["torch"]), "compressed with gzip; unpack it first"),
        (_tar(KINDS["torch"]), "a tar archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "the download went wrong"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", "a single array"),
        (b"\x80\x02K\x05.", "a pickle that torch.save did not write"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    assert words in refusal(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "gone")
    assert "no weights in this folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "no file" in refusal(tmp_path / "pipe.pth")
    for name in ("a.pth", "b.npz"):
        (tmp_path / name).write_bytes(b"")
    assert "2 files of weights ('a.pth', 'b.npz'); give one of them" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "config.json: no table in it"),
        ("{", "config.json: no JSON"),
        ("[" * 100_000, "config.json: no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "config.json: no JSON"),
        (" " * (TEXT_LIMIT + 1), "config.json: larger than"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    assert words in refusal(tmp_path)


def test_a_card_without_front_matter(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    for text in ("license: mit\n", "---\nlicense: mit\n", "# Model\n---\nlicense: mit\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert not open_checkpoint(tmp_path).metadata


def test_the_room_that_tensors_take(tmp_path: Path) -> None:
    zeros = {str(i): np.zeros(30 << 20, np.float16) for i in range(2)}
    path = tmp_path / "model.npz"
    path.write_bytes(npz_bytes(zeros, deflated=True))
    assert "that claim to hold 251658240 bytes of weights" in refusal(path)
