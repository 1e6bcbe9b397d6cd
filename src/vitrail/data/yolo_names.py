"""What a YOLO data set says of itself: the names of its classes, and where its splits lie.

That is a YAML file (`data.yaml`, https://docs.ultralytics.com/datasets/detect/) or a list with one
name a line (`classes.txt`, Darknet's `obj.names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

import yaml

from vitrail.data.boxes import duplicate_names
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError, DataError

YAML_SUFFIXES = (".yaml", ".yml")
LIST_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
SPLIT_KEYS = ("train", "val", "test")

_MAX_BYTES = 1_000_000
_TOP = 2  # folders above a YAML file that is looked at


@dataclass(frozen=True, slots=True)
class Sheet:
    """What one file says.

    Attributes:
        path: Of the file, in its storage.
        names: Classes by the number that label rows use, which may have gaps.
        parts: Folders or lists of images by split, as written; empty where it names none.
        root: What stands before those, as written.
        keypoints: Whether rows go on with points after the box.
    """

    path: str
    names: dict[int, str]
    parts: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    root: str = ""
    keypoints: bool = False


def find_sheets(storage: Storage) -> list[Sheet]:
    """YAML files with names near the top; where there is none, the lists of names.

    Raises:
        DataError: one contradicts itself.
    """
    sheets = [read_yaml(storage, path) for path in near_sheets(storage)]
    found = [sheet for sheet in sheets if sheet is not None]
    if found:
        return found
    lists = [path for path in storage.paths if PurePosixPath(path).name in LIST_NAMES]
    return [read_list(storage, path) for path in lists]


def near_sheets(storage: Storage) -> list[str]:
    """YAML files near the top."""
    near = (path for path in storage.paths if path.lower().endswith(YAML_SUFFIXES))
    return [path for path in near if path.count("/") <= _TOP]


def read_list(storage: Storage, path: str) -> Sheet:
    """One name a line, from class 0 on."""
    try:
        lines = storage.read(path).decode("utf-8-sig").split("\n")
    except (BadSampleError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no list of class names ({error}); save it as UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return Sheet(path, _checked(dict(enumerate(line.strip() for line in lines)), path))


def read_yaml(storage: Storage, path: str, *, key: str = "names") -> Sheet | None:
    """The keys of a YAML file that matter here; None where it has no names.

    Every value is taken as text: a class named `no` or `on` is no truth value.

    Args:
        storage: Where it lies.
        path: Of the file.
        key: Under which the names stand.

    Raises:
        DataError: it contradicts itself.
    """
    table = _table(storage, path)
    if isinstance(table, str) or key not in table:
        return None
    names = _checked(_names(table[key], path, key), path)
    count = _texts(table.get("nc"))
    if count and count[0] != str(len(names)):
        raise DataError(
            f"{path}: 'nc' says {count[0]} classes, '{key}' has {len(names)}; correct one of them"
        )
    parts = {key: _texts(table.get(key)) for key in SPLIT_KEYS}
    return Sheet(
        path,
        names,
        {key: places for key, places in parts.items() if places},
        "".join(_texts(table.get("path"))[:1]),
        keypoints="kpt_shape" in table,
    )


def why_unread(storage: Storage, path: str) -> DataError:
    """What is wrong with a YAML file that `read_yaml` gives nothing for."""
    table = _table(storage, path)
    reason = table if isinstance(table, str) else "no key 'names'"
    return DataError(f"{storage.location / path}: {reason}; write names, train and val in UTF-8")


def _table(storage: Storage, path: str) -> dict[str, yaml.Node] | str:
    """The keys of a YAML file with their nodes, or why there are none."""
    if storage.size(path) > _MAX_BYTES:
        return "too large to be a list of names"
    try:
        root = _compose(storage.read(path).decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8 text"
    except (BadSampleError, yaml.YAMLError, RecursionError) as error:
        return f"not YAML ({' '.join(str(error).split())})"
    if not isinstance(root, yaml.MappingNode):
        return "no keys with values"
    return {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a document; values stay text, and nothing is built from tags."""
    compose = cast("Any", yaml.compose)  # pyright: ignore[reportUnknownMemberType]
    found = compose(text, Loader=yaml.BaseLoader)
    return found if isinstance(found, yaml.Node) else None


def _names(node: yaml.Node, path: str, key: str) -> dict[int, str]:
    """From a list, or from numbers to names."""
    if isinstance(node, yaml.SequenceNode):
        return dict(enumerate(_texts(node)))
    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"{path}: '{key}' is neither a list nor numbers with names; write one")
    found: dict[int, str] = {}
    for left, right in node.value:
        number, name = _text(left), _text(right)
        if not number.isdecimal():
            raise DataError(f"{path}: '{key}' has the number '{number}'; write 0, 1, 2 and so on")
        if int(number) in found:
            raise DataError(f"{path}: '{key}' has number {number} twice; give each class its own")
        found[int(number)] = name
    return dict(sorted(found.items()))


def _texts(node: yaml.Node | None) -> list[str]:
    """The texts of a list, or of a single value."""
    if isinstance(node, yaml.SequenceNode):
        return [_text(item) for item in node.value]
    text = _text(node)
    return [text] if text else []


def _text(node: yaml.Node | None) -> str:
    return node.value.strip() if isinstance(node, yaml.ScalarNode) else ""


def _checked(names: dict[int, str], path: str) -> dict[int, str]:
    """The same names, which are there and differ."""
    if not names:
        raise DataError(f"{path}: names no class; write one name a class")
    nameless = [number for number, name in names.items() if not name]
    if nameless:
        raise DataError(f"{path}: class {nameless[0]} has no name; give it one")
    for name in duplicate_names(names.values()):
        numbers: Sequence[str] = [str(number) for number in names if names[number] == name]
        raise DataError(
            f"{path}: classes {' and '.join(numbers)} are both '{name}'; make them one class"
        )
    return names
