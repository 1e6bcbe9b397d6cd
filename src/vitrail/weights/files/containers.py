"""Open a checkpoint of any container: recognised by what is in it, whatever it is called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint, Stored
from vitrail.weights.files.npz import open_npz
from vitrail.weights.files.safetensors_file import open_safetensors
from vitrail.weights.files.span import check_names, shown
from vitrail.weights.files.torch_file import open_torch_legacy, open_torch_zip
from vitrail.weights.files.zip_members import list_members

TEXT_LIMIT = 4 << 20
"""Bytes of a JSON file that are read at most."""

CARD_LIMIT = 64 << 10
"""Bytes of a model card that are read at most; its front matter comes first."""

SHARDS = 100
"""Files that a model may be cut into."""

USUAL = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Weights in a folder of the hub, best first; their `config.json` stands beside them."""

SUFFIXES = frozenset({".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".npz", ".tar"})
"""What may be weights in any other folder."""

KNOWN = "known are .safetensors, .npz and files of torch.save"

OTHERS = {
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\x89HDF": f"an HDF5 file of TensorFlow or Keras, which is not read; {KNOWN}",
    b"version https://git-lfs": "a pointer to a file of Git LFS; fetch it with `git lfs pull`",
    b"\x93NUMPY": "a single array; put the arrays of a model into an .npz",
    b"<": "a web page or XML, not weights; the download went wrong",
}
"""What people give by mistake, by how it begins."""


def open_checkpoint(path: Path, part: str | None = None) -> Checkpoint:
    """Open a file or folder of weights, without reading them.

    Args:
        path: An .npz, a .safetensors, a file of `torch.save` (under any name), the index of a
            model in several files, or a folder with one of them.
        part: Key of the table of weights in a training dump, such as `model_ema`.

    Raises:
        CheckpointError: not there, of no known format, damaged, or hostile.
    """
    weights = _weights(path) if path.is_dir() else path
    if not weights.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if not weights.is_file():
        raise CheckpointError(f"{path}: no file")
    folder = weights.parent if path.is_dir() or weights.name in USUAL else None
    config = _json(folder, "config.json")
    preprocessor = _json(folder, "preprocessor_config.json")
    card = _card(folder)
    if weights.name.endswith(".index.json"):
        opened = _open_shards(weights, part)
    else:
        opened = _open(weights, part)
    return Checkpoint(
        path=path,
        container=opened.container,
        tensors=opened.tensors,
        part=opened.part,
        parts=opened.parts,
        config=config,
        preprocessor=preprocessor,
        metadata={**card, **opened.metadata},
        extras=opened.extras,
    )


def _open(path: Path, part: str | None) -> Checkpoint:
    """A single file."""
    container = _recognise(path)
    if container == "zip":
        members = list_members(path)
        if any(name.endswith(".npy") for name in members):
            _without_parts(path, part)
            return Checkpoint(path=path, container="npz", tensors=open_npz(path, members))
        torch_file = open_torch_zip(path, part, members)
    elif container == "safetensors":
        _without_parts(path, part)
        tensors, metadata = open_safetensors(path)
        return Checkpoint(path=path, container="safetensors", tensors=tensors, metadata=metadata)
    else:
        torch_file = open_torch_legacy(path, part)
    return Checkpoint(
        path=path,
        container="torch",
        tensors=torch_file.tensors,
        part=torch_file.part,
        parts=torch_file.parts,
        extras=torch_file.extras,
    )


def _recognise(path: Path) -> Literal["zip", "safetensors", "pickle"]:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[8:9] == b"{" and head[3:8] == bytes(5):
        return "safetensors"
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path}: a tar archive; unpack it and give the weights inside")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{path}: {what}")
    what = "an empty file" if not head else "no checkpoint of a known format, or damaged"
    raise CheckpointError(f"{path}: {what}; {KNOWN}")


def _without_parts(path: Path, part: str | None) -> None:
    if part is not None:
        raise CheckpointError(f"{path}: no table {shown(part)}; the file is one table of weights")


def _weights(folder: Path) -> Path:
    """The weights in a folder."""
    for name in USUAL:
        if (folder / name).is_file():
            return folder / name
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot read ({error.strerror})") from error
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(f"{folder}: no weights in this folder; {KNOWN}")
    names = ", ".join(shown(p.name) for p in found[:5])
    raise CheckpointError(f"{folder}: {len(found)} files of weights ({names}); give one of them")


def _open_shards(index: Path, part: str | None) -> Checkpoint:
    """A model that stands in several files, by the index that names them."""
    _without_parts(index, part)
    where = _weight_map(index)
    opened: dict[str, Checkpoint] = {}
    for file in sorted(set(where.values())):
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index}: {shown(file)} is missing in the folder")
        opened[file] = _open(index.parent / file, None)
    for name, file in where.items():
        if name not in opened[file].tensors:
            raise CheckpointError(f"{index}: tensor {shown(name)} is not in {shown(file)}")
    tensors: dict[str, Stored] = {}
    metadata: dict[str, str] = {}
    for file, checkpoint in opened.items():
        for name, tensor in checkpoint.tensors.items():
            if where.get(name) != file:
                raise CheckpointError(
                    f"{index}: tensor {shown(name)} in {shown(file)} is not named in the index"
                )
            tensors[name] = tensor
        metadata.update(checkpoint.metadata)
    check_names(index, tensors)
    container = next(iter(opened.values())).container
    return Checkpoint(path=index, container=container, tensors=tensors, metadata=metadata)


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor; all stand beside the index."""
    table = _json(index.parent, index.name).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index}: no 'weight_map' in it")
    where: dict[str, str] = {}
    for name, file in cast("dict[str, object]", table).items():
        if not isinstance(file, str) or not file or Path(file).name != file or "\0" in file:
            raise CheckpointError(f"{index}: a file of weights that does not stand beside it")
        where[name] = file
    if len(set(where.values())) > SHARDS:
        raise CheckpointError(f"{index}: more than {SHARDS} files of weights")
    return where


def _json(folder: Path | None, name: str) -> Mapping[str, Any]:
    """A table beside the weights; empty where there is none."""
    if folder is None or not (folder / name).is_file():
        return {}
    path = folder / name
    text = _head(path, TEXT_LIMIT + 1)
    if len(text) > TEXT_LIMIT:
        raise CheckpointError(f"{path}: larger than {TEXT_LIMIT} bytes")
    try:
        table = json.loads(text)
        json.dumps(table, ensure_ascii=False).encode()  # halves of characters cannot be written
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no JSON ({shown(str(error))})") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: no table in it")
    return cast("dict[str, Any]", table)


def _card(folder: Path | None) -> dict[str, str]:
    """The licence that a model card states in its front matter."""
    if folder is None or not (folder / "README.md").is_file():
        return {}
    text = _head(folder / "README.md", CARD_LIMIT).decode("utf-8", "replace")
    front = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)^---", text, re.DOTALL | re.MULTILINE)
    stated = r"^license:[ \t]*(?:\"([^\"\n\\]+)\"|([\w.+-]+))"
    licence = re.search(stated, front[1], re.MULTILINE) if front else None
    return {"license": licence[1] or licence[2]} if licence else {}


def _head(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read ({error.strerror})") from error
