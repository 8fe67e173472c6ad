"""The report: JSON that round-trips, keys that stay, and what the terminal says of it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from onnxslim.errors import ConfigError
from onnxslim.pipeline.base import Declined, Layer
from onnxslim.report.build import renamed
from onnxslim.report.record import CheckEntry, Effect, Latency, Macs, PassEntry, Report, Size
from onnxslim.report.table import amount, milliseconds, result_tables, size

QUANT = PassEntry(
    spec="quant{scheme=int8}",
    seconds=1.5,
    peak_mb=120.0,
    changed=("STRUCTURE", "WEIGHTS", "NUMERICS"),
    stats={"layers": 3, "share": 0.5, "kind": "static"},
    declined=(Declined("a", "too small"), Declined("b", "too small"), Declined("c", "shared")),
    layers=(Layer("conv1", "Conv", "int8 per channel", 31.25), Layer("fc", "Gemm", "int8")),
    notes=("the opset rose from 11 to 13",),
    macs=154_000_000,
    weight_bytes=1_050_000,
)
CHECK = CheckEntry("top1", 0.934, 0.932, 0.002, 0.01, 400, {"y": 31.2}, True, False, (0.90, 0.95))
REPORT = Report(
    input="in.onnx",
    output="out.onnx",
    target="ort-cpu",
    pipeline="quant{scheme=int8},check",
    passes=(QUANT,),
    size=Size(4_000_000, 1_000_000),
    latency_ms=Latency(5.0, 2.0, 1, 0.4, 0.02),
    macs=Macs(154_000_000, 154_000_000),
    check=CHECK,
    names={"old": "new"},
    notes=("a warning",),
    seconds=3.25,
    versions=("onnx 1.23",),
)


def shown(report: Report) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(result_tables(report))
    return stream.getvalue()


def test_json_round_trips() -> None:
    assert Report.from_json(REPORT.to_json()) == REPORT
    bare = replace(REPORT, check=None, latency_ms=Latency(None, None, 2), names={}, passes=())
    assert Report.from_json(bare.to_json()) == bare


@pytest.mark.parametrize("db", [math.inf, -math.inf])
def test_infinite_ratios_are_json_too(db: float) -> None:
    report = replace(REPORT, check=replace(CHECK, sqnr_db={"y": db}))
    json.loads(report.to_json(), parse_constant=pytest.fail)
    assert Report.from_json(report.to_json()) == report


def test_the_keys_are_stable() -> None:
    table = json.loads(REPORT.to_json())
    assert set(table) == {
        *("schema", "input", "output", "target", "pipeline", "passes", "size", "latency_ms"),
        *("macs", "check", "names", "notes", "seconds", "versions", "nodes"),
    }
    assert table["schema"] == 1
    assert set(table["passes"][0]) == {
        *("spec", "seconds", "peak_mb", "changed", "stats", "declined", "layers", "notes"),
        *("kept", "macs", "weight_bytes", "effect"),
    }
    assert table["passes"][0]["declined"][0] == {"node": "a", "reason": "too small"}
    assert table["size"] == {"before": 4_000_000, "after": 1_000_000}
    assert table["latency_ms"] == {
        "before": 5.0,
        "after": 2.0,
        "threads": 1,
        "ratio": 0.4,
        "noise": 0.02,
    }
    assert set(table["check"]) == {
        *("metric", "before", "after", "drop", "limit", "samples", "sqnr_db", "passed"),
        *("synthetic", "interval", "reasons", "first_over_budget"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "report: given [], expected dict"),
        ("{", "Expecting property name"),
        ("{}", "report: no key 'input'"),
        (REPORT.to_json().replace(": 4000000", ': "big"'), "report.size.before: given 'big'"),
        (REPORT.to_json().replace("1.5", "null"), "report.passes[0].seconds: given None"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Report.from_json(text)
    assert str(caught.value).startswith(f"not a report of onnxslim: {message}")


def test_names_follow_renames_of_renames() -> None:
    assert renamed([{"a": "b"}, {"b": "c", "x": "y"}]) == {"a": "c", "x": "y"}
    assert renamed([{"a": "b"}, {"b": "a"}]) == {}
    assert renamed([]) == {}


def test_the_terminal_shows_what_happened() -> None:
    text = shown(REPORT)
    for part in (
        "quant{scheme=int8}",
        "layers 3, share 0.5, kind static",
        "conv1",
        "31.2 dB",
        "quant left alone a, b: too small",
        "quant left alone c: shared",
        "0.250 of the size",
        "2.50 times as fast (1 thread, measured in turn)",
        "drop 0.002, limit 0.01, 95 % interval 0.9000 to 0.9500, 400 samples",
        "quant: the opset rose from 11 to 13",
        "a warning",
        "Check passed.",
    ):
        assert part in text


def test_without_data_nothing_is_claimed() -> None:
    check = replace(CHECK, synthetic=True, before=None, after=None, drop=None, limit=None)
    text = shown(replace(REPORT, check=check, latency_ms=Latency(None, None, 1)))
    assert "Check passed" not in text
    assert "not measured" in text


def test_an_undone_pass_and_a_failed_check_are_told() -> None:
    undone = replace(QUANT, kept=False, declined=(Declined("whole model", "undone: slower"),))
    failed = replace(CHECK, passed=False, reasons=("top1 dropped by 0.2",))
    text = shown(replace(REPORT, passes=(undone,), check=failed))
    assert "undone: slower" in text
    assert "Check failed: top1 dropped by 0.2" in text


def test_what_each_pass_added_is_its_part_of_the_whole() -> None:
    half = Effect(0.5, 0.6, 0.8, 30.25, "top1", 0.01, 200)
    both = Effect(0.125, 0.6, 0.4, 24.0, "top1", 0.0125, 200)
    lowrank = replace(QUANT, spec="lowrank{ratio=0.6}", effect=half)
    report = replace(REPORT, passes=(lowrank, replace(QUANT, effect=both)))
    assert Report.from_json(report.to_json()) == report
    _, _, table = shown(report).partition("What each pass added")
    assert "; noise and metric on 200 of the 400 samples" in table.splitlines()[0]
    first, second = (line.split("  ") for line in table.splitlines()[3:5])
    assert [cell.strip() for cell in first if cell.strip()] == [
        *("lowrank{ratio=0.6}", "0.500 (x 0.500)", "0.600 (x 0.600)", "0.800 (x 0.800)"),
        *("30.2 dB", "0.0100 (+0.0100)"),
    ]
    assert [cell.strip() for cell in second if cell.strip()] == [
        *("quant{scheme=int8}", "0.125 (x 0.250)", "0.600 (x 1.000)", "0.400 (x 0.500)"),
        *("24.0 dB", "0.0125 (+0.0025)"),
    ]


def test_a_pass_that_leaves_the_outputs_alone_adds_no_noise() -> None:
    exact = replace(QUANT, effect=Effect(1.0, 1.0, None, math.inf, "top1", 0.0, 200))
    text = shown(replace(REPORT, passes=(exact, exact)))
    assert "no noise" in text
    assert "inf dB" not in text


def test_one_pass_alone_has_no_part_of_the_whole() -> None:
    assert "What each pass added" not in shown(REPORT)


def test_near_misses_of_a_pass_that_is_not_about_layers_are_few() -> None:
    many = tuple(Declined(f"n{i}", f"reason {i}") for i in range(8))
    lines = shown(replace(REPORT, passes=(replace(QUANT, declined=many, layers=()),)))
    assert "n2: reason 2" in lines
    assert "reason 3" not in lines
    assert "5 more reasons" in lines
    assert "n7: reason 7" in shown(replace(REPORT, passes=(replace(QUANT, declined=many),)))


def test_long_layer_tables_are_cut_with_a_word() -> None:
    many = tuple(Layer(f"layer{i}", "Conv", "int8") for i in range(100))
    text = shown(replace(REPORT, passes=(replace(QUANT, layers=many),)))
    assert "... 60 more" in text
    assert "layer39 " in text
    assert "layer40 " not in text


def test_quantities_in_words() -> None:
    assert [size(n) for n in (None, 7, 1500, 2_500_000, 3_100_000_000)] == [
        *("-", "7 B", "1.5 kB", "2.5 MB", "3.1 GB"),
    ]
    assert [amount(n) for n in (None, 7, 1500, 2_500_000, 3_100_000_000)] == [
        *("-", "7", "1.5 k", "2.5 M", "3.1 G"),
    ]
    assert [size(999_700), amount(999_400), size(999)] == ["1 MB", "999 k", "999 B"]


def test_milliseconds_have_three_digits_and_no_dot_at_the_end() -> None:
    assert [milliseconds(t) for t in (None, 0.0384, 5.2, 167.2, 999.7, 1234.0)] == [
        *("-", "0.0384 ms", "5.20 ms", "167 ms", "1000 ms", "1234 ms"),
    ]


def test_names_are_shown_as_they_are() -> None:
    layer = Layer("/x/[bold]MatMul[/bold]", "MatMul", "int8")
    assert "/x/[bold]MatMul[/bold]" in shown(
        replace(REPORT, passes=(replace(QUANT, layers=(layer,)),))
    )


def test_an_unchanged_model_is_said_to_be_the_same() -> None:
    same = replace(CHECK, sqnr_db={"y": math.inf})
    idle = replace(QUANT, changed=(), layers=())
    text = shown(replace(REPORT, check=same, passes=(idle,), latency_ms=Latency(None, None, 1)))
    assert "the output as before, bit for bit" in text
    assert "inf" not in text
    assert "not measured" not in text
