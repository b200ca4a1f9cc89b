# SPDX-License-Identifier: GPL-3.0-or-later
"""runqlat: what a context switch costs under ours, libbpf-tools' and bpftrace's, and how soon they measure."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Iterator, Sequence

from tools.bench.cost import Cost, cost
from tools.bench.machine import Load, build_generator, say
from tools.bench.ours import Ours, release_feature
from tools.bench.report import Result, measured, result
from tools.bench.tracers import Lines, Tracer

ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_EVENT_ROUNDS", "3"))


def bpftrace_script() -> str:
    """bpftrace's own runqlat.bt; its header, of which it needs one constant, is not on every machine."""
    path = shutil.which("runqlat.bt")
    if path is None:
        raise SystemExit("bench: there is no runqlat.bt; Debian's package bpftrace has it")
    text = re.sub(r"^#!.*$|^#include.*$", "", Path(path).read_text(), flags=re.M)
    return text.replace("TASK_RUNNING", "0")


def runqlat() -> Iterator[Result]:
    """The three in turns, on the same load."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        found: dict[str, list[Cost]] = {}
        load = Load(build_generator(folder))
        feature, script = release_feature("runqlat"), bpftrace_script()
        makers: dict[str, Callable[[Path], Tracer]] = {
            "ours": lambda place: Ours("ours", place, feature),
            "libbpf-tools runqlat": lambda place: Lines("runqlat", ("runqlat", "1"), place, "Tracing", b"->"),
            "bpftrace runqlat.bt": lambda place: Lines(
                "runqlat.bt", ("bpftrace", "-e", script), place, "Tracing", b"["
            ),
        }
        try:
            for number in range(ROUNDS):
                for name, make in makers.items():
                    say(f"round {number + 1} of {ROUNDS}: {name}")
                    place = folder / f"{name.replace(' ', '-')}-{number}"
                    found.setdefault(name, []).append(cost(lambda m=make, p=place: m(p), load))
        finally:
            load.end()
    for peer in (name for name in found if name != "ours"):
        yield from costs("runqlat", found["ours"], peer, found[peer])


def costs(label: str, ours: Sequence[Cost], peer: str, theirs: Sequence[Cost]) -> Iterator[Result]:
    """The results of both, line by line."""
    for what, unit, attribute, scale in (
        ("BPF run time per program run", "ns", "ns_per_run", 1),
        ("BPF run time per context switch of the load", "ns", "ns_per_switch", 1),
        ("start until the first program ran", "s", "seconds_until_first_run", 1),
        ("peak resident memory", "MiB", "peak_bytes", 1 / 1048576),
        ("CPU of the process", "millicores", "cpu_ns_per_second", 1e-6),
    ):
        mine, other = (
            [each * scale for each in measured([getattr(one, attribute) for one in rounds])]
            for rounds in (ours, theirs)
        )
        yield result(f"{label}: {what}", unit, mine, peer, other)
