# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' text format (0.0.4) by the letter of its description, so that a test refuses what a server would."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\+Inf|NaN|-?[0-9.]+)")
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
Labels = tuple[tuple[str, str], ...]


def unescape(text: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: ESCAPES[found[0]], text)


@dataclass
class Exposition:
    """A metrics file: samples by name and labels, help and type by name."""

    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)
    helps: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def total(self, name: str) -> float:
        """The sum of all series of a metric."""
        return sum(self.samples.get(name, {}).values())


def parse_labels(text: str) -> Labels:
    found: list[tuple[str, str]] = []
    while text:
        match = LABEL.match(text)
        assert match, f"labels {text!r}"
        found.append((match[1], unescape(match[2])))
        text = text[match.end() :]
    assert len({name for name, _ in found}) == len(found), f"a label twice: {found}"
    return tuple(found)


def parse(text: str) -> Exposition:
    """Parse a file; fails on what a server would refuse, duplicate series included."""
    answer = Exposition()
    assert text.endswith("\n")
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name, _, said = line[7:].partition(" ")
            assert name not in answer.helps, f"HELP twice: {name}"
            answer.helps[name] = re.sub(r"\\[\\n]", lambda found: ESCAPES[found[0]], said)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name not in answer.types, f"TYPE twice: {name}"
            answer.types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"line {line!r}"
            series = answer.samples.setdefault(match[1], {})
            labels = parse_labels(match[2] or "")
            assert labels not in series, f"a series twice: {line!r}"
            series[labels] = float(match[3])
    return answer
