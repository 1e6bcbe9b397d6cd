from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vitrail.errors import LONGEST, CheckpointError, UserError


@given(st.text(st.characters(exclude_categories=())))
def test_a_message_is_one_line_that_can_be_printed(text: str) -> None:
    said = str(UserError(f"file: {text}"))
    assert said.startswith("file:")
    assert said.isprintable()
    said.encode()
    assert len(said) <= LONGEST + 3


def test_what_people_write_stays_as_it_is() -> None:
    text = "photos/blé.jpg: 'größe' = 3: did you mean '图片'?"
    assert str(CheckpointError(text)) == text
    assert str(CheckpointError("a\nb\tc  d.jpg")) == "a b c  d.jpg"
    assert str(CheckpointError("x" * 5000)) == "x" * LONGEST + "..."
