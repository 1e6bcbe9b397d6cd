from __future__ import annotations

from pathlib import Path

import pytest

import vitrail
from presets import PRESETS, preset_model
from tiny import photo
from vitrail.explain.trace.run import trace
from vitrail.explain.trace.source import source
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Mlp

ROOT = Path(vitrail.__file__).parent.parent


@pytest.mark.parametrize(
    "name", ["deit_nano_distilled_conv2_8", "t2t_nano_8", "swinv2_nano_8", "hybrid_nano_8"]
)
def test_the_lines_stand_in_the_file(name: str) -> None:
    found = trace(preset_model(PRESETS[name]), photo(0), name="a")
    for step in found.steps:
        for lines in step.source:
            text = (ROOT / lines.file).read_text("utf-8").splitlines()
            shown = lines.code.splitlines()
            there = text[lines.first - 1 : lines.last]
            assert [line.strip() for line in there] == [line.strip() for line in shown]
            assert lines.file.startswith("vitrail/")


def test_indentation_is_taken_off_together() -> None:
    lines = source(Attention.forward, "if self.probe", "self.probe(")
    assert lines.code.splitlines()[0] == "if self.probe is not None:"
    assert lines.code.splitlines()[1].startswith("    self.probe(")
    assert lines.last == lines.first + 1


def test_lines_that_are_gone_are_an_error() -> None:
    with pytest.raises(AssertionError, match=r"Mlp.forward has no line with 'nothing'"):
        source(Mlp.forward, "nothing")
    with pytest.raises(AssertionError, match="after"):
        source(Mlp.forward, "return", "nothing")
