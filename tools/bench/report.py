# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure part of the benchmarks: medians, ratios, the saturation curve and its table."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple, Sequence

Result = dict[str, Any]
KEYS = ("name", "unit", "ours", "peer", "peer_value", "ratio")  # of results.json


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


def rows(results: Sequence[Result]) -> list[Result]:
    """The results as results.json has them; the spread of the rounds is for people and their table."""
    return [{key: each[key] for key in KEYS} for each in results]


def spread(values: Sequence[float]) -> list[float] | None:
    """The least and the greatest of the rounds."""
    return [round(min(values), 4), round(max(values), 4)] if values else None


def measured(values: Sequence[float | None]) -> list[float]:
    """Those that were measured."""
    return [each for each in values if each is not None]


def lossless(rounds: Sequence[Sequence[Point]]) -> list[float]:
    """By round: the highest rate, as it was reached, up to which exactly what was offered arrived; 0 where none did."""
    return [_lossless(points) for points in rounds]


def _lossless(points: Sequence[Point]) -> float:
    best = 0.0
    for point in sorted(points, key=lambda each: each.rate):
        if point.delivered != point.offered:
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
        "dropped_ppm": round(statistics.median(1e6 * each.dropped / each.offered for each in points), 2),
        "lossy_rounds": sum(each.dropped != 0 for each in points),
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
