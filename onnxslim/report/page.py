"""The result as one HTML page that needs nothing else: the terminal's tables, uncut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from html import escape
from math import inf

from rich.table import Table
from rich.text import Text

from onnxslim.report.record import PassEntry, Report
from onnxslim.report.table import (
    before_after_table,
    effects_table,
    layers_table,
    number,
    passes_table,
    size,
    verdict_lines,
)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --good: #1a7f37; --bad: #cf222e;
  --tile: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
code { overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.tile { background: var(--tile); border-radius: .5rem; padding: .6rem 1rem; min-width: 9rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; } .right { text-align: right; white-space: nowrap; }
details { margin: .35rem 0; } summary { cursor: pointer; }
ul { margin: .25rem 0; padding-left: 1.5rem; }
"""


def page(report: Report) -> str:
    """The page as text. Names come from models, so everything is escaped."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.output)}</title><style>{STYLE}</style></head><body>",
            *_head(report),
            *_tiles(report),
            *(f"<p>{_line(line)}</p>" for line in verdict_lines(report)),
            *_sections(report),
            *_left(report),
            *_operators(report),
            f'<p class="dim">{escape(", ".join(report.versions))}</p>',
            "</body></html>",
            "",
        ]
    )


def _head(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.input)} &rarr; {escape(report.output)}</h1>"
    words = f"for {report.target}, {report.seconds:.0f} s"
    yield f'<div class="dim"><code>{escape(report.pipeline)}</code> {escape(words)}</div>'


def _tiles(report: Report) -> Iterator[str]:
    """The figures that people ask for first: how small, how fast, at what price."""
    yield '<div class="tiles">'
    before, after = report.size.before, report.size.after
    if before:
        yield _tile("size", f"{after / before:.3f}", f"{size(before)} to {size(after)}")
    latency = report.latency_ms
    if latency.ratio:
        thread = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
        noise = "" if latency.noise is None else f", noise {latency.noise:.0%}"
        yield _tile("times as fast", f"{1 / latency.ratio:.2f}", f"{thread}{noise}")
    check = report.check
    if check is not None and not check.synthetic:
        if check.drop is not None and check.metric != "sqnr":
            samples = f"of {number(check.before)}, {check.samples} samples"
            yield _tile(f"drop of {check.metric}", f"{check.drop:.4g}", samples)
        worst = min(check.sqnr_db.values(), default=inf)
        noise = "no noise" if worst == inf else f"{worst:.1f} dB"
        yield _tile("signal to noise", noise, "of the worst output")
    yield "</div>"


def _tile(title: str, value: str, more: str) -> str:
    title, value, more = map(escape, (title, value, more))
    return f'<div class="tile">{title}<b>{value}</b><span class="dim">{more}</span></div>'


def _sections(report: Report) -> Iterator[str]:
    yield from _table(before_after_table(report))
    yield from _table(passes_table(report, shown=None))
    if any(entry.effect for entry in report.passes):
        yield from _table(effects_table(report))
    if any(entry.layers for entry in report.passes):
        yield from _table(layers_table(report, shown=None))


def _table(table: Table) -> Iterator[str]:
    """A table of the terminal."""
    yield f'<h2>{escape(str(table.title))}</h2><div class="wide"><table>'
    sides = [' class="right"' if c.justify == "right" else "" for c in table.columns]
    heads = zip(sides, (str(c.header) for c in table.columns), strict=True)
    yield f"<tr>{''.join(f'<th{side}>{escape(head)}</th>' for side, head in heads)}</tr>"
    for row in zip(*(c.cells for c in table.columns), strict=True):
        cells = zip(sides, map(str, row), strict=True)
        yield f"<tr>{''.join(f'<td{side}>{escape(cell)}</td>' for side, cell in cells)}</tr>"
    yield "</table></div>"


def _line(line: Text) -> str:
    tone = {"green": "good", "bold red": "bad"}.get(str(line.style))
    text = escape(line.plain)
    return f'<span class="{tone}">{text}</span>' if tone else text


def _left(report: Report) -> Iterator[str]:
    """What each pass left alone: a reason, and the nodes that it holds for."""
    for entry in report.passes:
        if entry.declined:
            yield f"<h2>Left alone by {escape(entry.spec)}</h2>"
            yield from _reasons(entry)


def _reasons(entry: PassEntry) -> Iterator[str]:
    nodes = defaultdict[str, list[str]](list)
    for declined in entry.declined:
        nodes[declined.reason].append(declined.node)
    for reason, names in sorted(nodes.items(), key=lambda item: -len(item[1])):
        items = "".join(f"<li><code>{escape(name)}</code></li>" for name in names)
        yield f"<details><summary>{len(names)}: {escape(reason)}</summary>"
        yield f"<ul>{items}</ul></details>"


def _operators(report: Report) -> Iterator[str]:
    """Nodes by operator, before and after."""
    before, after = report.nodes.before, report.nodes.after
    if not before:
        return
    yield "<h2>Operators</h2><details><summary>nodes before and after</summary><table>"
    yield '<tr><th>operator</th><th class="right">before</th><th class="right">after</th></tr>'
    for name in sorted({*before, *after}, key=lambda n: (-after.get(n, 0), n)):
        counts = "".join(f'<td class="right">{n.get(name, 0)}</td>' for n in (before, after))
        yield f"<tr><td>{escape(name)}</td>{counts}</tr>"
    yield "</table></details>"
