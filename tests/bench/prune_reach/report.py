"""The rows as Markdown and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from onnxslim.passes.prune.safety import MARGIN, TOLERANCE
from tests.bench.prune_reach.measure import EVENLY, SHARE
from tests.bench.prune_reach.subjects import ATTENTION, CNN, MOST_LEFT, NORMED, Subject
from tests.bench.simplify.report import commit
from tests.bench.simplify.store import Record
from tests.bench.table import machine

Rows = Mapping[str, tuple[Subject, Record, Record]]
"""By name the subject, its row and its latency."""

_INTRO = f"""# How far pruning reaches

Written by `python -m tests.bench.prune_reach.run --out docs/PRUNE_REACH.md`. Every model is pruned
by `prune{{share={SHARE}}}` without samples: about 30 % of each group, rounded to the target's
multiples. *MACs* and *bytes* are what is left, of the multiplications and of the weights. *Gap* is
the largest difference from the original in which the same units are masked, over all outputs and
*sizes* (batch 1, 2 and 3; of detectors two images, and what their boxes are chosen by instead of
the outputs; of the five shipped models real samples), relative to the largest value of the output.
A gap over {TOLERANCE:.0e} is held against *noise*: the masked model against itself with the inputs
of every layer summed in another order, three times; it is right up to {MARGIN:g} times that, and
bold beyond. *Latency* is the pruned model's over the original's, one thread, the first size,
medians of turns in one process, with the 99 % interval; of a detector up to where boxes are chosen,
as random weights find more of them or fewer afterwards, and the time after that goes with them.
*Foretold* is what that latency would be if dense layers took time in proportion to their
multiplications and every other kind of kernel, depthwise convolutions too, to the numbers it
writes, by the profile of the original, *linear* the share of its time that the latter have. What
is beyond that is in small kernels: on AVX2 a 1x1 convolution with 8, 16, 24 and 32 output channels
does 20, 29, 38 and 40 GMAC/s, and each kernel takes microseconds however little it does.
*Evenly* is the latency where {EVENLY:.2f} of the MACs are left, as by default, and each group loses
as nearly the same share as multiples allow, as random weights do not say which units matter.
*Width* columns are the same with
`width=true`: what enters a LayerNorm goes too, and the norm is over what stays; the masked original
is then that with its norms over what stays. *Stays* is the share of the MACs whose outputs cannot
go without `width`, with the reason.

