# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each host was before the change and after it, in the few numbers by which people compare hosts. Pure."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs, get, number
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import cpu_busy_ppm
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.shift import (
    latency_ns,
    never,
    no_latency,
    no_pressure,
    pressure_ppm,
)


class Size(NamedTuple):
    """A number of a host: its name with its unit, how it is read of a record, and which hosts have none of it."""

    name: str
    read: Callable[[Any, str], int | None]
    absent: Callable[[Any], bool] = never


def memory_used_bytes(record: Any, when: str) -> int | None:
    """Memory that is not available to programs, in bytes; None unless both numbers were measured and fit."""
    whole, free = (number(record, when, "end", "host", f"memory_{name}_bytes") for name in ("total", "available"))
    return None if whole is None or free is None or free > whole else whole - free


def _pressure(kind: str) -> Size:
    return Size(f"pressure_{kind}_ppm", lambda record, when: pressure_ppm(get(record, when), kind), no_pressure(kind))


def _latency(percentile: str) -> Size:
    return Size(
        f"application_{percentile}_ns", lambda record, when: latency_ns(record, when, percentile), no_latency
    )  # fmt: skip


SIZES: tuple[Size, ...] = (
    Size("host_cpu_ppm", lambda record, when: cpu_busy_ppm(get(record, when))),
    Size("memory_used_bytes", memory_used_bytes),
    *map(_pressure, ("cpu", "memory", "io")),
    *map(_latency, ("p95", "p99")),
)


def before_after(inputs: Inputs) -> dict[str, dict[str, dict[str, list[int | None]]]]:
    """{"changed" and "controls": {host: {size: [before, after]}}}; what was not measured is None.

    A size that the host has none of, as an application that it does not run, is left out.
    """
    return {"changed": _of(inputs.changed), "controls": _of(inputs.controls)}


def _of(records: Mapping[str, Any]) -> dict[str, dict[str, list[int | None]]]:
    return {
        host: {
            size.name: [_bounded(size.read(record, when)) for when in ("before", "after")]
            for size in SIZES
            if not size.absent(record)
        }
        for host, record in sorted(records.items())
    }


def _bounded(value: int | None) -> int | None:
    """A number of an answer that was refused as a whole may be any; what no counter can hold was not measured."""
    return value if value is not None and 0 <= value < 1 << 63 else None
