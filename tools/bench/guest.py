# SPDX-License-Identifier: GPL-3.0-or-later
"""runqlat beside BCC's, in turns on this very host: `python3 -m tools.bench.guest ROUNDS` in the folder of bench_bcc.

Python's standard library and the carried files only. Prints one document: the rounds of both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from tests.support.play import ROOT
from tools.bench.cost import Cost, cost
from tools.bench.machine import TRACER_CPU, Load, on_cpu, say, statistics_on
from tools.bench.tracers import POLICY, Lines, Tracer, says_attached

PATIENCE = 240  # a compiler on an emulated processor
PAUSE = 0.05


class Pushed(Tracer):
    """The loader with the bundle that was carried here, in folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.name = "ours"
        self.state, self.journal = folder / "state", folder / "journal"
        for name in ("etc", "run/kill.d", "state", "log"):
            (folder / name).mkdir(parents=True)
        wish = {"runqlat": {"enabled": True, "sample_every": 1}}
        desired = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": wish}
        (folder / "etc/desired.json").write_text(json.dumps(desired))
        (folder / "etc/policy.json").write_text(json.dumps(POLICY))
        command = [str(ROOT / "ebpf-loader"), "run", "--bundle", str(ROOT / "bundle"), "--interval", "1"]
        command += ["--trust", str(ROOT / "signers")]
        for name in ("etc", "run", "state", "log"):
            command += ["--" + name, str(folder / name)]
        self.started = time.perf_counter()
        with self.journal.open("wb") as journal:
            self.process = subprocess.Popen(on_cpu(TRACER_CPU, command), stderr=journal)

    def attached(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"bench: the loader ended: {self.journal.read_text()[-500:]}")
        path = self.state / "status.json"
        return path.exists() and says_attached(json.loads(path.read_bytes()))


def bcc(folder: Path) -> Lines:
    """BCC's own tool, which writes a histogram a second."""
    return Lines("BCC's runqlat", ("python3", "-u", str(ROOT / "runqlat-bpfcc"), "1"), folder, "Tracing", b"->")


MAKERS: dict[str, Callable[[Path], Tracer]] = {"ours": Pushed, "bcc": bcc}


def rounds_of(count: int, folder: Path, load: Load) -> dict[str, list[Cost]]:
    """All rounds, in turns."""
    found: dict[str, list[Cost]] = {name: [] for name in MAKERS}
    for number in range(count):
        for name, make in MAKERS.items():
            place = folder / f"{name}-{number}"
            found[name].append(cost(lambda m=make, p=place: m(p), load, PATIENCE, PAUSE))
            seconds = found[name][-1].seconds_until_first_run
            say(f"VM: round {number + 1} of {count}, {name}: measures {seconds:.1f} s after its start")
    return found


def main(count: str) -> None:
    """Measure and print."""
    load = Load(ROOT / "generator")
    try:
        with statistics_on(), tempfile.TemporaryDirectory(dir=ROOT) as folder:
            found = rounds_of(int(count), Path(folder), load)
    finally:
        load.end()
    document: dict[str, Any] = {name: [each._asdict() for each in rounds] for name, rounds in found.items()}
    print(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
