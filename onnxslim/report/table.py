"""The result as a person reads it in a terminal: what was done, what was left, what it brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import inf

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxslim.report.record import CheckEntry, Effect, PassEntry, Report

LAYERS_SHOWN = 40
REASONS_SHOWN = 12
FEW_REASONS = 3  # of a pass that is not about layers, such as simplify, whose near misses are many
STATS_SHOWN = 5
_NOTHING = "-"


def result_tables(report: Report) -> Group:
    """The tables of a run, from the passes down to the sentence about accuracy."""
    parts: list[RenderableType] = [Text(), passes_table(report), Text()]
    if any(entry.effect for entry in report.passes):
        parts += [effects_table(report), Text()]
    if any(entry.layers for entry in report.passes):
        parts += [layers_table(report), Text()]
    if left := list(declined_lines(report)):
        parts += [*left, Text()]
    parts += [before_after_table(report), Text(), *verdict_lines(report)]
    return Group(*parts)


def passes_table(report: Report, shown: int | None = STATS_SHOWN) -> Table:
    """One row per pass; all of its figures where `shown` is None."""
    table = plain_table("Passes")
    table.add_column("pass", overflow="fold")
    table.add_column("changed", ratio=1)
    told = {
        title: [tell(entry) for entry in report.passes] for title, tell in _PASS_COLUMNS.items()
    }
    told = {title: cells for title, cells in told.items() if {*cells} != {_NOTHING}}
    for title in told:
        table.add_column(title, justify="right", no_wrap=True)
    for entry, *cells in zip(report.passes, *told.values(), strict=True):
        style = "" if entry.kept else "dim"
        table.add_row(Text(entry.spec), Text(_changed(entry, shown)), *cells, style=style)
    return table


def _left_alone(entry: PassEntry) -> str:
    return str(len(entry.declined)) if entry.declined else _NOTHING


def _predicted(entry: PassEntry) -> str:
    """Of the outputs where the pass tells it, else of the layer that suffers most."""
    of_layers = [layer.predicted_db for layer in entry.layers if layer.predicted_db is not None]
    output = entry.stats.get("output_db")
    if isinstance(output, float):
        return f"{output:.1f} dB"
    return f">= {min(of_layers):.1f} dB" if of_layers else _NOTHING


_PASS_COLUMNS: dict[str, Callable[[PassEntry], str]] = {
    "left alone": _left_alone,
    "predicted SNR": _predicted,
    "seconds": lambda entry: f"{entry.seconds:.1f}",
    "peak MB": lambda entry: _NOTHING if entry.peak_mb is None else f"{entry.peak_mb:.0f}",
    "MACs": lambda entry: amount(entry.macs),
    "weights": lambda entry: size(entry.weight_bytes),
}  # a column in which no pass has anything is not shown


def _changed(entry: PassEntry, shown: int | None) -> str:
    if not entry.kept:
        return "undone"
    words = [f"{key.replace('_', ' ')} {_stat(v)}" for key, v in entry.stats.items() if v]
    more = ["..."] if len(words) > len(words[:shown]) else []
    said = ", ".join([*words[:shown], *more])
    return said or ", ".join(entry.changed).lower() or "nothing"


def _stat(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def effects_table(report: Report) -> Table:
    """One row per pass: the model after it beside the original, and in brackets its own part."""
    some = [(entry.spec, entry.effect) for entry in report.passes if entry.effect is not None]
    metric, samples = some[0][1].metric, some[0][1].samples
    title = "What each pass added, as shares of the original"
    if report.check is not None and 0 < samples < report.check.samples:
        title += f"; noise and metric on {samples} of the {report.check.samples} samples"
    table = plain_table(title)
    table.add_column("after", overflow="fold", ratio=1)
    for column in ("size", "MACs", "time", "signal to noise", f"drop of {metric}"):
        table.add_column(column, justify="right", no_wrap=True)
    start = Effect(1.0, 1.0, 1.0, None, metric, 0.0, 0)
    for before, (spec, now) in zip([start, *(effect for _, effect in some)], some, strict=False):
        table.add_row(
            Text(spec),
            _factor(now.size, before.size),
            _factor(now.macs, before.macs),
            _factor(now.time, before.time),
            _noise(now.sqnr_db),
            _NOTHING if metric == "sqnr" else _step(now.drop, before.drop),
        )
    return table


def _noise(db: float | None) -> str:
    if db is None:
        return _NOTHING
    return "no noise" if db == inf else f"{db:.1f} dB"


def _factor(now: float | None, before: float | None) -> str:
    """A share of the original, and that of what the pass before left."""
    if now is None:
        return _NOTHING
    return f"{now:.3f} (x {now / before:.3f})" if before else f"{now:.3f}"


def _step(now: float | None, before: float | None) -> str:
    if now is None:
        return _NOTHING
    return f"{now:.4f}" if before is None else f"{now:.4f} ({now - before:+.4f})"


def layers_table(report: Report, shown: int | None = LAYERS_SHOWN) -> Table:
    """One row per layer that a pass changed; all of them where `shown` is None."""
    table = plain_table("Layers")
    table.add_column("pass", no_wrap=True)
    table.add_column("layer", overflow="ellipsis", no_wrap=True, max_width=36)
    table.add_column("op", no_wrap=True)
    table.add_column("what was done", overflow="fold", ratio=1)
    table.add_column("predicted SNR", justify="right", no_wrap=True)
    rows = list(_layer_rows(report))
    for row in rows[:shown]:
        table.add_row(*map(Text, row))  # names are no markup
    if (rest := len(rows) - len(rows[:shown])) > 0:
        table.add_row("", f"... {rest} more", "", "--report has all of them", "", style="dim")
    return table


def _layer_rows(report: Report) -> Iterator[tuple[str, str, str, str, str]]:
    for entry in report.passes:
        name = entry.spec.partition("{")[0]
        for layer in entry.layers:
            db = _NOTHING if layer.predicted_db is None else f"{layer.predicted_db:.1f} dB"
            yield name, layer.node, layer.op, layer.action, db


def declined_lines(report: Report) -> Iterator[Text]:
    """What each pass left alone, grouped by reason, most frequent first."""
    for entry in report.passes:
        reasons = Counter(d.reason for d in entry.declined)
        shown = REASONS_SHOWN if entry.layers or not entry.kept else FEW_REASONS
        for reason, _ in reasons.most_common(shown):
            nodes = [d.node for d in entry.declined if d.reason == reason]
            name = entry.spec.partition("{")[0]
            yield Text.assemble(f"{name} left alone ", (_some(nodes), "bold"), f": {reason}")
        if (rest := len(reasons) - shown) > 0:
            more = f"... {rest} more reasons; --report has all of them"
            yield Text(more, style="dim")


def _some(nodes: list[str], shown: int = 3) -> str:
    head = ", ".join(nodes[:shown])
    return head if len(nodes) <= shown else f"{head} and {len(nodes) - shown} more"


def before_after_table(report: Report) -> Table:
    """Size, latency, MACs and the metric, before and after."""
    table = plain_table("Result")
    table.add_column("")
    for title in ("before", "after"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    before, after = report.size.before, report.size.after
    table.add_row("size", size(before), size(after), _share(before, after))
    if report.macs.before is not None:
        macs = amount(report.macs.before), amount(report.macs.after)
        table.add_row("MACs", *macs, _macs_share(report))
    if report.nodes.before:
        nodes = sum(report.nodes.before.values()), sum(report.nodes.after.values())
        table.add_row("nodes", str(nodes[0]), str(nodes[1]), _fewer(*nodes))
    if report.check is not None or report.latency_ms.before is not None:
        _latency_row(table, report)
    if report.check is not None:
        _check_rows(table, report.check)
    return table


def _latency_row(table: Table, report: Report) -> None:
    latency = report.latency_ms
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    times = milliseconds(latency.before), milliseconds(latency.after)
    table.add_row("latency", *times, _speed(report, threads))


def _check_rows(table: Table, check: CheckEntry) -> None:
    if check.metric != "sqnr":  # the row below has it
        samples = "synthesized inputs" if check.synthetic else f"{check.samples} samples"
        table.add_row(
            check.metric, number(check.before), number(check.after), _drop(check, samples)
        )
    if check.sqnr_db:
        worst = min(check.sqnr_db.values())
        outputs = len(check.sqnr_db)
        which = "of the output" if outputs == 1 else f"of the worst of {outputs} outputs"
        if worst == inf:
            which = "the output" if outputs == 1 else f"all {outputs} outputs"
            table.add_row("signal to noise", "", "no noise", f"{which} as before, bit for bit")
            return
        table.add_row("signal to noise", "", f"{worst:.1f} dB", which)


def _drop(check: CheckEntry, samples: str) -> str:
    words: list[str] = []
    if check.drop is not None:
        words.append(f"{'rise' if check.drop < 0 else 'drop'} {abs(check.drop):.4g}")
    if check.limit is not None:
        words.append(f"limit {check.limit:.4g}")
    if check.interval is not None:
        words.append("95 % interval {:.4f} to {:.4f}".format(*check.interval))
    return ", ".join([*words, samples])


def verdict_lines(report: Report) -> Iterator[Text]:
    """Notes of the passes, and in plain words what the check proves."""
    for entry in report.passes:
        for note in entry.notes:
            yield _note(entry.spec.partition("{")[0], note)
    for note in report.notes:
        yield Text(note)
    check = report.check
    if check is None:
        return
    if not check.passed:
        yield Text(f"Check failed: {'; '.join(check.reasons)}", style="bold red")
    elif not check.synthetic:  # else a note of the check says what that means
        yield Text("Check passed.", style="green")


def _note(name: str, note: str) -> Text:
    if name == "check":  # about the result, not about a pass
        return Text(note, style="yellow")
    return Text(note if note.startswith(name) else f"{name}: {note}")


def size(count: int | None) -> str:
    """Bytes in words."""
    if count is None:
        return _NOTHING
    return _scaled(count, "B")


def amount(count: int | None) -> str:
    """A large count in words."""
    if count is None:
        return _NOTHING
    return _scaled(count, "").rstrip()


def _scaled(count: int, unit: str) -> str:
    """Three digits and the letter that fits, after rounding: 999,600 is 1 M, not 1000 k."""
    for letter, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= (factor if letter == "k" else 0.9995 * factor):
            share = count / factor
            digits = f"{share:.0f}" if share >= 999.5 else f"{share:.3g}"
            return f"{digits} {letter}{unit}"
    return f"{count} {unit}"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits."""
    if value is None:
        return _NOTHING
    return f"{value:.0f} ms" if value >= 999.5 else f"{value:#.3g}".rstrip(".") + " ms"


def number(value: float | None) -> str:
    """A metric with four digits."""
    return _NOTHING if value is None else f"{value:.4f}"


def _fewer(before: int, after: int) -> str:
    if before == after:
        return "as before"
    return f"{abs(before - after)} {'fewer' if after < before else 'more'}"


def _share(before: int, after: int) -> str:
    return f"{after / before:.3f} of the size" if before else ""


def _macs_share(report: Report) -> str:
    before, after = report.macs.before, report.macs.after
    if not before or after is None:
        return ""
    return "as before" if before == after else f"{after / before:.3f} of the MACs"


def _speed(report: Report, threads: str) -> str:
    ratio, noise = report.latency_ms.ratio, report.latency_ms.noise
    if not any(entry.changed for entry in report.passes):
        return "as before"
    if not ratio or noise is None:
        return "not measured"
    if abs(ratio - 1) <= noise:
        return f"as fast as before within the noise of {noise:.0%} ({threads})"
    return f"{1 / ratio:.2f} times as fast ({threads}, measured in turn)"


def plain_table(title: str) -> Table:
    """An empty table with a title and no frame."""
    from rich import box

    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
