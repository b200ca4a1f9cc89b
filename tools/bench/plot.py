# SPDX-License-Identifier: GPL-3.0-or-later
"""The saturation curves as a picture: delivered, dropped and CPU against the rate that was offered."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Callable, Mapping, NamedTuple, Sequence

Step = Mapping[str, Any]
Curves = Mapping[str, Sequence[Step]]

WIDTH, LEFT, RIGHT = 900, 84, 660  # what is right of RIGHT is the legend's
COLOURS = ("#0b6e4f", "#1f77b4", "#c0392b", "#8e44ad", "#b8860b", "#444444", "#e377c2", "#17becf")
UNITS = ((1e6, "M"), (1e3, "k"))


class Axis(NamedTuple):
    """A scale from its first tick to its last, logarithmic or even."""

    ticks: Sequence[float]
    log: bool

    def share(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        first, last = self.ticks[0], self.ticks[-1]
        if self.log:
            return (math.log10(max(value, first)) - math.log10(first)) / (math.log10(last) - math.log10(first))
        return (value - first) / (last - first)


class Panel(NamedTuple):
    """One plot of the picture: where it is, what it tells, and its scale."""

    title: str
    top: int
    bottom: int
    axis: Axis
    value: Callable[[Step], float]

    def y(self, value: float) -> float:
        return round(self.bottom - self.axis.share(value) * (self.bottom - self.top), 1)


def decades(values: Sequence[float]) -> list[float]:
    """Powers of ten around the values; at least one decade."""
    low = math.floor(math.log10(max(1.0, min(values, default=1.0))))
    high = math.ceil(math.log10(max(1.0, max(values, default=1.0))))
    return [10.0**each for each in range(low, max(high, low + 1) + 1)]


def even(top: float) -> list[float]:
    """Four or five even steps from 0 to a round number that is not below the top."""
    if top <= 0:
        return [0.0, 1.0]
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(each * unit for each in (0.2, 0.25, 0.5, 1, 2, 2.5) if each * unit * 5 >= top)
    return [step * number for number in range(math.ceil(round(top / step, 9)) + 1)]


def short(value: float) -> str:
    """A number as an axis has room for it."""
    for size, letter in UNITS:
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def dropped_percent(step: Step) -> float:
    return float(step["dropped_ppm"]) / 1e4


def cpu_percent(step: Step) -> float:
    return float(step["consumer_millicores"]) / 10


def picture(title: str, curves: Curves) -> str:
    """The SVG. A hollow dot is a step that lost events in some round; on the dashed line all that is offered comes."""
    steps = [step for each in curves.values() for step in each]
    offered = Axis(decades([each["offered_per_s"] for each in steps]), True)
    delivered = Axis(decades([each["delivered_per_s"] for each in steps if each["delivered_per_s"]]), True)
    most_cpu = max(map(cpu_percent, steps), default=1.0)
    panels = (
        Panel("delivered, events/s", 68, 348, delivered, lambda step: float(step["delivered_per_s"])),
        Panel("dropped, % of what was offered", 400, 500, Axis(even(100), False), dropped_percent),
        Panel("CPU of the consumer, % of a core", 552, 672, Axis(even(most_cpu), False), cpu_percent),
    )
    parts = [_head(title, panels[-1].bottom + 52)]
    for panel in panels:
        parts += _frame(panel, offered)
    parts.append(_diagonal(panels[0], offered))
    for number, (name, points) in enumerate(curves.items()):
        parts += [_series(panel, offered, points, COLOURS[number % len(COLOURS)]) for panel in panels]
        parts.append(_legend(name, number))
    parts.append(_key(len(curves)))
    middle, below = (LEFT + RIGHT) / 2, panels[-1].bottom + 38
    parts.append(f'<text x="{middle}" y="{below}" text-anchor="middle">offered, events/s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + axis.share(value) * (RIGHT - LEFT), 1)


def _head(title: str, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12">\n<title>{escape(title)}</title>\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="{LEFT}" y="26" font-size="16">{escape(title)}</text>'
    )


def _frame(panel: Panel, across: Axis) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{panel.top - 10}" font-weight="bold">{escape(panel.title)}</text>']
    for tick in panel.axis.ticks:
        y = panel.y(tick)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#555">{short(tick)}</text>')
    for tick in across.ticks:
        x = _x(across, tick)
        parts.append(f'<line x1="{x}" y1="{panel.top}" x2="{x}" y2="{panel.bottom}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x}" y="{panel.bottom + 17}" text-anchor="middle" fill="#555">{short(tick)}</text>')
    return parts


def _diagonal(panel: Panel, across: Axis) -> str:
    low = max(across.ticks[0], panel.axis.ticks[0])
    high = min(across.ticks[-1], panel.axis.ticks[-1])
    return (
        f'<line x1="{_x(across, low)}" y1="{panel.y(low)}" x2="{_x(across, high)}" y2="{panel.y(high)}" '
        'stroke="#888" stroke-dasharray="5 4"/>'
    )


def _series(panel: Panel, across: Axis, steps: Sequence[Step], colour: str) -> str:
    ordered = sorted(steps, key=lambda step: float(step["offered_per_s"]))
    places = [(_x(across, each["offered_per_s"]), panel.y(panel.value(each))) for each in ordered]
    path = " ".join(f"{x},{y}" for x, y in places)
    dots = "".join(_dot(place, colour, bool(step["lossy_rounds"])) for place, step in zip(places, ordered))
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>{dots}'


def _dot(place: tuple[float, float], colour: str, lost: bool) -> str:
    return f'<circle cx="{place[0]}" cy="{place[1]}" r="3.5" fill="{"#fff" if lost else colour}" stroke="{colour}"/>'


def _row(number: int) -> int:
    return 78 + 22 * number


def _legend(name: str, number: int) -> str:
    colour, y = COLOURS[number % len(COLOURS)], _row(number)
    return (
        f'<line x1="{RIGHT + 24}" y1="{y}" x2="{RIGHT + 48}" y2="{y}" stroke="{colour}" stroke-width="1.8"/>'
        f'{_dot((RIGHT + 36, y), colour, False)}<text x="{RIGHT + 56}" y="{y + 4}">{escape(name)}</text>'
    )


def _key(number: int) -> str:
    """What the dots and the dashes mean."""
    first, second = _row(number) + 10, _row(number + 1) + 10
    return (
        f"{_dot((RIGHT + 36, first), '#444444', True)}"
        f'<text x="{RIGHT + 56}" y="{first + 4}">lost some in a round</text>'
        f'<line x1="{RIGHT + 24}" y1="{second}" x2="{RIGHT + 48}" y2="{second}" stroke="#888" stroke-dasharray="5 4"/>'
        f'<text x="{RIGHT + 56}" y="{second + 4}">all that is offered</text>'
    )
