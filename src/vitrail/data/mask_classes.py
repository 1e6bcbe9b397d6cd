"""What the values and colours of masks are called: files that lie beside them.

- `classes.txt`, one name a line from value 0 on; `classes.json`, a list or values with names.
- a YAML file with `classes` or `names`, a list or values with names.
- a palette: `palette.csv`, `palette.txt`, `palette.json`, `class_dict.csv` or `label_colors.txt`,
  a name with its red, green and blue.

A name like `background` stands for no class, one like `void` or `unlabelled` for pixels that are
not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import cast

from vitrail.data.boxes import duplicate_names
from vitrail.data.storage import Storage
from vitrail.data.yolo_names import YAML_SUFFIXES, read_list, read_yaml, why_unread
from vitrail.errors import BadSampleError, DataError
from vitrail.types import VOID

BACKGROUND_NAMES = frozenset({"background", "bg", "none", "nothing"})
VOID_NAMES = frozenset(
    {"void", "ignore", "ignored", "unlabelled", "unlabeled", "unknown", "unannotated", "255"}
)

_LISTS = ("classes.txt", "class_names.txt")
_TABLES = ("classes.json",)
_PALETTES = (
    *("palette.csv", "palette.txt", "palette.json", "colors.json", "colors.csv", "colors.txt"),
    *("class_dict.csv", "label_colors.txt", "label_colors.csv", "labelmap.txt"),
)
_TOP = 2  # folders above a file that is looked at

_THREE = r"(\d+)[\s,;:]+(\d+)[\s,;:]+(\d+)"
_LAST = re.compile(rf"(?<![\w.]){_THREE}[\s,;:]*$")
_FIRST = re.compile(rf"^\s*{_THREE}(?=[\s,;:])")
_NAMES = re.compile("^(names|classes):", re.MULTILINE)

Meaning = Mapping[int, int | None]
"""What a value (or a colour, as 0xRRGGBB) stands for: index of a class, `VOID`, None for none."""


@dataclass(frozen=True, slots=True)
class ClassFile:
    """What one file says.

    Attributes:
        path: Of the file, in its storage.
        names: What values are called; of a palette, its rows from 0 on.
        colours: Names by colour; empty where this is no palette.
    """

    path: str
    names: Mapping[int, str]
    colours: Mapping[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True, slots=True)
class Named:
    """Classes, and what stands for them.

    Attributes:
        classes: Names without those of background and void.
        values: The lowest value of each class; None of colours.
        meaning: Of all values that are known.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    meaning: Meaning

    @property
    def background(self) -> bool:
        """Whether some value is of no class."""
        return None in self.meaning.values()


def class_files(storage: Storage) -> list[ClassFile]:
    """The files near the top that name classes.

    Raises:
        DataError: one of them cannot be read.
    """
    found: list[ClassFile] = []
    for path in storage.paths:
        if path.count("/") > _TOP:
            continue
        name = PurePosixPath(path).name.lower()
        if name in _LISTS:
            found.append(ClassFile(path, read_list(storage, path).names))
        elif name in _TABLES:
            found.append(ClassFile(path, _table(_json(storage, path), path)))
        elif name in _PALETTES:
            found.append(_palette(storage, path))
        elif name.endswith(YAML_SUFFIXES):
            sheet = read_yaml(storage, path, key="names") or read_yaml(storage, path, key="classes")
            if sheet is not None:
                found.append(ClassFile(path, sheet.names))
            elif _NAMES.search(_text(storage, path)):
                raise why_unread(storage, path)
    return found


def named(names: Mapping[int, str]) -> Named:
    """What values (or colours) with names mean; a name may have several of them."""
    classes: dict[str, int] = {}
    meaning: dict[int, int | None] = {}
    for value, name in names.items():
        word = name.strip().lower().strip("_")
        if word in BACKGROUND_NAMES:
            meaning[value] = None
        elif word in VOID_NAMES:
            meaning[value] = VOID
        else:
            meaning[value] = classes.setdefault(name, len(classes))
    first = {label: value for value, label in reversed(meaning.items())}
    return Named(tuple(classes), tuple(first[i] for i in range(len(classes))), meaning)


