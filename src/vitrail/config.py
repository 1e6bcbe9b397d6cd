"""Frozen configurations: pydantic models read from and written to TOML and JSON.

A config stands directly above the module it builds. Unknown keys are errors that offer the
nearest known one; overrides are written `a.b.c=value` with the value in TOML syntax.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitrail.errors import ConfigError

Table = dict[str, Any]
Depth = Annotated[int, Field(gt=0, le=1000)]
"""Layers of one kind. The bound keeps a header that was made up from taking all memory."""
Width = Annotated[int, Field(gt=0, le=65_536)]
"""Width of a layer, bounded likewise."""
C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration: immutable, strict about keys, written to JSON as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: Path) -> Table:
    """Read one TOML file.

    Raises:
        ConfigError: the file is missing or is no TOML; the message gives path and place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error


def write_toml(config: Config) -> str:
    """The configuration as TOML text; keys that are None are left out (None is the default)."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def override(table: Mapping[str, Any], assignments: Iterable[str]) -> Table:
    """Lay dotted assignments such as `optim.lr=1e-3` over a nested table.

    The value is read as TOML; what is no TOML is taken as a plain string, so that
    `model.name=vit_tiny_patch16_224` needs no quotes.
    """
    result = _copy(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        *parents, leaf = (part.strip() for part in key.split("."))
        if not equals or not all([*parents, leaf]):
            raise ConfigError(f"--set {assignment}: write it as key=value, e.g. optim.lr=1e-3")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {assignment}: '{parent}' is a value, not a table")
            node = cast("Table", child)
        value = _value(text.strip())
        if leaf == "kind" and node.get("kind") != value:
            node.clear()  # the other keys belong to the kind that was there
        node[leaf] = value
    return result


def merge(table: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """Lay one nested table over another; a table of another `kind` takes the old one's place."""
    result = _copy(table)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            new, before = cast("Table", value), cast("Table", old)
            same_kind = new.get("kind", before.get("kind")) == before.get("kind")
            result[key] = merge(before, new) if same_kind else _copy(new)
        else:
            result[key] = value
    return result


def build(kind: type[C], table: Mapping[str, Any], *, source: str) -> C:
    """Check a table against a configuration type.

    Args:
        kind: The configuration to build.
        table: Nested keys and values, as read from TOML or JSON.
        source: Where the table came from; it begins the error message.

    Raises:
        ConfigError: one line that names the first wrong key, what is wrong and the nearest key.
    """
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(kind, table, error)}") from error


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?` for the words most like the given one, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def _explain(kind: type[Config], table: Mapping[str, Any], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    where = _where(first["loc"], table, missing=first["type"] == "missing")
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind)
        leaf = str(first["loc"][-1])
        return f"unknown key '{where}'{nearest(leaf, known)}"
    if first["type"] in ("missing", "value_error"):
        return f"'{where}': {message}" if where else message
    given = repr(first.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "..."
    return f"'{where}' = {shown}: {message}"


def _where(loc: tuple[int | str, ...], table: object, *, missing: bool) -> str:
    """The dotted key as the user wrote it: without the tags that pydantic adds for unions."""
    parts: list[str] = []
    for place, part in enumerate(loc):
        if isinstance(table, dict) and part in table:
            table = cast("dict[object, object]", table)[part]
        elif isinstance(table, list | tuple) and isinstance(part, int):
            table = cast("list[object]", table)[part] if part < len(table) else None
        elif not (missing and place == len(loc) - 1):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _known_keys(kind: type[Config]) -> set[str]:
    schema = kind.model_json_schema()
    tables = [schema, *cast("dict[str, Table]", schema.get("$defs", {})).values()]
    return {key for table in tables for key in table.get("properties", {})}


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _copy(table: Mapping[str, Any]) -> Table:
    return {
        key: _copy(cast("Table", value)) if isinstance(value, dict) else value
        for key, value in table.items()
    }
