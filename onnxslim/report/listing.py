"""What there is to choose from, as a person reads it: passes with their options, rules."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxslim.registry import PassInfo
from onnxslim.report.table import plain_table


def passes_list(passes: Sequence[PassInfo]) -> Group:
    """Every pass with every option: name, type, default, range and help."""
    parts: list[RenderableType] = []
    for info in passes:
        origin = "" if info.origin == "built in" else f"  ({info.origin})"
        parts.append(Text.assemble((info.name, "bold"), origin, f"  {info.summary}"))
        if info.problem:
            parts.append(Text(f"  {info.problem}", style="red"))
        parts.append(Padding(_options_table(info), (0, 0, 1, 2)))
    return Group(*parts)


def rules_table(rules: Sequence[tuple[str, str, bool]]) -> Table:
    """Rules by name, with what they do and whether outputs stay the same bits."""
    table = plain_table("Rules of simplify")
    for title in ("rule", "what it does", "outputs"):
        table.add_column(title, overflow="fold", ratio=1 if title == "what it does" else None)
    for name, summary, exact in rules:
        table.add_row(Text(name), Text(summary), "same bits" if exact else "to rounding")
    return table


def _options_table(info: PassInfo) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("option", "type", "default", "range", "help"):
        table.add_column(title, overflow="fold", ratio=1 if title == "help" else None)
    for option in info.options:
        table.add_row(option.name, option.type, option.default or '""', option.range, option.help)
    return table if info.options else Table(box=None)