def _palette(storage: Storage, path: str) -> ClassFile:
    """Names with colours: rows in any order of columns, or JSON."""
    rows = (
        _json_rows(_json(storage, path), path)
        if path.lower().endswith(".json")
        else _text_rows(_text(storage, path), path)
    )
    if not rows:
        raise DataError(f"{path}: no colour; write a name and red, green, blue a line")
    colours: dict[int, str] = {}
    for name, (red, green, blue) in rows:
        colour = red << 16 | green << 8 | blue
        if colours.setdefault(colour, name) != name:
            raise DataError(
                f"{path}: ({red}, {green}, {blue}) is '{colours[colour]}' and '{name}'; give "
                "each class its own colour"
            )
    names = list(dict.fromkeys(name for name, _ in rows))
    return ClassFile(path, dict(enumerate(names)), colours)


_Row = tuple[str, tuple[int, int, int]]


def _text_rows(text: str, path: str) -> list[_Row]:
    """A name and a colour a line, in either order; a number in front counts the lines."""
    rows: list[_Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LAST.search(line) or _FIRST.search(line)
        if found is None:
            if rows or number > 1:
                raise DataError(
                    f"{path}: line {number} is '{line[:40]}'; write a name and red, green, blue"
                )
            continue  # a header
        name = re.sub(r"^\d+[\s,;:]+", "", (line[: found.start()] + line[found.end() :]).strip())
        name = name.strip(" \t,;:'\"")
        rows.append(
            (name or f"class {len(rows)}", _colour(found.groups(), f"{path}: line {number}"))
        )
    return rows


def _json_rows(table: object, path: str) -> list[_Row]:
    """`{name: [r, g, b]}`, or a list of objects with `name` and `color`."""
    pairs: list[tuple[str, object]] = []
    if isinstance(table, dict):
        pairs += cast("dict[str, object]", table).items()
    for item in cast("list[object]", table) if isinstance(table, list) else ():
        own = cast("dict[str, object]", item) if isinstance(item, dict) else {}
        pairs.append((str(own.get("name", "")), own.get("color", own.get("colour"))))
    rows: list[_Row] = []
    for name, colour in pairs:
        if not isinstance(colour, list) or not name.strip():
            raise DataError(f"{path}: '{name}' without a name or colour; write [red, green, blue]")
        rows.append((name, _colour(cast("list[object]", colour), f"{path}: '{name}'")))
    return rows


def _colour(cells: Sequence[object], where: str) -> tuple[int, int, int]:
    values = [int(str(cell)) if str(cell).isdecimal() else -1 for cell in cells]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        shown = ", ".join(map(str, cells))
        raise DataError(f"{where} has the colour ({shown}); write three numbers from 0 to 255")
    return values[0], values[1], values[2]


def _table(table: object, path: str) -> dict[int, str]:
    """`[name, ...]`, `{"0": name}` or `{name: 0}`."""
    if isinstance(table, list):
        names = {i: str(name) for i, name in enumerate(cast("list[object]", table))}
    elif isinstance(table, dict):
        pairs = cast("dict[str, object]", table)
        if all(type(value) is int for value in pairs.values()):
            names = {cast("int", value): key for key, value in pairs.items()}
        elif all(key.isdecimal() for key in pairs):
            names = {int(key): str(value) for key, value in pairs.items()}
        else:
            names = {}
    else:
        names = {}
    if not names or not all(name.strip() for name in names.values()):
        raise DataError(f'{path}: no classes; write a list of names, or {{"0": name, ...}}')
    for name in duplicate_names(names.values()):
        raise DataError(f"{path}: two values are '{name}'; make them one class")
    return names


def _json(storage: Storage, path: str) -> object:
    try:
        return json.loads(_text(storage, path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); write it again") from error


def _text(storage: Storage, path: str) -> str:
    try:
        return storage.read(path).decode("utf-8-sig")
    except (BadSampleError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as UTF-8") from error
