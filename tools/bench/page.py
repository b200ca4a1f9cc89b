# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a run: its table, its curves, and what they were measured on."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Sequence

from tools.bench.plot import Curves, picture
from tools.bench.report import Result, results_table, rows, table

TITLE = "What is offered, what arrives, and what it costs"

HEAD = """# Benchmarks

`make bench` measures ours beside its peers, in turns, in one run on one machine, and writes this page
when it ran whole (`.cache/venv/bin/python -m tools.bench saturation idle` runs some, into `build/bench/`).
It installs its peers and boots a VM of the [lab](../../tests/lab/README.md) for BCC, which compiles against headers.
The ratio is ours divided by the peer's: of costs, below 1 is cheaper; of rates, above 1 is faster.
A figure is the median of the rounds; in brackets are the least and the greatest.

Measured {date} on: {machine}. Peers: {peers}.

How it is measured: load and tracer are pinned to a core each, the tracer's programs and the load's calls
share the load's core. CPU is the scheduler's count over all threads of the tracer, until all that arrives has
arrived: a backlog counts on the second in which it was made. BPF run time is the kernel's, with statistics on for
ours and the peers alike. Delivered are lines in the peer's output file, and the records that ours counts once they
are in its sink. Both event tracers have 256 KiB of buffer (bpftrace for each CPU)
and the same hook, `syscalls:sys_enter_getppid`; bpftrace's `printf` carries the same fields. `jsonl` and `count` are
the sinks of [policy.json](../formats/policy.md); `x8` makes eight records of each call, for rates beyond one core's.
`4 MiB` gives both that much: at 1 M events/s 256 KiB are full after 6 ms, so a consumer that is kept off its core for
longer loses some.
Every tracer is asked the same rates; what is offered is what the caller could make, as a tracer's programs run
within its calls and slow it: where a peer's offered rate stays low without a loss, that is its cost to the application.
A rate counts as lossless where exactly what was offered arrived, and no lower step lost any; it is the rate that
the caller reached, not what it was asked for. Execs are counted by one file's name: other programs start meanwhile.
Behind each measured burst of execs some 200 more programs are started, for all tracers alike: execsnoop writes
out what it holds when its buffer is full, and not before.
Other work on the machine moves these figures; compare the columns of one run, never two runs.
{notes}
"""


def versions() -> str:
    """The peers' versions."""
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}, ", "bpftrace", "libbpf-tools", "bpftool"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip(", ")


def write(folder: Path, machine: str, results: Sequence[Result], curves: Curves, notes: Sequence[str] = ()) -> None:
    """Write README.md, results.json and the curves' picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(rows(results), indent=1) + "\n")
    listed = "".join(f"\n- {each}" for each in notes) + "\n" if notes else ""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    head = HEAD.format(date=date, machine=machine, peers=versions(), notes=listed)
    page = head + results_table(results)
    if curves:
        (folder / "saturation.svg").write_text(picture(TITLE, curves))
        page += f"\n## Saturation\n\n![{TITLE}](saturation.svg)\n\n" + curves_table(curves)
    (folder / "README.md").write_text(page)


def curves_table(curves: Curves) -> str:
    """Every step of every curve."""
    keys = [key for steps in curves.values() for key in steps[0]][:7]
    rows = [[name, *(step[key] for key in keys)] for name, steps in curves.items() for step in steps]
    return table(("tracer", *(key.replace("_", " ") for key in keys)), rows)
