from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from tiny import STEMS, photo, tiny_config, tiny_model
from vitrail.errors import ModelFileError
from vitrail.weights.files.safetensors_file import HEADER_LIMIT
from vitrail.weights.modelfile import (
    Provenance,
    load_model,
    read_header,
    save_model,
    versions,
    write_atomically,
)

PROVENANCE = Provenance(
    data="digits",
    fingerprint="abc",
    seed=3,
    metrics={"top1": 0.97},
    intervals={"top1": (0.95, 0.98)},
    recipe={"optim": {"lr": 0.001}},
    versions=versions(),
    licence="Apache-2.0",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    return save_model(tiny_model(), path, PROVENANCE).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "model.safetensors"


def header_of(data: bytes) -> dict[str, Any]:
    length = struct.unpack("<Q", data[:8])[0]
    table = json.loads(data[8 : 8 + length])
    return json.loads(table["__metadata__"]["vitrail"])


def rewritten(
    data: bytes,
    *,
    header: Callable[[dict[str, Any]], None] | None = None,
    tensors: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> bytes:
    """The same file by another writer, which knows no checksum."""
    table, weights = header_of(data), load(data)
    if header is not None:
        header(table)
    if tensors is not None:
        tensors(weights)
    return save(weights, {"vitrail": json.dumps(table)})


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stem": STEMS[1], "positions": {"kind": "sincos_2d"}, "registers": 2},
        {"positions": {"kind": "rotary_2d"}, "pool": "attention", "layer_scale": 0.1},
        {"positions": {"kind": "relative_2d"}, "qk_norm": True, "norm": "post"},
        {"positions": {"kind": "sincos_1d"}, "class_token": False, "pool": "mean"},
        {"positions": {"kind": "none"}, "qkv_bias": False, "norm_after_pool": True},
    ],
)
def test_round_trip_is_bit_equal(changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(
        classes=("ä", "b;c", 'd"e'), backbone=tiny_config(**changes), temperature=1.7
    )
    path = save_model(model, tmp_path / "new" / "model.safetensors", PROVENANCE)
    again, provenance = load_model(path)
    assert provenance == PROVENANCE
    assert again.config == model.config
    assert not again.training
    images = torch.stack([photo(1), photo(2)])
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert read_header(path).config == model.config
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_file_holds_no_code_and_its_header_is_plain_json(saved: bytes) -> None:
    table = header_of(saved)
    assert set(table) == {"format_version", "config", "provenance"}
    assert table["config"]["task"]["classes"] == ["ant", "bee", "cat"]
    assert table["config"]["preprocess"]["resize"]["size"] == [8, 12]
    assert table["provenance"]["licence"] == "Apache-2.0"


def test_loading_draws_no_random_numbers_and_lasts_beside_gradients(
    saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model, _ = load_model(path)
    assert torch.equal(torch.rand(1), expected)
    model.train()(photo(0)[None]).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weights_of_another_writer_are_read(saved: bytes, scratch: Path) -> None:
    scratch.write_bytes(rewritten(saved))
    model, _ = load_model(scratch)
    with torch.no_grad():
        assert torch.equal(model(photo(0)[None]), tiny_model()(photo(0)[None]))


@pytest.mark.parametrize("tenth", range(10))
def test_truncated(saved: bytes, tmp_path: Path, tenth: int) -> None:
    message = refusal(tmp_path / "cut.safetensors", saved[: len(saved) * tenth // 10])
    assert "damaged or truncated" in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "damaged or truncated"),
        (b"short", "damaged or truncated"),
        (b"label,score\n" * 100, "damaged or truncated"),
        (pickle.dumps({"weights": [1.0] * 100}), "damaged or truncated"),
        (struct.pack("<Q", HEADER_LIMIT + 1) + b" " * 100, "damaged or truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged or truncated"),
        (struct.pack("<Q", 2) + b"{}", "without a vitrail header"),
        (struct.pack("<Q", 2) + b"[]", "damaged or truncated"),
    ],
    ids=["empty", "short", "text", "pickle", "bloated", "overflow", "bare", "list"],
)
def test_other_files(content: bytes, word: str, tmp_path: Path) -> None:
    assert word in refusal(tmp_path / "file.safetensors", content)


def test_a_header_over_the_limit_is_not_read(tmp_path: Path) -> None:
    text = json.dumps({"__metadata__": {"vitrail": "x" * (HEADER_LIMIT + 1)}}).encode()
    message = refusal(tmp_path / "big.safetensors", struct.pack("<Q", len(text)) + text)
    assert "damaged or truncated" in message


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.safetensors: no such file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match=r"cannot read \(Is a directory\)"):
        load_model(tmp_path)


