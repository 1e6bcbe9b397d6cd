"""Call the command line in this process, and look at what it left behind."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pictures import QUICK


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Call the command line in this process; without the report, whose plots take seconds."""
    from vitrail.cli import main
    from vitrail.train import run as run_module

    def empty_report(folder: Path, **_: object) -> Path:
        (folder / "report.html").write_text("", encoding="utf-8")
        return folder / "report.html"

    monkeypatch.setattr(run_module, "write_report", empty_report)
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["vitrail", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), out, err)

    yield call
    signal.signal(signal.SIGTERM, before)


def sets(changes: Sequence[str] = QUICK) -> list[str]:
    """Overrides as words of a command."""
    return [word for change in changes for word in ("--set", change)]


def refused(answer: Answer, *wanted: str) -> None:
    """Exit code 2, nothing on standard output, and an error of one line."""
    assert answer.code == 2, answer
    assert answer.out == ""
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, answer.err
    assert answer.err.splitlines()[-1] == errors[0], "it is the last line"
    assert "Traceback" not in answer.err
    for text in wanted:
        assert text in errors[0], errors[0]
