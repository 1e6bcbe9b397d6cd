"""What all pages share: templates that escape, and one script that alone may run."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined


def open_templates() -> Environment:
    """The package's templates: what stands in the data is escaped, what is missing an error."""
    return Environment(
        loader=PackageLoader("vitrail", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_hash(script: str) -> str:
    """What a page's Content-Security-Policy knows its own script by (base64 of its SHA-256)."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
