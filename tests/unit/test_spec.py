"""The text form of pipelines: what it reads, what it refuses, and that it round-trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim.errors import PipelineSyntaxError
from onnxslim.pipeline.spec import PassSpec, parse_pipeline

WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters='"{}', exclude_categories=("Cs", "Cc")))
OPTIONS = st.dictionaries(WORDS, st.lists(TEXTS, min_size=1, max_size=3).map(tuple), max_size=3)
SPECS = st.lists(st.builds(PassSpec, WORDS, OPTIONS), min_size=1, max_size=4)


UP_TO = "expected options up to a '}', and no '{' in them"
NO_COMMA = "expected a blank between options, not a comma"


@given(SPECS)
def test_text_gives_the_same_specs_again(specs: list[PassSpec]) -> None:
    assert parse_pipeline(",".join(map(str, specs))) == specs


def test_all_of_the_grammar() -> None:
    text = 'fold,quant{scheme=int8 per-channel skip="/a b/Conv",c},my-pass{}'
    fold, quant, mine = parse_pipeline(text)
    assert fold == PassSpec("fold")
    assert quant.options == {
        "scheme": ("int8",),
        "per_channel": ("true",),
        "skip": ("/a b/Conv", "c"),
    }
    assert mine == PassSpec("my-pass")
    assert str(quant) == 'quant{scheme=int8 per_channel skip="/a b/Conv",c}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a pass name\n  \n  ^"),
        ("quant,", "expected a pass name\n  quant,\n        ^"),
        (",quant", "expected a pass name\n  ,quant\n  ^"),
        ("quant lowrank", "expected ',' or the end\n  quant lowrank\n       ^"),
        ("quant{a=1", f"{UP_TO}\n  quant{{a=1\n       ^"),
        ("quant{a={b}}", f"{UP_TO}\n  quant{{a={{b}}}}\n       ^"),
        ("quant{a=1,b=2}", f"{NO_COMMA}\n  quant{{a=1,b=2}}\n           ^"),
        ("quant{c a=1,2,b=2}", f"{NO_COMMA}\n  quant{{c a=1,2,b=2}}\n               ^"),
        ("quant{a=}", "expected 'key' or 'key=value'\n  quant{a=}\n        ^"),
        ("quant{a=1 a=2}", "option 'a' given twice\n  quant{a=1 a=2}\n            ^"),
    ],
)
def test_syntax_errors_point_at_the_fault(text: str, message: str) -> None:
    with pytest.raises(PipelineSyntaxError) as caught:
        parse_pipeline(text)
    assert str(caught.value) == message
