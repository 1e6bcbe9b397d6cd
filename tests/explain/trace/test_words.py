from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from presets import PRESETS, preset_model
from tiny import photo
from vitrail.explain.trace import words
from vitrail.explain.trace.data import Text
from vitrail.explain.trace.run import trace
from vitrail.explain.trace.words import PAGE, WORDS, join, say

FOLDER = Path(words.__file__).parent
SAME = {"page.eyebrow", "page.product", "page.logit"}
"""Names that are the same in both languages."""


@pytest.mark.parametrize("key", WORDS)
def test_every_entry_has_both_languages(key: str) -> None:
    english, chinese = WORDS[key]
    blanks = [set(re.findall(r"\{(\w+)\}", text)) for text in (english, chinese)]
    assert blanks[0] == blanks[1]
    assert not re.search("[\u4e00-\u9fff]", english)
    if key in SAME:
        assert english == chinese
    else:
        assert re.search("[\u4e00-\u9fff]", chinese) or "{" in chinese


def test_chinese_sentences_end_as_sentences_do() -> None:
    for key, (english, chinese) in WORDS.items():
        assert english.endswith(".") == chinese.endswith("。"), key
        assert ". " not in chinese, key


def test_no_entry_is_idle() -> None:
    """Every key stands in the code, as it is or as what a formatted one can become."""
    code = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    page = "".join(
        (FOLDER.parent.parent / "templates" / f"trace.{kind}").read_text("utf-8")
        for kind in ("html", "js")
    )
    formed = {f"name.{part}_{how}" for part in "qk" for how in ("turned", "normed")}
    formed |= {"qkv.turned", "qkv.normed"}
    formed |= {f"merging.{place}" for place in ("here", "below", "right", "diagonal")}
    for key in WORDS:
        if key in PAGE:
            assert re.search(rf"\b{key.removeprefix('page.')}\b", page), key
        else:
            assert code.count(f'"{key}"') > 1 or key in formed, key


@pytest.mark.parametrize("name", ["deit_nano_distilled_conv2_8", "t2t_nano_8", "swin_nano_8"])
def test_no_blank_is_left_open(name: str) -> None:
    for text in texts(trace(preset_model(PRESETS[name]), photo(0), name="a")):
        assert not re.search(r"[{}]", text.en + text.zh)


def texts(value: Any) -> Iterator[Text]:
    if isinstance(value, Text):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from texts(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts(getattr(value, field.name))


def test_sentences_are_joined_as_each_language_does() -> None:
    assert say("name.head", n=3) == Text("head 3", "头 3")
    assert join(Text("A.", "甲。"), Text("", ""), Text("B.", "乙。")) == Text("A. B.", "甲。乙。")
