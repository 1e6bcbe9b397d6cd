"""Shared fixtures; shapes in signatures are checked at run time under pytest."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from command_line import run

__all__ = ["run", "shared_data"]

# A shell that starts the tests in the background has them ignore SIGINT, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

_hook = install_import_hook("vitrail", "beartype.beartype")
_hook.__enter__()


settings.register_profile("busy", deadline=None)  # how long an example takes is no fault of it
settings.load_profile("busy")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; a test that wants it is skipped where it is absent."""
    given = os.environ.get("VITRAIL_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in [Path(given)] if given else [beside]:
        if (folder / "flowers").is_dir():
            return folder
    pytest.skip("real images not found: set VITRAIL_DATA or put them in ../shared/data")