def test_foreign_weights(tmp_path: Path) -> None:
    data = save({"head.weight": torch.zeros(2, 2)})
    assert "without a vitrail header" in refusal(tmp_path / "foreign.safetensors", data)


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        *parents, leaf = path.split(".")
        for parent in parents:
            table = table[parent]
        table[leaf] = value

    return change


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format_version", 2, "model file of format 2, this vitrail reads up to 1"),
        ("format_version", 0, "header: 'format_version' = 0"),
        ("format_version", None, "the vitrail header is damaged"),
        ("colour", 1, "header: unknown key 'colour'"),
        ("config.backbone.widht", 1, "unknown key 'config.backbone.widht'; did you mean 'width'"),
        ("config.backbone.width", 20, "tensor 'backbone."),
        ("config.backbone.heads", 3, "width 16 is not a multiple of heads 3"),
        ("config.backbone.depth", 3, "tensor 'backbone.blocks.2.attn.proj.bias' is missing"),
        ("config.backbone.depth", 1, "tensor 'backbone.blocks.1.attn.proj.bias' is not part of"),
        (
            "config.task.classes",
            ["ant", "bee"],
            "the header names 2 classes, the head has 3 outputs",
        ),
        ("config.task.classes", ["ant", "ant", "bee"], "twice: ant"),
        ("config.task.temperature", 0, "'config.task.temperature' = 0"),
        ("config.preprocess", None, "'config.preprocess'"),
        ("config.preprocess.std", [0.5, 0.0, 0.5], "'config.preprocess.std.1' = 0.0"),
    ],
)
def test_a_header_that_contradicts_itself(
    saved: bytes, tmp_path: Path, key: str, value: object, words: str
) -> None:
    data = rewritten(saved, header=_set(key, value))
    assert words in refusal(tmp_path / "wrong.safetensors", data)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format_version": 1e999}', "[" * 100_000])
def test_a_header_that_is_no_table(saved: bytes, tmp_path: Path, text: str) -> None:
    data = save(load(saved), {"vitrail": text})
    assert "the vitrail header is damaged" in refusal(tmp_path / "wrong.safetensors", data)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("task.head.bias", None, "tensor 'task.head.bias' is missing"),
        ("task.extra", torch.zeros(1), "tensor 'task.extra' is not part of the model"),
        ("backbone.norm.bias", torch.zeros(4), "has shape (4,), the header's model wants (16,)"),
        ("backbone.norm.bias", torch.full((16,), torch.nan), "holds NaN or infinity"),
        ("backbone.norm.bias", torch.full((16,), torch.inf), "holds NaN or infinity"),
        ("backbone.norm.bias", torch.zeros(16, dtype=torch.int32), "holds torch.int32"),
    ],
)
def test_tensors_that_contradict_the_header(
    saved: bytes, tmp_path: Path, name: str, tensor: torch.Tensor | None, words: str
) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights[name]
        if tensor is not None:
            weights[name] = tensor

    def add(weights: dict[str, torch.Tensor]) -> None:
        assert tensor is not None
        weights[name] = tensor

    data = rewritten(saved, tensors=add if name == "task.extra" else change)
    message = refusal(tmp_path / "wrong.safetensors", data)
    assert words in message
    assert name in message


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_flipped_bytes_are_an_error_or_harmless(
    saved: bytes, scratch: Path, data: st.DataObject
) -> None:
    length = struct.unpack("<Q", saved[:8])[0] + 8
    place = data.draw(st.integers(0, length - 1) | st.integers(length, len(saved) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(saved)
    damaged[place] ^= flip
    scratch.write_bytes(damaged)
    try:
        model, provenance = load_model(scratch)
    except ModelFileError:
        return
    assert provenance == PROVENANCE
    assert model.config == tiny_model().config
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(scratch: Path, content: bytes, framed: bool) -> None:
    scratch.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    with pytest.raises(ModelFileError):
        load_model(scratch)


def test_a_giant_in_the_header_takes_no_memory(saved: bytes, tmp_path: Path) -> None:
    data = rewritten(saved, header=_set("config.backbone.width", 2**16))
    assert "has shape" in refusal(tmp_path / "giant.safetensors", data)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(saved: bytes, tmp_path: Path) -> None:
    """A limit on the size of files is what a full disk looks like to a program."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            ModelFileError, match=r"model\.safetensors: cannot write \(File too large"
        ):
            save_model(tiny_model(seed=1), path, PROVENANCE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


def test_no_space_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match=r"No space left on device.*; free space or give"):
        write_atomically(tmp_path / "out.jsonl", b"data")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_interrupted_between_write_and_rename(
    saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os if where == "fsync" else Path, where, killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(tiny_model(seed=1), path, PROVENANCE)
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


def test_the_rename_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> Path:
        calls.append(f"replace {target.name}")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_atomically(tmp_path / "a.bin", b"data")
    assert calls == [f"fsync .a.bin.{os.getpid()}", "replace a.bin", f"fsync {tmp_path.name}"]


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFileError, match="cannot write"):
        write_atomically(tmp_path / "file" / "model.safetensors", b"data")
