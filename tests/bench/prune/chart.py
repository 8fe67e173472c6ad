"""Curves as an SVG picture: one panel per network, points joined in the order of their x.

A third number of a point is what its y may be off by, drawn as a bar to both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

Point = tuple[float, float]
Marked = Point | tuple[float, float, float]
Panel = Mapping[str, Sequence[Marked]]

_WIDTH, _HEIGHT = 330, 270  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 44
_COLOURS = ("#d95f02", "#1b6ca8", "#4d4d4d")
_TICKS = 6


def svg(panels: Mapping[str, Panel], x_title: str, y_titles: Mapping[str, str]) -> str:
    """The whole picture; panels by title, series by name, `y_titles` by panel."""
    width = _WIDTH * len(panels)
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT + 24}" '
        f'viewBox="0 0 {width} {_HEIGHT + 24}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{_HEIGHT + 24}" fill="white"/>',
    ]
    for at, (title, panel) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({at * _WIDTH},0)">')
        parts += _panel(title, panel, names, x_title, y_titles[title])
        parts.append("</g>")
    for at, name in enumerate(names):
        x, y = _LEFT + 170 * at, _HEIGHT + 12
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{_COLOURS[at]}"/>')
        parts.append(f'<text x="{x + 8}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, panel: Panel, names: list[str], x_title: str, y_title: str) -> list[str]:
    points = [point for series in panel.values() for point in series]
    x_range = _range([point[0] for point in points])
    y_range = _range([y for point in points for y in _ends(point)])
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(point: Marked) -> Point:
        x = _LEFT + (point[0] - x_range[0]) / (x_range[1] - x_range[0]) * (right - _LEFT)
        y = bottom - (point[1] - y_range[0]) / (y_range[1] - y_range[0]) * (bottom - _TOP)
        return round(x, 1), round(y, 1)

    parts = [
        f'<text x="{(_LEFT + right) / 2}" y="18" text-anchor="middle" font-weight="bold">'
        f"{escape(title)}</text>",
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x_title)}</text>",
        f'<text transform="translate(12,{(_TOP + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_title)}</text>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}" '
        'fill="none" stroke="#999"/>',
    ]
    for value in _ticks(*x_range):
        x, _ = place((value, y_range[0]))
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(*y_range):
        _, y = place((x_range[0], value))
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for name, series in panel.items():
        colour, placed = _COLOURS[names.index(name)], [place(p) for p in sorted(series)]
        for point in series:
            x, (low, high) = point[0], _ends(point)
            (x, bottom_y), (_, top_y) = place((x, low)), place((x, high))
            parts.append(
                f'<path d="M{x} {bottom_y} V{top_y}" stroke="{colour}" stroke-opacity="0.4" '
                'stroke-width="3"/>'
            )
        line = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>' for x, y in placed]
    return parts


def _ends(point: Marked) -> Point:
    """The lowest and the highest y."""
    error = point[2] if len(point) > 2 else 0.0
    return point[1] - error, point[1] + error


def _range(values: Sequence[float]) -> Point:
    """A little more than the values cover."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in between, `_TICKS` at most."""
    power = 10.0 ** floor(log10(high - low) - 1)
    step = next(n * power for n in (1, 2, 5, 10, 20, 50) if (high - low) / (n * power) < _TICKS)
    return [round(n * step, 12) for n in range(ceil(low / step), floor(high / step) + 1)]
