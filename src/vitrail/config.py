"""Frozen configurations: pydantic models read from and written to TOML and JSON.

A config stands directly above the module it builds. Unknown keys are errors that offer the
nearest known one; overrides are written `a.b.c=value` with the value in TOML syntax.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from vitrail.errors import ConfigError

Table = dict[str, Any]
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
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment}: write it as key=value, e.g. optim.lr=1e-3")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {assignment}: '{parent}' is a value, not a table")
            node = cast("Table", child)
        node[leaf] = _value(text.strip())
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
        raise ConfigError(f"{source}: {_explain(kind, error)}") from error


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?` for the words most like the given one, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def _explain(kind: type[Config], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind)
        leaf = str(first["loc"][-1])
        return f"unknown key '{where}'{nearest(leaf, known)}"
    given = repr(first.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "..."
    return f"'{where}' = {shown}: {first['msg'].lower()}"


def _known_keys(kind: type[Config]) -> set[str]:
    schema = kind.model_json_schema()
    tables = [schema, *cast("dict[str, Table]", schema.get("$defs", {})).values()]
    return {key for table in tables for key in table.get("properties", {})}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(table: Mapping[str, Any]) -> Table:
    return {
        key: _copy(cast("Table", value)) if isinstance(value, dict) else value
        for key, value in table.items()
    }
