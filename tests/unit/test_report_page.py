"""The report as one HTML page: complete, well formed, and harmless whatever names a model has."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from onnxslim.pipeline.base import Declined, Layer
from onnxslim.report.page import page
from onnxslim.report.record import Report
from onnxslim.report.written import text_for
from tests.unit.test_report import CHECK, QUANT, REPORT, shown

VOID = {"meta"}


class Reader(HTMLParser):
    """Collects the text, and fails where a tag is not closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_page_has_all_that_the_terminal_has() -> None:
    many = tuple(Layer(f"layer{i}", "Conv", "int8") for i in range(100))
    words = Reader(page(replace(REPORT, passes=(replace(QUANT, layers=many),)))).words
    for part in ("2.50", "0.250", "drop of top1", "quant{scheme=int8}", "layer0", "layer99"):
        assert part in words
    assert "Check passed." in words
    assert "2: too small" in words


def test_no_figure_of_a_pass_is_left_out() -> None:
    stats = {f"figure{i}": i for i in range(1, 10)}
    report = replace(REPORT, passes=(replace(QUANT, stats=stats),))
    assert ", ".join(f"{key} {value}" for key, value in stats.items()) in Reader(page(report)).words
    assert "figure5 5, ..." in shown(report)


def test_names_are_text() -> None:
    evil = "</td><script>alert(1)</script>"
    entry = replace(QUANT, layers=(Layer(evil, evil, evil),), declined=(Declined(evil, evil),))
    read = Reader(page(replace(REPORT, input=evil, output=evil, passes=(entry,))))
    assert "script" not in read.tags
    assert evil in read.words


def test_a_failed_check_is_red() -> None:
    failed = replace(CHECK, passed=False, reasons=("top1 dropped by 0.2",))
    assert '<span class="bad">Check failed: top1 dropped by 0.2</span>' in page(
        replace(REPORT, check=failed)
    )


def test_made_up_inputs_make_no_claim() -> None:
    words = Reader(page(replace(REPORT, check=replace(CHECK, synthetic=True)))).words
    assert "drop of top1" not in words


def test_the_name_of_the_file_says_which_form_it_has() -> None:
    assert text_for(Path("r.HTML"), REPORT) == page(REPORT)
    assert Report.from_json(text_for(Path("r.json"), REPORT)) == REPORT
