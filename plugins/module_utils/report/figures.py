# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers in the unit that a person reads: 12 millicores, 1.2 %, 4 MiB, 3.1 ms. Pure."""

from __future__ import annotations

_STEPS = {
    "bytes": ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
    "ns": ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")),
}


def amount(value: float, unit: str | None) -> str:
    """A number with its unit: ppm as percent, bytes and ns in the largest unit that it fills; others as they are."""
    if unit == "ppm":
        return f"{_short(value / 10_000)} %"
    for size, name in _STEPS.get(unit or "", ()):
        if abs(value) >= size:
            return f"{_short(value / size)} {name}"
    return f"{_short(value)} {unit}" if unit else _short(value)


def _short(value: float) -> str:
    """Two digits or more that mean something, and no zeros behind the point."""
    if value == int(value):
        return str(int(value))
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.01 else 4
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
