"""The pure part of the benchmarks: medians, ratios, the saturation curve, its table and its picture."""

from __future__ import annotations

import statistics
from html import escape
from typing import Any, Mapping, NamedTuple, Sequence

Result = dict[str, Any]


class Point(NamedTuple):
    """One step of the load: events in that time, and what it cost."""

    offered: int
    delivered: int
    seconds: float
    cpu_ns: int
    bpf_ns: int | None  # None: the kernel did not count

    @property
    def rate(self) -> float:
        """Events offered a second."""
        return self.offered / self.seconds

    @property
    def delivered_rate(self) -> float:
        """Events delivered a second of the load."""
        return self.delivered / self.seconds

    @property
    def dropped(self) -> int:
        """Events that were offered and did not arrive."""
        return self.offered - self.delivered

    @property
    def cpu_per_event(self) -> float | None:
        """ns of the consumer for each event that arrived; None where none did."""
        return self.cpu_ns / self.delivered if self.delivered else None

    @property
    def bpf_per_event(self) -> float | None:
        """ns of the programs in the kernel for each event offered; None where not counted."""
        return self.bpf_ns / self.offered if self.bpf_ns is not None and self.offered else None


def rounded(value: float | None) -> float | None:
    """Four significant places after the point, but null stays null: unmeasured is not 0."""
    return None if value is None else round(value, 4)


def result(name: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Result:
    """One line of the results, of the medians of both; the peer's are null where there is none."""
    mine = statistics.median(ours) if ours else None
    other = statistics.median(theirs) if theirs else None
    return {
        "name": name,
        "unit": unit,
        "ours": rounded(mine),
        "peer": peer,
        "peer_value": rounded(other),
        "ratio": round(mine / other, 3) if mine is not None and other else None,
        "ours_spread": spread(ours),
        "peer_spread": spread(theirs),
    }


def spread(values: Sequence[float]) -> list[float] | None:
    """The least and the greatest of the rounds."""
    return [round(min(values), 4), round(max(values), 4)] if values else None


def measured(values: Sequence[float | None]) -> list[float]:
    """Those that were measured."""
    return [each for each in values if each is not None]


def lossless(rounds: Sequence[Sequence[Point]]) -> list[float]:
    """By round: the highest rate up to which no event was lost; 0 where the first step lost some."""
    return [_lossless(points) for points in rounds]


def _lossless(points: Sequence[Point]) -> float:
    best = 0.0
    for point in sorted(points, key=lambda each: each.rate):
        if point.dropped > 0:
            break
        best = point.rate
    return best


def curve(rounds: Sequence[Sequence[Point]]) -> list[dict[str, float | None]]:
    """The steps of all rounds as one curve: the median of each step."""
    return [_step([each[i] for each in rounds]) for i in range(min(map(len, rounds), default=0))]


def _median(values: Sequence[float | None]) -> float | None:
    known = measured(values)
    return statistics.median(known) if known else None


def _step(points: Sequence[Point]) -> dict[str, float | None]:
    return {
        "offered_per_s": round(statistics.median(each.rate for each in points)),
        "delivered_per_s": round(statistics.median(each.delivered_rate for each in points)),
        "dropped_ppm": round(statistics.median(1e6 * each.dropped / each.offered for each in points)),
        "consumer_millicores": round(statistics.median(each.cpu_ns / each.seconds / 1e6 for each in points), 1),
        "consumer_ns_per_event": rounded(_median([each.cpu_per_event for each in points])),
        "bpf_ns_per_event": rounded(_median([each.bpf_per_event for each in points])),
    }


def _text(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _range(values: Sequence[float] | None) -> str:
    return f" ({_text(values[0])} to {_text(values[1])})" if values else ""


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([_text(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def results_table(results: Sequence[Result]) -> str:
    """The results as a Markdown table; in brackets the least and the greatest of the rounds."""
    rows = [
        [
            each["name"],
            each["unit"],
            _text(each["ours"]) + _range(each.get("ours_spread")),
            each["peer"],
            _text(each["peer_value"]) + _range(each.get("peer_spread")),
            each["ratio"],
        ]
        for each in results
    ]
    return table(("what", "unit", "ours", "peer", "peer's", "ours / peer's"), rows)


WIDTH, HEIGHT, MARGIN = 720, 400, 64
COLOURS = ("#0b6e4f", "#1f77b4", "#c0392b", "#8e44ad", "#b8860b")


def _ticks(top: float) -> list[float]:
    """Five even steps to a round number above."""
    step = 10 ** max(0, len(str(int(top))) - 1)
    while top / step < 3 and step >= 10:
        step //= 2
    return [step * i for i in range(int(-(-top // step)) + 1)]


def svg(title: str, axes: tuple[str, str], lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line chart; the dashed line is what was offered, so what is below it was lost."""
    x_ticks = _ticks(max((x for line in lines.values() for x, _ in line), default=1))
    y_ticks = _ticks(max((y for line in lines.values() for _, y in line), default=1))

    def place(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + x / x_ticks[-1] * (WIDTH - 2 * MARGIN)
        return round(across, 1), round(HEIGHT - MARGIN - y / y_ticks[-1] * (HEIGHT - 2 * MARGIN), 1)

    parts = [_frame(title, axes)]
    parts += [_tick(place(x, 0), f"{x:,.0f}", False) for x in x_ticks]
    parts += [_tick(place(0, y), f"{y:,.0f}", True) for y in y_ticks]
    least = min(x_ticks[-1], y_ticks[-1])
    parts.append(_line([place(0, 0), place(least, least)], "#999", 'stroke-dasharray="4 4"'))
    for number, (label, points) in enumerate(lines.items()):
        parts.append(_series(label, number, [place(x, y) for x, y in points]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str, axes: tuple[str, str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="{MARGIN}" y="24" font-size="14">{escape(title)}</text>\n'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">{escape(axes[0])}</text>\n'
        f'<text x="{MARGIN}" y="48">{escape(axes[1])}</text>'
    )


def _tick(at: tuple[float, float], label: str, left: bool) -> str:
    x, y = (at[0] - 6, at[1] + 4) if left else (at[0], at[1] + 16)
    anchor = "end" if left else "middle"
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#555">{label}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" {more}/>'


def _series(label: str, number: int, points: Sequence[tuple[float, float]]) -> str:
    colour = COLOURS[number % len(COLOURS)]
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points)
    y = 64 + 16 * number
    name = f'<text x="{MARGIN + 26}" y="{y + 4}">{escape(label)}</text>'
    return _line(points, colour) + dots + _line([(MARGIN + 6, y), (MARGIN + 22, y)], colour) + name
