"""`variant.yml` beside a checkpoint of Segmenter: what its training was told.

Only nodes are read: values stay text, and tags (`!!python/tuple`) build nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from vitrail.errors import CheckpointError

NAME = "variant.yml"

_MAX_BYTES = 1_000_000


class Variant:
    """A table of tables, asked by the names on the way; what is not there is None.

    Args:
        path: The file, for errors.
        root: Its outermost node; None where there is no file.
    """

    def __init__(self, path: Path, root: yaml.Node | None) -> None:
        self.path, self.root = path, root

    def text(self, *names: str) -> str | None:
        """A word."""
        node = self._node(names)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def whole(self, *names: str) -> int | None:
        """A count.

        Raises:
            CheckpointError: something else stands there.
        """
        node = self._node(names)
        return None if node is None else self._count(node, names)

    def sides(self, *names: str) -> tuple[int, int] | None:
        """Height and width, which may be given as one number.

        Raises:
            CheckpointError: something else stands there.
        """
        node = self._node(names)
        if node is None:
            return None
        if not isinstance(node, yaml.SequenceNode):
            side = self._count(node, names)
            return side, side
        sides = [self._count(item, names) for item in node.value[:3]]
        if len(sides) != 2:
            raise self._wrong(names, "one side, or height and width")
        return sides[0], sides[1]

    def _node(self, names: tuple[str, ...]) -> yaml.Node | None:
        node = self.root
        for name in names:
            if not isinstance(node, yaml.MappingNode):
                return None
            pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
            found = (v for k, v in pairs if isinstance(k, yaml.ScalarNode) and k.value == name)
            node = next(found, None)
        return node

    def _count(self, node: yaml.Node, names: tuple[str, ...]) -> int:
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0):
            raise self._wrong(names, "a whole number from 1 on")
        return int(text)

    def _wrong(self, names: tuple[str, ...], wanted: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {'.'.join(names)}: {wanted} is wanted")


def read_variant(checkpoint: Path) -> Variant:
    """What stands beside a checkpoint; an empty one where there is nothing.

    Args:
        checkpoint: The file, or its folder.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / NAME
    if not path.is_file():
        return Variant(path, None)
    compose = cast("Any", yaml.compose)  # pyright: ignore[reportUnknownMemberType]
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise CheckpointError(f"{path}: larger than {_MAX_BYTES} bytes")
        root = compose(text.decode("utf-8-sig"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CheckpointError(f"{path}: no YAML ({' '.join(str(error).split())[:200]})") from error
    return Variant(path, root if isinstance(root, yaml.Node) else None)