Exports are torchvision's and timm's with random weights, opset 17. Of a CNN at most
{MOST_LEFT[CNN]:.2f} of the MACs should be left, of a transformer, or what mixes tokens as one does,
{MOST_LEFT[ATTENTION]:.2f}. A CNN with LayerNorm over its channels (ConvNeXt) can lose only the
hidden units of each block without `width`.
"""
NEAR = 0.15
"""So much slower than its share of the MACs a pruned CNN may be."""
_MILDER = f"{EVENLY:.2f} of the MACs left evenly"
_SUITES = {
    "tv": "classifiers of torchvision",
    "seg": "segmentation models",
    "det": "detectors",
    "timm": "models of timm",
}
_HEAD = (
    "model", "G MACs", "MACs", "bytes", "latency", "evenly", "gap", "noise", "sizes",
    "width: MACs", "gap", "noise", "groups", "stays",
)  # fmt: skip


def write(rows: Rows, out: Path) -> None:
    """Both files."""
    about = {**machine(), "commit": commit()}
    lines = [_INTRO, *_summary(rows), ""]
    lines += ["Measured with " + ", ".join(f"{k} {v}" for k, v in about.items()) + ".", ""]
    for family in (CNN, NORMED, ATTENTION):
        some = {n: r for n, r in rows.items() if r[0].family == family and "failure" not in r[1]}
        lines += [f"## {family}: {len(some)} models", ""]
        lines += ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
        lines += [_line(*row) for row in some.values()] + [""]
    failed = {n: r[1]["failure"] for n, r in rows.items() if "failure" in r[1]}
    if failed:
        lines += ["## Not measured", "", *(f"- {n}: {why}" for n, why in failed.items()), ""]
    out.write_text("\n".join(lines), encoding="utf-8")
    content = {n: {"family": s.family, **row, "latency": ms} for n, (s, row, ms) in rows.items()}
    text = json.dumps({"machine": about, "rows": content}, indent=1)
    out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def right(found: Record) -> bool:
    """Whether a pruned model equals the masked original."""
    return bool(found["gap"] <= max(TOLERANCE, MARGIN * found["noise"]))


def _summary(rows: Rows) -> Iterable[str]:
    done = {n: r for n, (_, r, _) in rows.items() if "failure" not in r}
    plain = {n: r["plain"] for n, r in done.items() if "gap" in r["plain"]}
    wide = {n: r["width"] for n, r in done.items() if "width" in r}
    wrong = [n for some in (plain, wide) for n, r in some.items() if not right(r)]
    over = [n for some in (plain, wide) for n, r in some.items() if r["gap"] > TOLERANCE]
    suites = Counter(a.suite for s, r, _ in rows.values() if (a := s.architecture) and "plain" in r)
    named = ", ".join(f"{suites[suite]} {what}" for suite, what in _SUITES.items())
    yield f"{len(done)} models: {named}, {len(done) - suites.total()} shipped ones. "
    yield f"Not equal to the masked original: {', '.join(wrong) or 'none'}. "
    yield f"Beyond {TOLERANCE:.0e} but within the noise: {len(set(over) - set(wrong))}. "
    yield f"Nothing to prune without `width`: {_names(n for n in done if n not in plain)}; "
    yield f"with it: {_names(n for n in done if n not in plain and n not in wide)}. "
    for family, most in MOST_LEFT.items():
        own = [n for n in plain if rows[n][0].family == family]
        more = [n for n in own if plain[n]["macs"] > most]
        both = [n for n in more if n not in wide or wide[n]["macs"] > most]
        yield f"{family}: {len(own)} models, over {most:.2f} without `width`: {_names(more)}; "
        yield f"with it: {_names(both)}. "
    yield from _speed(rows)


def _speed(rows: Rows) -> Iterable[str]:
    """How many CNNs come near to the time that their MACs promise, and what the others lack."""
    done = {
        name: (row["plain"], latency)
        for name, (subject, row, latency) in rows.items()
        if subject.family == CNN and "ratio" in latency and "macs" in row.get("plain", {})
    }
    timed = {n: latency["ratio"] / plain["macs"] for n, (plain, latency) in done.items()}
    milder = {
        n: found["ratio"] / found["macs"]
        for n, (_, latency) in done.items()
        if (found := latency.get("evenly"))
    }
    slower = _over(timed)
    for what, some in ((f"{SHARE:.0%} of each group gone", timed), (_MILDER, milder)):
        yield (
            f"CNN, {what}: of {len(some)} {len(some) - len(_over(some))} have a latency of at most "
            f"{1 + NEAR:g} times their share of MACs; the others: {_names(_over(some))}. "
        )
    if slower:
        yield from (
            "",
            "| model | MACs | latency | over MACs | foretold | linear | evenly: MACs | latency "
            "| over MACs |",
            "|" + "---|" * 9,
        )
        yield from (_slow(name, *rows[name][1:]) for name in slower)
        yield ""
    boxes = {n: latency["boxes"] for n, (*_, latency) in rows.items() if "boxes" in latency}
    if boxes:
        found = ", ".join(f"{n} {old} and {new}" for n, (old, new) in boxes.items())
        yield f"Boxes that detectors find before and after: {found}. "


def _over(timed: Mapping[str, float]) -> list[str]:
    """Those with more time than their MACs promise, the worst last."""
    return sorted((n for n, over in timed.items() if over > 1 + NEAR), key=lambda n: timed[n])


def _slow(name: str, row: Record, latency: Record) -> str:
    more = (_number(latency.get(key), digits) for key, digits in (("foretold", 3), ("linear", 2)))
    cells = [name, *_beside(row["plain"]["macs"], latency["ratio"]), *more]
    if "evenly" in latency:
        cells += _beside(latency["evenly"]["macs"], latency["evenly"]["ratio"])
    return "| " + " | ".join(cells) + " |"


def _beside(macs: float, latency: float) -> tuple[str, str, str]:
    return f"{macs:.3f}", f"{latency:.3f}", f"{latency / macs:.2f}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _line(subject: Subject, row: Record, latency: Record) -> str:
    plain, wide = row["plain"], row.get("width", {})
    groups = (plain if plain["groups"] else wide).get("groups", {})
    cells = [
        subject.name,
        f"{row['macs'] / 1e9:.2f}",
        *(_number(plain.get(key), 3) for key in ("macs", "bytes")),
        _latency(latency),
        _latency(latency.get("evenly", {})),
        *_equality(plain),
        str(plain.get("sizes", "")),
        _number(wide.get("macs"), 3),
        *_equality(wide),
        ", ".join(f"{count} {kind}" for kind, count in groups.items()),
        "; ".join(f"{share:.0%} {why}" for share, why in plain["stays"][:3]),
    ]
    return "| " + " | ".join(cells) + " |"


def _equality(found: Record) -> tuple[str, str]:
    if "gap" not in found:
        return "", ""
    gap = f"{found['gap']:.0e}"
    return gap if right(found) else f"**{gap}**", f"{found['noise']:.0e}" if found["noise"] else ""


def _latency(found: Record) -> str:
    if "ratio" not in found:
        return str(found.get("failure", ""))[:60]
    low, high = found["interval"]
    return f"{found['ratio']:.2f} ({low:.2f}-{high:.2f})"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
