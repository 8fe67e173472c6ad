"""Options of passes: typed fields from text, text from fields, and every refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.pipeline.base import Context, Pass, PassResult, option
from onnxslim.pipeline.options import OptionInfo, from_spec, options_of, spec_of_table, to_spec
from onnxslim.pipeline.spec import parse_pipeline


@dataclass(frozen=True, kw_only=True)
class Demo(Pass):
    name: ClassVar[str] = "demo"

    scheme: Literal["int8", "int4"] = option("int8", "kind of numbers")
    share: float = option(0.5, "how much to take", "0 to 1")
    rounds: int = option(1, "how often")
    bits: int | None = option(None, "none to choose by itself")
    careful: bool = option(True, "look twice")
    skip: tuple[str, ...] = option((), "nodes to leave")
    sizes: tuple[int, ...] = option((1, 2), "sizes to try")
    rate: int | float = option(1, "a number")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share:g} given")

    def run(self, model: Model, ctx: Context) -> PassResult:
        return PassResult()


def demo(text: str) -> Demo:
    (spec,) = parse_pipeline(text)
    return from_spec(Demo, spec)


def test_text_to_options() -> None:
    text = "demo{scheme=int4 share=0.25 rounds=3 bits=4 careful=false skip=a,/b/c sizes=7 rate=2}"
    assert demo(text) == Demo(
        scheme="int4",
        share=0.25,
        rounds=3,
        bits=4,
        careful=False,
        skip=("a", "/b/c"),
        sizes=(7,),
        rate=2,
    )


def test_what_stays_at_its_default_is_left_out() -> None:
    assert str(to_spec(Demo())) == "demo"
    assert str(to_spec(Demo(careful=False, sizes=()))) == 'demo{careful=false sizes=""}'
    assert str(to_spec(demo("demo{careful bits=none rate=1.5}"))) == "demo{rate=1.5}"


@given(
    st.builds(
        Demo,
        scheme=st.sampled_from(["int8", "int4"]),
        share=st.floats(0, 1),
        rounds=st.integers(),
        bits=st.none() | st.integers(),
        careful=st.booleans(),
        skip=st.lists(st.from_regex(r"[ -!#-z]+", fullmatch=True)).map(tuple),
        sizes=st.lists(st.integers()).map(tuple),
        rate=st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_options_round_trip_through_text(given_: Demo) -> None:
    assert demo(str(to_spec(given_))) == given_


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "demo{sceme=int8}",
            "pass 'demo' has no option 'sceme'; did you mean 'scheme'? there is: ",
        ),
        ("demo{name=x}", "pass 'demo' has no option 'name'; "),
        ("demo{scheme=int2}", "demo: option 'scheme': given 'int2', expected one of int8, int4"),
        ("demo{share=much}", "demo: option 'share': given 'much', expected a number"),
        ("demo{share=nan}", "demo: option 'share': given 'nan', expected a finite number"),
        ("demo{rounds=1.5}", "demo: option 'rounds': given '1.5', expected a whole number"),
        ("demo{rounds=1,2}", "demo: option 'rounds': given '1,2', expected one value"),
        ("demo{bits=few}", "demo: option 'bits': given 'few', expected a whole number"),
        ("demo{careful=yes}", "demo: option 'careful': given 'yes', expected true or false"),
        ("demo{sizes=1,x}", "demo: option 'sizes': given 'x', expected a whole number"),
        ("demo{share=2}", "demo{share=2}: share=2 given (share: 0 to 1)"),
    ],
)
def test_refusals_say_what_was_given_and_expected(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        demo(text)
    assert str(caught.value).startswith(message)


def test_every_option_is_described() -> None:
    infos = {info.name: info for info in options_of(Demo)}
    assert infos["share"] == OptionInfo("share", "float", "0.5", "0 to 1", "how much to take")
    assert infos["scheme"].type == "int8|int4"
    assert infos["bits"] == OptionInfo("bits", "int|none", "none", "", "none to choose by itself")
    assert (infos["sizes"].type, infos["sizes"].default) == ("int,...", "1,2")
    assert infos["careful"].default == "true"
    assert len(infos) == 8


def test_a_toml_table_says_the_same_as_text() -> None:
    table = {"name": "demo", "share": 0.25, "careful": False, "sizes": [3, 4], "skip": ["a"]}
    spec = spec_of_table(table, "x.toml")
    assert from_spec(Demo, spec) == demo("demo{share=0.25 careful=false sizes=3,4 skip=a}")
    with pytest.raises(OptionError, match=r"x\.toml: every \[\[pass\]\] needs a name"):
        spec_of_table({"share": 1}, "x.toml")
